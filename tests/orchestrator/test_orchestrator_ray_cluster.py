"""A sweep on a cluster of several nodes, all of them processes of this machine: one is killed under a trial.

Everything waits for events. A trial hangs on purpose on whichever node comes to its third report first, so that there is
something to lose there.
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

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

FAULTY_SITE = Path(__file__).parents[1] / "faults" / "faulty_site"
NUM_TRIALS = 6
REPORTS = 24  # of a trial
PATIENCE = 240.0  # seconds; on a quiet machine all of it takes half a minute

# A killed node refuses connections at once; the time-out is long, since a loaded machine is no dead one.
FAST_HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 5000,
    "health_check_failure_threshold": 3,
}


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Ray's home and folder; short, since its sockets lie below it."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that runs no trials; nodes take the environment that they are added in."""
    environment = {
        "HOME": str(scratch),
        "RAY_TMPDIR": str(scratch),
        "RAY_AUTH_MODE": "disabled",
        "RAY_raylet_start_wait_time_s": "120",  # as many seconds as a loaded machine may need
        "PYTHONPATH": os.pathsep.join([str(FAULTY_SITE), str(Path.cwd())]),
        "SWEEP_FAULT_COUNT": str(scratch / "faults-counted"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": FAST_HEALTH_CHECKS}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


def add_node(cluster: Any) -> Any:
    """A node with room for one trial."""
    return cluster.add_node(num_cpus=1)


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
    cluster: Any, tmp_path: Path, preset_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEP_FAULT", "hang::3")
    monkeypatch.setenv("SWEEP_FAULT_TIMES", "1")
    nodes = {node.node_id: node for node in (add_node(cluster), add_node(cluster))}
    preset = preset_file(
        trainables=["distilbert"],
        shares=[0, 60, 100],
        training={"epochs": 2, "batch_size": 8, "learning_rate": 1.0e-3, "max_length": 128, "stride": 32},
        evaluation={"validation_examples": 4, "test_examples": 4, "reports_per_epoch": REPORTS // 2},
        mixture_size=100,
        recovery={"checkpoint_seconds": 0, "max_retries": 0},  # an attempt that counts as a failure fails the trial
    )
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
