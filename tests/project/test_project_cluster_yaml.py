"""cluster.yaml, against Ray's own schema and loader; nothing is launched."""

import json
from pathlib import Path

import jsonschema
import ray
import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_cluster_yaml_passes_rays_schema() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    assert sorted(error.message for error in jsonschema.Draft7Validator(schema).iter_errors(cluster)) == []
    workers = cluster["available_node_types"]["gpu_worker"]
    assert workers["resources"]["GPU"] >= 1
    assert cluster["head_node_type"] in cluster["available_node_types"]
    assert "ray_bootstrap_config" in " ".join(cluster["head_start_ray_commands"])
    assert "$RAY_HEAD_IP" in " ".join(cluster["worker_start_ray_commands"])
    assert "RAY_AUTH_MODE=token" in " ".join(cluster["setup_commands"])
