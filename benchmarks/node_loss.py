"""How long a trial is away when its node goes: killed, with Ray's default or with fast health checks, or told to go.

python benchmarks/node_loss.py [--repeats 3]

A head and two nodes for one trial each, all of them processes of this machine (`ray.cluster_utils.Cluster`), and a grid of one
trial that reports every 0.2 s. Its node is killed (or drained, as after a spot machine's notice) at its third report. Shown are
seconds from then until the driver hears of it, and until the trial goes on on the other node, whose worker has to start first
and to import torch.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from results.ledger import Ledger

_ROOT = Path(__file__).resolve().parents[1]
_FAST = {"health_check_period_ms": 1000, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 3}
_SETTINGS: dict[str, dict[str, int]] = {"default": {}, "fast": {"health_check_initial_delay_ms": 1000, **_FAST}}

_PRESET = """
encoder: embedded
domains: {squad: embedded, bioasq: embedded}
trainables: [distilbert]
mixture_size: 200
shares: [60]
orders: [shuffled]
model: {n_layers: 1}
training: {epochs: 2, batch_size: 8, max_length: 128, stride: 32}
evaluation: {validation_examples: 4, test_examples: 4, reports_per_epoch: 25}
recovery: {checkpoint_seconds: 0}
resources: {cpus_per_trial: 1, gpus_per_trial: 0}
"""


class Away(NamedTuple):
    """Seconds since its node went."""

    heard: float
    goes_on: float


def main() -> None:
    """Measures each case some times and shows medians, with the least and the most."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    shown = Table("what", "health checks", "driver hears, s", "goes on, s")
    for what, settings in (("killed", "default"), ("killed", "fast"), ("told to go", "default")):
        found = [_measure(what, _SETTINGS[settings]) for _ in range(repeats)]
        shown.add_row(what, settings, _range([each.heard for each in found]), _range([each.goes_on for each in found]))
    Console().print(shown)


def _range(seconds: list[float]) -> str:
    return f"{median(seconds):.1f} ({min(seconds):.1f}-{max(seconds):.1f})"


def _measure(what: str, health_checks: dict[str, int]) -> Away:
    with tempfile.TemporaryDirectory(prefix="loss-") as name:  # short: Ray's sockets lie below it
        folder = Path(name)
        faulty = str(_ROOT / "tests" / "faults" / "faulty_site")
        os.environ |= {
            "HOME": name,
            "RAY_TMPDIR": name,
            "RAY_AUTH_MODE": "disabled",
            "PYTHONPATH": os.pathsep.join([faulty, str(_ROOT)]),
            "SWEEP_FAULT": "slow",
        }
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": health_checks}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
            return _lose_one(what, cluster, {node.node_id: node for node in nodes}, folder)
        finally:
            cluster.shutdown()


def _lose_one(what: str, cluster: Any, nodes: dict[str, Any], folder: Path) -> Away:
    (folder / "preset.yaml").write_text(_PRESET, encoding="utf-8")
    arguments = ["--preset", str(folder / "preset.yaml"), "--storage", str(folder / "storage"), "--address", cluster.address]
    command = [sys.executable, "-m", "orchestrator.run", "grid", *arguments]
    ledger = Ledger(folder / "storage", must_exist=False)
    with (folder / "said").open("wb") as said, subprocess.Popen(command, stderr=said, cwd=_ROOT) as driver:
        reports = "SELECT node_id FROM attempts JOIN reports USING (trial_key)"
        while driver.poll() is None and len(rows := ledger.sql(reports).to_pylist()) < 3:
            time.sleep(0.1)
        [row, *_] = rows
        gone_at = datetime.now(UTC)
        if what == "killed":
            cluster.remove_node(nodes[row["node_id"]], allow_graceful=False)
        else:
            _drain(cluster, row["node_id"])
        if driver.wait():
            raise SystemExit((folder / "said").read_text(encoding="utf-8"))
    [heard] = ledger.sql("SELECT min(happened_at) AS at FROM events WHERE status = 'lost'").to_pylist()
    [second] = ledger.sql("SELECT started_at AS at FROM attempts WHERE attempt = 2 AND resumed_step > 0").to_pylist()
    return Away((heard["at"] - gone_at).total_seconds(), (second["at"] - gone_at).total_seconds())


def _drain(cluster: Any, node_id: str) -> None:
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

    accepted, why = GcsClient(address=cluster.gcs_address).drain_node(node_id, DRAIN_NODE_REASON_PREEMPTION, "spot notice", 0)
    if not accepted:
        raise SystemExit(why)


if __name__ == "__main__":
    main()
