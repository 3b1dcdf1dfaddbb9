"""Cables are cut; Ray, driver and head are killed: the same commands go on, and the ledger is that of an undisturbed grid.

One story on one cluster, after that of test_cluster_lan.py and in this order; `ray down` ends it.
"""

import json
import re
from pathlib import Path

import pytest
from golden import Golden
from lan import SHARED, Host
from on_prem import OnPrem, attempts, wait_until

from results.ledger import Ledger

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]  # all takes minutes; a busy machine is no failure


def begun_on(storage: Path, host: Host, since: int = 0) -> bool:
    """True when a trial has been begun on the host, the first `since` attempts of the ledger not looked at."""
    return any(row["host"] == host.name for row in attempts(storage)[since:])


def reports(storage: Path) -> int:
    """How many the ledger has."""
    if not (storage / "ledger" / "reports").is_dir():
        return 0
    return int(Ledger(storage).sql("SELECT count(*) AS n FROM reports").to_pylist()[0]["n"])


def lost(storage: Path) -> int:
    """How many attempts the driver has seen end without a word."""
    query = "SELECT count(*) AS n FROM events WHERE status = 'lost'"
    return int(Ledger(storage).sql(query).to_pylist()[0]["n"]) if (storage / "ledger" / "events").is_dir() else 0


def finish(cluster: OnPrem, command: str, name: str) -> None:
    """Runs the command to its end, detached."""
    cluster.submit(command, name)
    wait_until(cluster.driver, 120, f"{name} has begun")
    wait_until(lambda: not cluster.driver(), 420, f"{name} has ended")
    wait_until(lambda: re.search("SUCCEEDED|FAILED", cluster.status(name)), 60, f"{name}'s end is known", every=2)
    assert "SUCCEEDED" in cluster.status(name), cluster.log(name)


def is_running_on(storage: Path, host: Host) -> bool:
    """True when the host has a trial under way."""
    return any(row["host"] == host.name and row["status"] == "running" for row in attempts(storage))


GIVES_UP_SOON = "export RAY_gcs_rpc_server_reconnect_timeout_s=20"
"""For a worker whose head does not answer: its raylet ends after 20 s, its agents a minute later; by Ray's default it is 60."""


def cut_a_cable(cluster: OnPrem, storage: Path) -> dict[str, float]:
    """Cuts off a worker until its trial is given up; seconds until what was waited for."""
    worker = cluster.lan.workers[0]
    cluster.lan.cut(worker)
    seen = wait_until(lambda: lost(storage) == 1, 180, "the driver has lost the trial")
    before = len(attempts(storage))
    for each in cluster.lan.workers:  # both are started anew after this; a short cut would have ended them
        each.add_to_bashrc(GIVES_UP_SOON)
    cluster.lan.mend(worker)
    again = wait_until(lambda: begun_on(storage, worker, before), 240, "it trains again")
    return {"cut: seen by the driver": seen, "cut: trains again after mending": again}


def kill_ray(cluster: OnPrem, storage: Path) -> dict[str, float]:
    """Kills Ray on the other worker."""
    worker = cluster.lan.workers[1]
    wait_until(lambda: is_running_on(storage, worker), 60, f"{worker.name} trains")
    before = len(attempts(storage))
    worker.kill(*(pid for pid, line in worker.processes().items() if line.split()[0].endswith("/raylet")))
    seen = wait_until(lambda: lost(storage) == 2, 180, "the driver has lost the trial")
    again = wait_until(lambda: len(attempts(storage)) > before, 240, "a trial was begun after it")
    return {"raylet: seen by the driver": seen, "raylet: another attempt": again}


def test_cables_cut_nodes_and_drivers_killed_leave_the_undisturbed_ledger(cluster: OnPrem, grid: str, golden: Golden) -> None:
    storage = cluster.lan.shared / "sweeps"
    command = f"{grid} --storage {SHARED}/sweeps"
    with cluster.crawling():
        cluster.submit(command, "begun")
        wait_until(
            lambda: all(begun_on(storage, worker) for worker in cluster.lan.workers) and reports(storage) > 2, 240, "both train"
        )
        told = cut_a_cable(cluster, storage) | kill_ray(cluster, storage)
        drivers = cluster.driver()
        assert drivers, cluster.log("begun")
        cluster.lan.head.kill(*drivers)
    wait_until(lambda: "FAILED" in cluster.status("begun"), 60, "the job is known to be dead", every=2)
    finish(cluster, command, "resumed")

    assert golden.differences(storage) == []
    rows = attempts(storage)
    assert {row["host"] for row in rows} == {worker.name for worker in cluster.lan.workers}
    assert {row["failure_class"] for row in rows if row["status"] != "completed"} <= {"lost", "preempted", "storage"}
    print(json.dumps(told))


def test_when_the_head_dies_ray_up_and_the_same_command_finish_the_sweep(cluster: OnPrem, grid: str, golden: Golden) -> None:
    storage = cluster.lan.shared / "headless"
    command = f"{grid} --storage {SHARED}/headless"
    with cluster.crawling():
        cluster.submit(command, "before")
        wait_until(lambda: reports(storage) > 4, 240, "the sweep has begun")
        cluster.lan.head.kill(*cluster.lan.head.processes())
    gone = wait_until(lambda: not cluster.ray_processes(), 240, "the workers have ended without their head")
    assert golden.differences_of_part(storage) == []
    up = cluster.up()
    assert up.returncode == 0, up.stdout
    assert cluster.wait(seconds=180).returncode == 0
    finish(cluster, command, "after")
    assert golden.differences(storage) == []
    print(json.dumps({"head: workers gone after": gone}))


def test_ray_down_leaves_nothing(cluster: OnPrem) -> None:
    down = cluster.down()
    assert down.returncode == 0, down.stdout
    try:
        took = wait_until(lambda: not cluster.ray_processes(), 240, "no process of Ray is left on any node")
    finally:
        print(cluster.ray_processes())
    assert [node.listeners() for node in cluster.lan.nodes] == [[], [], []]
    print(json.dumps({"down: nothing left after": took}))
