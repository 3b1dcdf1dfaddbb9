"""A real cluster of several hosts, by the commands of docs/cluster.md: nobody gets in, and whatever dies, the ledger is whole.

The tests are one story on one cluster, and run in this order.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from golden import Golden
from lan import SHARED, Host, lacking
from on_prem import OnPrem, attempts, on_prem, wait_until

from results.ledger import Ledger

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]  # all of it takes ten minutes; a busy machine is no failure

NOTICED_SOON = (
    "export RAY_health_check_initial_delay_ms=1000 RAY_health_check_period_ms=1000"
    " RAY_health_check_timeout_ms=1000 RAY_health_check_failure_threshold=3\n"
)
"""For the head: it gives a silent node up after six seconds, not sixty-three."""

GRID: dict[str, Any] = {
    "orders": ["shuffled"],
    "shares": [0, 40, 80],
    "training": {"epochs": 24, "batch_size": 8, "learning_rate": 1.0e-3, "max_length": 128, "stride": 32},
    "recovery": {"checkpoint_seconds": 0, "max_retries": 0},  # a lost node that counted as a failure would fail its trial
}
"""Six trials of ten seconds or more."""

BETWEEN_NODES = ("gcs_server", "raylet", "ray::")
"""What listens on every interface because other nodes talk to it: Ray's control, each node's manager, its agent and workers."""

DASHBOARD = "http://127.0.0.1:8265"


@pytest.fixture(scope="module")
def cluster() -> Iterator[OnPrem]:
    """Two workers and a head, before `ray up`."""
    pytest.importorskip("aiohttp", reason="needs ray[default]: pip install '.[cluster]'")
    if why := lacking():
        pytest.skip(why)
    with on_prem(num_workers=2) as made:
        with (made.lan.head.root / ".bashrc").open("a", encoding="utf-8") as bashrc:
            bashrc.write(NOTICED_SOON)
        yield made


@pytest.fixture(scope="module")
def grid(cluster: OnPrem, write_preset: Callable[..., Path]) -> str:
    """The command, with a preset that all hosts see."""
    write_preset(cluster.lan.shared, **GRID)
    return f"python -m orchestrator.run grid --yes --preset {SHARED}/tiny.yaml"


@pytest.fixture(scope="module")
def golden(cluster: OnPrem, grid: str) -> Golden:
    """The same grid, undisturbed, on the laptop without Ray."""
    done = cluster.type(f"{grid} --backend inline --storage {SHARED}/golden", seconds=600)
    assert done.returncode == 0, done.stdout
    return Golden.of(cluster.lan.shared / "golden")


def test_a_worker_that_cannot_be_set_up_is_told_of_with_its_error(cluster: OnPrem) -> None:
    packages = next(cluster.lan.workers[1].root.glob("sweeps-venv/lib/python*/site-packages")) / "packages.pth"
    kept = packages.read_bytes()
    packages.unlink()  # so that the cluster file's `pip install` finds no pip
    assert cluster.type("ray get-auth-token --generate").returncode == 0
    up = cluster.up()
    assert up.returncode == 0, up.stdout
    waited = cluster.wait(seconds=60)
    packages.write_bytes(kept)
    assert waited.returncode == 1
    assert "after 60 s there are 1 of 2 GPUs and 1 of 2 workers" in waited.stdout
    assert f"{cluster.lan.workers[1].address} has not joined" in waited.stdout
    assert "No module named pip" in waited.stdout


def test_ray_up_brings_all_workers(cluster: OnPrem) -> None:
    up = cluster.up()
    assert up.returncode == 0, up.stdout
    waited = cluster.wait(seconds=180)
    assert waited.returncode == 0, waited.stdout
    assert "the cluster is ready: 2 GPUs on 3 nodes, the head included" in waited.stdout


def asked(host: Host, method: str, url: str, *more: str) -> str:
    """HTTP status that a host gets; 000 when nobody answers."""
    options = "--silent --output /dev/null --max-time 10 --write-out '%{http_code}'"
    return host.run("bash", "-c", f"curl {options} --request {method} {' '.join(more)} '{url}'").stdout


def tried(mode: str, token: str, *command: str) -> list[str]:
    """What runs a command of the project's environment with a token; a refusal may be a silence, so for a minute at most."""
    path = "PATH=/root/sweeps-venv/bin:/usr/bin:/bin"
    return ["env", path, "HOME=/tmp", f"RAY_AUTH_MODE={mode}", f"RAY_AUTH_TOKEN={token}", "timeout", "60", *command]


