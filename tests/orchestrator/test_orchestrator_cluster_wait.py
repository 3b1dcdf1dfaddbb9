"""Waiting for a cluster's nodes, and telling nodes apart that run something else; a real cluster is in tests/cluster/."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from orchestrator.cluster_wait import Expected, Node, missing_workers, setup_errors, wait_for_nodes
from orchestrator.errors import SweepError
from orchestrator.same_environment import check_same_environment, described_environment

HEAD = Node(address="10.0.0.1", host="head", gpus=0, is_head=True)
WORKERS = [Node(address=f"10.0.0.{number}", host=f"w{number}", gpus=1, is_head=False) for number in (2, 3)]


class Clock:
    """Goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def waited(clock: Clock, look: Callable[[], list[Node]], expected: Expected, timeout: float) -> tuple[list[Node], list[str]]:
    said: list[str] = []
    found = wait_for_nodes(look, expected, timeout, clock=clock.now, sleep=clock.sleep, say=said.append)
    return list(found), said


def test_waiting_ends_when_the_last_gpu_has_come() -> None:
    clock = Clock()
    nodes, said = waited(clock, lambda: [HEAD, *WORKERS[: int(clock.seconds) // 10]], Expected(gpus=2, nodes=2), 60)
    assert (clock.seconds, nodes) == (20, [HEAD, *WORKERS])
    assert said[-1] == "w3 (10.0.0.3) is there, with 1 GPUs"


def test_waiting_ends_with_the_time_and_says_who_has_gone() -> None:
    clock = Clock()
    nodes, said = waited(clock, lambda: [HEAD, *(WORKERS if clock.seconds < 5 else WORKERS[:1])], Expected(gpus=3, nodes=0), 30)
    assert clock.seconds == 30
    assert said[-1] == "w3 (10.0.0.3) is gone"
    assert Expected(gpus=3, nodes=2).lacks(nodes) == "1 of 3 GPUs and 1 of 2 workers"


def test_the_head_is_no_worker() -> None:
    assert Expected(gpus=0, nodes=1).lacks([HEAD]) == "0 of 1 workers"


def test_workers_that_the_cluster_file_names_and_that_are_not_there_are_named(tmp_path: Path) -> None:
    file = tmp_path / "ray_bootstrap_config.yaml"
    assert missing_workers(file, [HEAD]) == []  # not the head, or no `ray up`
    file.write_text(yaml.safe_dump({"provider": {"type": "local", "worker_ips": ["10.0.0.2", "10.0.0.3"]}}), encoding="utf-8")
    assert missing_workers(file, [HEAD, WORKERS[0]]) == ["10.0.0.3"]
    file.write_text(yaml.safe_dump({"provider": {"type": "aws", "region": "us-east-1"}}), encoding="utf-8")
    assert missing_workers(file, [HEAD]) == []


MONITOR_OUT = """\
sending incremental file list
orchestrator/errors.py
results/templates/report_failures.jinja
2026-11-22 12:30:03,030\tVINFO command_runner.py:399 -- Running `test -x ~/sweeps-venv/bin/python || exit 7`
\x1b[31mERROR: No matching distribution found for ray[default]==2.60.0\x1b[39m
ssh: connect to host 10.0.0.3 port 22: No route to host
ssh: connect to host 10.0.0.3 port 22: No route to host
Exception: The current node timed out during startup.
"""
MONITOR_LOG = """\
2026-11-22 12:30:03,030\tERROR monitor.py:213 -- An exception occurred while starting the metrics server.
OverflowError: bind(): port must be 0-65535.
Recent failures:
 (no failures)
"""


def test_set_up_errors_are_picked_out_of_the_autoscalers_logs(tmp_path: Path) -> None:
    assert setup_errors(tmp_path) == []
    (tmp_path / "monitor.out").write_text(MONITOR_OUT, encoding="utf-8")
    (tmp_path / "monitor.log").write_text(MONITOR_LOG, encoding="utf-8")
    assert setup_errors(tmp_path) == [
        "monitor.out: ERROR: No matching distribution found for ray[default]==2.60.0",
        "monitor.out: ssh: connect to host 10.0.0.3 port 22: No route to host",
        "monitor.out: Exception: The current node timed out during startup.",
    ]


def test_a_node_with_other_versions_or_code_is_named_with_what_differs() -> None:
    here = described_environment()()
    nodes = {"a": HEAD, "b": WORKERS[0], "c": WORKERS[1]}
    check_same_environment(nodes, lambda ids: [here for _ in ids])
    other = {**here, "torch": "2.12.0", "code": "0" * 12}
    expected = f"w3 (10.0.0.3) has torch 2.12.0 where the driver has {here['torch']} and code 000000000000 where"
    with pytest.raises(SweepError) as refused:
        check_same_environment(nodes, lambda ids: [other if each == "c" else here for each in ids])
    assert str(refused.value).startswith(expected)
    assert "`ray up` again" in str(refused.value)
    with pytest.raises(SweepError, match="has python missing"):
        check_same_environment(nodes, lambda ids: [{} for _ in ids])


def test_a_node_without_the_project_can_still_be_asked() -> None:
    from ray import cloudpickle

    shipped = cloudpickle.dumps(described_environment())
    code = "import sys; sys.modules['orchestrator'] = None; from ray import cloudpickle; "
    code += f"print(cloudpickle.loads({shipped!r})()['code'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(b"missing").hexdigest()[:12]


def test_wait_without_a_goal_and_without_a_cluster_is_one_line(cli: Callable[..., tuple[int, str, str]]) -> None:
    assert cli("cluster", "wait") == (
        2,
        "",
        "error: cluster wait takes --gpus N, --nodes N or both: what the cluster must have\n",
    )
