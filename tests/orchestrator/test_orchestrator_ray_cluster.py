"""Sweeps on a cluster of several nodes, all processes of this machine: one is killed under a trial, joins, or is told to go.

Everything waits for events. Trials hang or crawl on purpose from their third report on, so that there is something to lose.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from results.ledger import Ledger

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]

FAULTY_SITE = Path(__file__).parents[1] / "faults" / "faulty_site"
NUM_TRIALS = 6
REPORTS = 24  # of a trial
PATIENCE = 480.0  # seconds; on a quiet machine all of it takes half a minute

# A killed node refuses connections at once; the time-out is long, since a loaded machine is no dead one.
FAST_HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 5000,
    "health_check_failure_threshold": 3,
}


TRIALS: dict[str, Any] = {
    "trainables": ["distilbert"],
    "training": {"epochs": 2, "batch_size": 8, "learning_rate": 1.0e-3, "max_length": 128, "stride": 32},
    "evaluation": {"validation_examples": 4, "test_examples": 4, "reports_per_epoch": REPORTS // 2},
    "mixture_size": 100,
    "recovery": {"checkpoint_seconds": 0, "max_retries": 0},  # an attempt that counts as a failure fails the trial
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that runs no trials."""
    scratch = Path(tempfile.mkdtemp(prefix="ray-"))  # Ray's home and folder; short, since its sockets lie below it
    environment = {
        "HOME": str(scratch),
        "RAY_TMPDIR": str(scratch),
        "RAY_AUTH_MODE": "disabled",
        "RAY_raylet_start_wait_time_s": "120",  # as many seconds as a loaded machine may need
        "PYTHONPATH": os.pathsep.join([str(FAULTY_SITE), str(Path.cwd())]),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": FAST_HEALTH_CHECKS}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        yield cluster
        cluster.shutdown()
    shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture
def add_node(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Adds a node with room for one trial, on which trials go wrong in this way; all are gone after the test."""
    monkeypatch.setenv("SWEEP_FAULT_COUNT", str(tmp_path / "faults-counted"))

    def add(fault: str = "") -> Any:
        monkeypatch.setenv("SWEEP_FAULT", fault)  # nodes take the environment that they are added in
        return cluster.add_node(num_cpus=1)

    yield add
    for node in list(cluster.worker_nodes):
        cluster.remove_node(node, allow_graceful=False)


class Sweep:
    """A driver on the cluster, and what it has said and recorded so far."""

    def __init__(self, cluster: Any, preset: Path, storage: Path, said: Path) -> None:
        self._ledger, self._said = Ledger(storage, must_exist=False), said
        arguments = ["grid", "--preset", str(preset), "--storage", str(storage), "--address", cluster.address]
        with said.open("wb") as stderr:
            self.driver = subprocess.Popen([sys.executable, "-m", "orchestrator.run", *arguments], stderr=stderr)

    def __enter__(self) -> "Sweep":
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.kill()
        self.driver.wait()

    def wait_for(self, what: Callable[[], Any]) -> Any:
        """The first true answer."""
        deadline = time.monotonic() + PATIENCE
        while not (answer := what()):
            assert self.driver.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.2)
        return answer

    def rows(self, query: str) -> list[dict[str, Any]]:
        """What the ledger says now."""
        rows: list[dict[str, Any]] = self._ledger.sql(query).to_pylist()
        return rows

    @property
    def said(self) -> str:
        """What the driver has said so far."""
        return self._said.read_text(encoding="utf-8")


def test_a_sweep_survives_a_killed_node(
    cluster: Any,
    add_node: Callable[..., Any],
    tmp_path: Path,
    preset_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SWEEP_FAULT_TIMES", "1")
    nodes = {node.node_id: node for node in (add_node("hang::3"), add_node("hang::3"))}
    preset = preset_file(**TRIALS, shares=[0, 60, 100])
    with Sweep(cluster, preset, tmp_path / "storage", tmp_path / "said") as sweep:
        # The first trial to come so far hangs, so whatever completes does so on the other node.
        sweep.wait_for(lambda: "completed in" in sweep.said)
        [done, *_] = sweep.rows("SELECT node_id FROM attempts WHERE status = 'completed'")
        [killed] = set(nodes) - {done["node_id"]}
        [hung] = sweep.rows(f"SELECT trial_key FROM attempts WHERE node_id = '{killed}'")
        cluster.remove_node(nodes[killed], allow_graceful=False)
        assert sweep.driver.wait(timeout=PATIENCE) == 0, sweep.said

    assert sweep.rows("SELECT status, count(*) AS n FROM trials GROUP BY 1") == [{"status": "completed", "n": NUM_TRIALS}]
    ended = sweep.rows("SELECT node_id, trial_key, failure_class FROM attempts WHERE status <> 'completed'")
    assert ended == [{"node_id": killed, "trial_key": hung["trial_key"], "failure_class": "lost"}]
    assert {row["node_id"] for row in sweep.rows("SELECT node_id FROM attempts")} == set(nodes)
    [again] = sweep.rows("SELECT trial_key, resumed_step FROM attempts WHERE attempt > 1")
    assert again["trial_key"] == hung["trial_key"]
    assert again["resumed_step"] > 0
    per_trial = sweep.rows("SELECT count(*) AS rows, count(DISTINCT step) AS steps FROM reports GROUP BY trial_key")
    assert per_trial == NUM_TRIALS * [{"rows": REPORTS, "steps": REPORTS}]
    started = [row["trial_key"] for row in sweep.rows("SELECT trial_key FROM attempts ORDER BY started_at")]
    assert started.index(hung["trial_key"], 1 + started.index(hung["trial_key"])) < len(started) - 2, "it queued behind all"


def tell_to_go(address: str, node_id: str) -> None:
    """As docs/cluster.md says, after a spot machine's notice."""
    command = [Path(sys.executable).with_name("ray"), "drain-node", "--address", address, "--node-id", node_id]
    why = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot notice"]
    subprocess.run([*command, *why, "--deadline-remaining-seconds", "120"], check=True)


def test_a_node_that_joins_gets_trials_and_one_that_is_told_to_go_passes_its_own_on(
    cluster: Any, add_node: Callable[..., Any], tmp_path: Path, preset_file: Callable[..., Path]
) -> None:
    leaving = add_node("crawl::3")  # two minutes a trial, in which another node is sure to have joined
    preset = preset_file(**{**TRIALS, "training": {**TRIALS["training"], "epochs": 6}}, shares=[60])
    with Sweep(cluster, preset, tmp_path / "storage", tmp_path / "said") as sweep:
        [told] = sweep.wait_for(lambda: sweep.rows("SELECT DISTINCT trial_key FROM reports"))
        joined = add_node()
        sweep.wait_for(lambda: sweep.rows(f"SELECT 1 FROM attempts WHERE node_id = '{joined.node_id}'"))
        tell_to_go(cluster.address, leaving.node_id)
        sweep.wait_for(lambda: "its worker was told to end; trying again" in sweep.said)
        assert sweep.driver.wait(timeout=PATIENCE) == 0, sweep.said
    [raylet] = leaving.all_processes["raylet"]
    raylet.process.wait(timeout=PATIENCE)  # Ray takes a node out once it is empty

    [again] = sweep.rows("SELECT trial_key, node_id, resumed_step FROM attempts WHERE attempt > 1")
    assert (again["trial_key"], again["node_id"]) == (told["trial_key"], joined.node_id)
    assert again["resumed_step"] > 0
    ended = sweep.rows("SELECT node_id, trial_key, failure_class FROM attempts WHERE status <> 'completed'")
    assert ended == [{"node_id": leaving.node_id, "trial_key": told["trial_key"], "failure_class": "preempted"}]
    assert sweep.rows("SELECT DISTINCT status FROM trials") == [{"status": "completed"}]
    per_trial = sweep.rows("SELECT count(*) AS rows, count(DISTINCT step) AS steps FROM reports GROUP BY trial_key")
    assert per_trial == 2 * [{"rows": 3 * REPORTS, "steps": 3 * REPORTS}]