def test_without_the_token_nobody_gets_in(cluster: OnPrem) -> None:
    head, stranger = cluster.lan.head, cluster.laptop
    address = head.address
    # From the network there is no dashboard and no jobs API at all; on the head itself both ask for the token.
    assert asked(stranger, "GET", f"http://{address}:8265/api/jobs/") == "000"
    job = "--header 'Content-Type: application/json' --data '{\"entrypoint\": \"touch /tmp/got-in\"}'"
    for path in ("/api/jobs/", "/nodes?view=summary", "/api/v0/nodes", "/api/cluster_status"):
        assert asked(head, "GET", f"{DASHBOARD}{path}") == "401", path
    assert asked(head, "POST", f"{DASHBOARD}/api/jobs/", job) == "401"
    token = (cluster.laptop.root / ".ray" / "auth_token").read_text(encoding="utf-8").strip()
    assert asked(head, "GET", f"{DASHBOARD}/api/jobs/", f"--header 'Authorization: Bearer {token}'") == "200"
    assert not (head.tmp / "got-in").exists()
    # Ray's own protocols, with the token, with another one, and without.
    client = f"import ray; ray.init('ray://{address}:10001'); print('GOT IN', len(ray.nodes()))"
    assert "GOT IN 3" in stranger.run(*tried("token", token, "python", "-c", client)).stdout
    assert "GOT IN" not in stranger.run(*tried("token", "0" * 64, "python", "-c", client)).stdout
    assert "10.77.0.10" in stranger.run(*tried("token", token, "ray", "status", "--address", f"{address}:6379")).stdout
    for mode in ("token", "disabled"):
        refused = stranger.run(*tried(mode, "0" * 64, "ray", "status", "--address", f"{address}:6379"))
        assert refused.returncode != 0
        assert "AuthenticationError" in refused.stdout
    # The agent of each node.
    for node in cluster.lan.nodes:
        agent = f"http://{node.address}:52365"
        assert asked(stranger, "POST", f"{agent}/api/job_agent/jobs/", job) == "401"
        assert asked(stranger, "GET", f"{agent}/logs") == "401"


def test_only_what_ray_needs_between_nodes_listens_on_every_interface(cluster: OnPrem) -> None:
    for node in cluster.lan.nodes:
        listeners = node.listeners()
        print(node.name, *listeners, sep="\n  ")
        open_to_all = [each for each in listeners if each.address in ("*", "0.0.0.0", "::")]
        assert [each for each in open_to_all if not each.process.startswith(BETWEEN_NODES)] == []
        assert sum(each.process.startswith("ray::Dashboard") for each in open_to_all) == 1  # its gRPC, and no server of metrics
        assert {each.address for each in listeners if each.port == 8265} == (
            {"127.0.0.1"} if node is cluster.lan.head else set()
        )


def test_a_node_with_other_code_is_refused_in_one_line(cluster: OnPrem, grid: str) -> None:
    worker = cluster.lan.workers[1]
    changed = worker.root / "expert-sweeps" / "trainables" / "registry.py"
    kept = changed.read_bytes()
    changed.write_bytes(kept + b"# changed\n")
    refused = cluster.on_head(f"{grid} --storage {SHARED}/refused")
    changed.write_bytes(kept)
    [line] = [line for line in refused.stdout.splitlines() if line.startswith("error: ")]
    assert refused.returncode == 1  # ray exec knows no other
    assert f"{worker.name} ({worker.address}) has code" in line
    assert "`ray up` again" in line
    assert attempts(cluster.lan.shared / "refused") == []


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
    wait_until(
        lambda: "SUCCEEDED" in cluster.status(name) or "FAILED" in cluster.status(name), 420, f"{name} has ended", every=5
    )
    assert "SUCCEEDED" in cluster.status(name), cluster.log(name)


def test_cables_cut_nodes_and_drivers_killed_leave_the_undisturbed_ledger(cluster: OnPrem, grid: str, golden: Golden) -> None:
    first, second = cluster.lan.workers
    storage = cluster.lan.shared / "sweeps"
    command = f"{grid} --storage {SHARED}/sweeps"
    told: dict[str, float] = {}

    cluster.submit(command, "begun")
    wait_until(
        lambda: begun_on(storage, first) and begun_on(storage, second) and reports(storage) > 2, 240, "both workers train"
    )

    cluster.lan.cut(first)
    told["cut: seen by the driver"] = wait_until(lambda: lost(storage) == 1, 180, "the driver has lost the trial")
    before = len(attempts(storage))
    cluster.lan.mend(first)
    told["cut: trains again after mending"] = wait_until(lambda: begun_on(storage, first, before), 240, "it trains again")

    raylets = [pid for pid, line in second.processes().items() if line.split()[0].endswith("/raylet")]
    before = len(attempts(storage))
    second.kill(*raylets)
    told["raylet: seen by the driver"] = wait_until(lambda: lost(storage) == 2, 180, "the driver has lost the trial")
    told["raylet: another attempt"] = wait_until(lambda: len(attempts(storage)) > before, 240, "a trial was begun after it")

    drivers = cluster.driver()
    assert drivers, cluster.log("begun")
    cluster.lan.head.kill(*drivers)
    wait_until(lambda: "FAILED" in cluster.status("begun"), 60, "the job is known to be dead", every=2)
    finish(cluster, command, "resumed")

    assert golden.differences(storage) == []
    rows = attempts(storage)
    assert {row["host"] for row in rows} == {first.name, second.name}
    assert {row["failure_class"] for row in rows if row["status"] != "completed"} <= {"lost", "preempted", "storage"}
    print(json.dumps(told))


def test_when_the_head_dies_ray_up_and_the_same_command_finish_the_sweep(cluster: OnPrem, grid: str, golden: Golden) -> None:
    storage = cluster.lan.shared / "headless"
    command = f"{grid} --storage {SHARED}/headless"
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
    took = wait_until(lambda: not cluster.ray_processes(), 240, "no process of Ray is left on any node")
    assert [node.listeners() for node in cluster.lan.nodes] == [[], [], []]
    print(json.dumps({"down: nothing left after": took}))
