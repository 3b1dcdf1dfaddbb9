"""The cluster files against Ray's own schema and loader, and against what AWS takes; nothing is launched."""

import copy
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RAY_FILES = ["cluster.yaml", "clusters/on-prem.yaml"]
ALL_FILES = [*RAY_FILES, "clusters/kuberay.yaml"]


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("name", RAY_FILES)
def test_a_cluster_file_passes_rays_schema_and_loader(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    schema = json.loads((resources.files("ray") / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    cluster = read(name)
    assert sorted(error.message for error in jsonschema.Draft7Validator(schema).iter_errors(cluster)) == []
    prepared = prepare_config(copy.deepcopy(cluster))
    validate_config(prepared)
    types = prepared["available_node_types"]
    workers = [each for type_name, each in types.items() if type_name != "head"]
    assert all(0 <= each["min_workers"] <= each["max_workers"] <= prepared["max_workers"] for each in workers)
    assert sum(each["max_workers"] for each in workers) >= prepared["max_workers"] > 0


@pytest.mark.parametrize("name", RAY_FILES)
def test_a_cluster_file_asks_for_the_token_and_shows_nobody_anything(name: str) -> None:
    cluster = read(name)
    head, worker = cluster["head_start_ray_commands"][-1], cluster["worker_start_ray_commands"][-1]
    assert "RAY_AUTH_MODE=token" in head.split("ray start")[0]
    assert "RAY_AUTH_MODE=token" in worker.split("ray start")[0]
    assert "~/.ray/auth_token" in cluster["file_mounts"]
    assert "chmod 600 ~/.ray/auth_token" in cluster["setup_commands"]
    assert any("RAY_AUTH_MODE=token" in command for command in cluster["setup_commands"])
    assert "--dashboard-host=127.0.0.1" in head
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    assert "--address=$RAY_HEAD_IP:6379" in worker
    assert "RAY_enable_metrics_collection=0" in worker
    for switched_off in ("RAY_enable_metrics_collection=0", "AUTOSCALER_METRIC_PORT=-1", "DASHBOARD_METRIC_PORT=-1"):
        assert switched_off in head


@pytest.mark.parametrize("name", RAY_FILES)
def test_nodes_install_the_pinned_versions_and_set_up_commands_may_run_twice(name: str) -> None:
    commands = read(name)["setup_commands"]
    [install] = [command for command in commands if "--editable" in command]
    assert "constraints.txt" in install
    assert "[cluster]" in install
    assert all(command.startswith("grep -q ") for command in commands if ">>" in command)


def test_on_prem_brings_the_worker_that_autoscaler_2_would_leave_out() -> None:
    from ray.autoscaler._private.util import prepare_config

    cluster = read("clusters/on-prem.yaml")
    prepared = prepare_config(copy.deepcopy(cluster))
    [node_type] = prepared["available_node_types"].values()
    assert node_type["min_workers"] == node_type["max_workers"] == len(cluster["provider"]["worker_ips"])
    assert "RAY_enable_autoscaler_v2=0" in cluster["head_start_ray_commands"][-1].split("ray start")[0]


def test_aws_workers_are_spot_first_and_the_head_has_no_gpu() -> None:
    cluster = read("cluster.yaml")
    types = cluster["available_node_types"]
    spot, on_demand, head = types["gpu_spot"], types["gpu_on_demand"], types[cluster["head_node_type"]]
    assert spot["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in on_demand["node_config"]
    assert spot["priority"] > on_demand["priority"]
    assert spot["resources"] == on_demand["resources"]
    assert (spot["min_workers"], on_demand["min_workers"], head["resources"]) == (0, 0, {"CPU": 0, "GPU": 0})
    assert cluster["provider"]["security_group"]["IpPermissions"] == []


@pytest.mark.parametrize("node_type", ["head", "gpu_spot", "gpu_on_demand"])
def test_aws_would_take_every_node(node_type: str) -> None:
    loaders = pytest.importorskip("botocore.loaders", reason="pip install boto3, or '.[cluster]'")
    from botocore.model import ServiceModel
    from botocore.validate import ParamValidator

    request = ServiceModel(loaders.Loader().load_service_model("ec2", "service-2")).operation_model("RunInstances").input_shape
    node = read("cluster.yaml")["available_node_types"][node_type]["node_config"]
    errors = ParamValidator().validate({**node, "MinCount": 1, "MaxCount": 1}, request)
    assert not errors.has_errors(), errors.generate_report()
    assert node["InstanceType"] in request.members["InstanceType"].enum


def test_the_aws_check_finds_mistakes() -> None:
    loaders = pytest.importorskip("botocore.loaders", reason="pip install boto3, or '.[cluster]'")
    from botocore.model import ServiceModel
    from botocore.validate import ParamValidator

    request = ServiceModel(loaders.Loader().load_service_model("ec2", "service-2")).operation_model("RunInstances").input_shape
    node = read("cluster.yaml")["available_node_types"]["gpu_spot"]["node_config"]
    node["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] = "200GB"
    assert ParamValidator().validate({**node, "MinCount": 1, "MaxCount": 1}, request).has_errors()
    assert "g6.2xlrage" not in request.members["InstanceType"].enum


def test_kuberay_has_a_cluster_and_a_job_on_it() -> None:
    cluster, job = yaml.safe_load_all((ROOT / "clusters/kuberay.yaml").read_text(encoding="utf-8"))
    assert (cluster["apiVersion"], cluster["kind"], job["apiVersion"], job["kind"]) == (
        "ray.io/v1",
        "RayCluster",
        "ray.io/v1",
        "RayJob",
    )
    spec = cluster["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    assert "orchestrator.run grid" in job["spec"]["entrypoint"]
    [group] = spec["workerGroupSpecs"]
    assert 0 == group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    templates = [spec["headGroupSpec"]["template"], group["template"]]
    for template in templates:
        [container] = template["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert template["spec"]["restartPolicy"] == "Never"  # autoscaler v2 asks for it
    assert "nvidia.com/gpu" in group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert len({template["spec"]["containers"][0]["image"] for template in templates}) == 1


# Fields of KubeRay 1.6's ray.io/v1. Source: https://docs.ray.io/en/master/cluster/kubernetes/references/api.html
KUBERAY_FIELDS = {
    "RayCluster": "authOptions autoscalerOptions enableInTreeAutoscaling headGroupSpec rayVersion workerGroupSpecs",
    "RayJob": "backoffLimit clusterSelector entrypoint submissionMode",
    "autoscalerOptions": "idleTimeoutSeconds upscalingMode version",
    "headGroupSpec": "rayStartParams serviceType template",
    "workerGroupSpecs": "groupName maxReplicas minReplicas rayStartParams replicas template",
}


def test_kuberay_has_no_field_that_its_reference_lacks() -> None:
    cluster, job = yaml.safe_load_all((ROOT / "clusters/kuberay.yaml").read_text(encoding="utf-8"))
    spec = cluster["spec"]
    found = {
        "RayCluster": set(spec),
        "RayJob": set(job["spec"]),
        "autoscalerOptions": set(spec["autoscalerOptions"]),
        "headGroupSpec": set(spec["headGroupSpec"]),
        "workerGroupSpecs": set(spec["workerGroupSpecs"][0]),
    }
    assert {name: fields - set(KUBERAY_FIELDS[name].split()) for name, fields in found.items()} == {
        name: set() for name in found
    }


@pytest.mark.parametrize("name", ALL_FILES)
def test_the_versions_named_are_the_pinned_ones(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    [ray] = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(re.findall(r"rayproject/ray:([\d.]+)", text)) <= {ray}
    assert set(re.findall(r'rayVersion: "([\d.]+)"', text)) <= {ray}


@pytest.mark.parametrize("name", RAY_FILES)
def test_every_key_is_explained_where_it_first_stands(name: str) -> None:
    """In its own line, in a comment just above it, or in the first line inside it."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    explained: set[str] = set()
    for number, line in enumerate(lines):
        if not (found := re.match(r" *(?:- )?(\w+|\"[^\"]+\"):(?: |$)", line)) or found[1] in explained:
            continue
        inside = lines[number + 1] if line.split("#")[0].rstrip().endswith(":") else ""
        above = lines[number - 1] if lines[number - 1].lstrip().startswith("#") else ""
        assert any("#" in each for each in (line, above, inside)), line
        explained.add(found[1])
    assert len(explained) > 10
