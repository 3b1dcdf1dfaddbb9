"""A real cluster of several hosts, by the commands of docs/cluster.md: it comes up, or says why not, and nobody gets in.

The tests are one story on one cluster, and run in this order.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest
from lan import SHARED, Host
from on_prem import OnPrem, attempts

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]  # all of it takes ten minutes; a busy machine is no failure

BETWEEN_NODES = ("gcs_server", "raylet", "ray::")
"""What listens on every interface because other nodes talk to it: Ray's control, each node's manager, its agent and workers."""

DASHBOARD = "http://127.0.0.1:8265"


def test_a_worker_that_cannot_be_set_up_is_told_of_with_its_error(cluster: OnPrem) -> None:
    packages = next(cluster.lan.workers[1].root.glob("sweeps-venv/lib/python*/site-packages")) / "packages.pth"
    kept = packages.read_bytes()
    packages.unlink()  # so that the cluster file's `pip install` finds no pip
    assert cluster.type("umask 077; ray get-auth-token --generate").returncode == 0
    up = cluster.up()
    assert up.returncode == 0, up.stdout
    assert cluster.wait(seconds=180, number=1).returncode == 0
    waited = cluster.wait(seconds=5)
    packages.write_bytes(kept)
    assert waited.returncode == 1
    assert "after 5 s there are 1 of 2 GPUs and 1 of 2 workers" in waited.stdout
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
    for host in (stranger, *cluster.lan.nodes):
        assert (host.root / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
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
    client = ["python", "-c", f"import ray; ray.init('ray://{address}:10001'); print('GOT IN', len(ray.nodes()))"]
    status = ["ray", "status", "--address", f"{address}:6379"]
    # Ray's client server refuses one where a process that it looks at is just ending (psutil.ZombieProcess): asked again.
    answers = (stranger.run(*tried("token", token, *client)).stdout for _ in range(3))
    assert any("GOT IN 3" in answer for answer in answers)
    assert "Autoscaler status" in stranger.run(*tried("token", token, *status)).stdout
    wrong = [tried(mode, "0" * 64, *command) for command in (client, status) for mode in ("token", "disabled")]
    with ThreadPoolExecutor() as pool:  # a refusal may be a silence
        *by_client, first, second = pool.map(lambda command: stranger.run(*command), wrong)
    assert [each.stdout for each in by_client if each.returncode == 0 or "GOT IN" in each.stdout] == []
    for refused in (first, second):
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


def test_a_storage_that_only_the_head_has_is_refused(cluster: OnPrem, grid: str) -> None:
    refused = cluster.on_head(f"{grid} --storage /root/sweeps")
    assert refused.returncode == 1
    assert "storage /root/sweeps is not shared: 2 of 2 other nodes do not see it" in refused.stdout
