"""A cluster whose autoscaler is Ray's own and whose machines are processes: Ray's fake multi-node provider.

Everything runs in a process namespace of its own, which ends with its first process: nothing outlives the cluster, and its
nodes can be ended without touching any other Ray on this machine.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

__all__ = ["FakeCluster", "fake_cluster", "namespaces_are_permitted"]

ROOT = Path(__file__).parents[2]

_NAMESPACE = ["unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
_IDLE_MINUTES = 0.1


def namespaces_are_permitted() -> bool:
    """True where this user may have a process namespace of its own."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return False
    return subprocess.run([*_NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


class FakeCluster:
    """A head that runs no trials, and an autoscaler that may start the node types it was given."""

    def __init__(self, node_types: Mapping[str, Any], folder: Path) -> None:
        self._port = _free_port()
        self.address = f"127.0.0.1:{self._port}"
        self._folder = folder
        self._environment = {
            **os.environ,
            "HOME": str(folder),
            "RAY_TMPDIR": str(folder),
            "RAY_AUTH_MODE": "disabled",
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "faults" / "faulty_site"), str(ROOT)]),
            "SWEEP_ON_CPU": "1",
            "SWEEP_FAULT": "crawl",  # trials take their time, so that there is one for each node
            "SWEEP_FAULT_WHILE": str(folder / "crawl"),
        }
        (folder / "autoscaling.json").write_text(json.dumps(self._configuration(node_types)), encoding="utf-8")
        # The namespace's first process has to reap the orphans: a shell does.
        self._first = subprocess.Popen([*_NAMESPACE, "bash", "-c", "echo $$; read -r"], stdin=-1, stdout=-1, text=True)
        assert self._first.stdout is not None
        assert self._first.stdout.readline() == "1\n"
        [shell] = psutil.Process(self._first.pid).children()
        self._pid = shell.pid
        started = self.run(Path(sys.executable).with_name("ray").as_posix(), *self._start_arguments())
        assert started.wait(timeout=120) == 0, self.said

    def _configuration(self, node_types: Mapping[str, Any]) -> dict[str, Any]:
        from ray.autoscaler._private.monitor import BASE_READONLY_CONFIG

        head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
        # All nodes have one address; and there is nothing to set up on them.
        how = {"use_node_id_as_ip": True, "disable_node_updaters": True, "disable_launch_config_check": True}
        return {
            **BASE_READONLY_CONFIG,  # what Ray fills in for other providers: the file of this one's defaults it does not ship
            "cluster_name": "fake",
            "provider": {"type": "fake_multinode", "gcs_address": self.address, **how},
            "max_workers": sum(kind["max_workers"] for kind in node_types.values()),
            "idle_timeout_minutes": _IDLE_MINUTES,
            "available_node_types": {"ray.head.default": head, **node_types},
            "head_node_type": "ray.head.default",
        }

    def _start_arguments(self) -> list[str]:
        return [
            "start",
            "--head",
            f"--port={self._port}",
            "--node-ip-address=127.0.0.1",
            "--num-cpus=0",
            "--object-store-memory=100000000",
            "--include-dashboard=false",
            f"--ray-client-server-port={_free_port()}",
            f"--autoscaling-config={self._folder / 'autoscaling.json'}",
        ]

    def run(self, *command: str) -> subprocess.Popen[bytes]:
        """Runs a command beside the head; what it says is added to `said`."""
        inside = ["nsenter", f"--target={self._pid}", "--pid", "--mount", "--", *command]
        with (self._folder / "said").open("ab") as said:
            return subprocess.Popen(inside, stdout=said, stderr=said, env=self._environment, cwd=ROOT)

    def sweep(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A driver on the head."""
        return self.run(sys.executable, "-m", "orchestrator.run", *arguments, "--address", self.address)

    @contextmanager
    def crawling(self) -> Iterator[None]:
        """Trials take 2 s for each report, without computing, while the context is open."""
        (self._folder / "crawl").touch()
        try:
            yield
        finally:
            (self._folder / "crawl").unlink()

    @property
    def said(self) -> str:
        """What all commands have said so far."""
        return (self._folder / "said").read_text(encoding="utf-8")

    def worker_ids(self) -> set[str]:
        """The nodes that are alive, but for the head."""
        return {node["NodeID"] for node in self._nodes() if node["Alive"] and "node:__internal_head__" not in node["Resources"]}

    def _nodes(self) -> list[dict[str, Any]]:
        from ray._private.state import GlobalState
        from ray._raylet import GcsClientOptions

        state = GlobalState()
        options = GcsClientOptions.create(self.address, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False)
        state._initialize_global_state(options)
        return state.node_table()  # type: ignore[no-any-return]

    def wait_for(self, what: Callable[[], Any], seconds: float) -> Any:
        """The first true answer."""
        deadline = time.monotonic() + seconds
        while not (answer := what()):
            assert time.monotonic() < deadline, self.said
            time.sleep(0.2)
        return answer

    def end(self) -> None:
        """Ends the namespace with all that is in it."""
        self._first.kill()
        self._first.communicate()


@contextmanager
def fake_cluster(node_types: Mapping[str, Any]) -> Iterator[FakeCluster]:
    """A cluster of these node types, none of which is there yet."""
    folder = Path(tempfile.mkdtemp(prefix="fake-"))  # short: Ray's sockets lie below it
    cluster = None
    try:
        cluster = FakeCluster(node_types, folder)
        yield cluster
    finally:
        if cluster is not None:
            cluster.end()
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
