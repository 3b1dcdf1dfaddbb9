"""The nodes of a Ray: joined or started, listed, asked, and watched; and those that its autoscaler may start."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psutil
import ray
import yaml
from ray._private import services
from ray._private.state import state

from orchestrator.cluster_wait import Node
from orchestrator.errors import SweepError
from orchestrator.location import location
from orchestrator.machine import num_cpus
from orchestrator.placement import HEAD, Growth, NodeType
from orchestrator.same_environment import check_same_environment, described_environment
from results.storage import StorageLike

__all__ = [
    "NodeWatch",
    "check_environments",
    "check_joined",
    "check_storage_is_shared",
    "growth",
    "heed_drain",
    "node_resources",
    "nodes",
    "on_gpu",
    "on_nodes",
    "ray_session",
]

_log = logging.getLogger(__name__)

_NODES_GONE_SECONDS = 20.0

_DRAIN_LOOK_SECONDS = 2.0

_TRIES, _LOOK_SECONDS = 5, 2.0

_SHOWN_OF_AN_ERROR = 400  # characters; Ray's messages run over many lines

_OBJECT_STORE_BYTES = 100 * 1024**2  # no data goes through Ray; its least is 75 MiB

Answer = TypeVar("Answer")


def on_nodes(call: Callable[[], Answer], node_ids: list[str]) -> list[Answer]:
    """What `call` returns on each of the nodes."""
    pinned = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    task = ray.remote(num_cpus=0)(call)
    results: list[Answer] = ray.get(
        [task.options(scheduling_strategy=pinned(node_id, soft=False)).remote() for node_id in node_ids]
    )
    return results


def on_gpu(call: Callable[[], Answer], cpus: int) -> Answer:
    """What `call` returns in a process that has a whole GPU for itself, on any node; that may have to be started first."""
    result: Answer = ray.get(ray.remote(num_cpus=cpus, num_gpus=1, max_retries=0)(call).remote())
    return result


def nodes() -> list[dict[str, Any]]:
    """Those that are alive and stay, as Ray describes them."""
    leaving = _draining()
    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in found if node["Alive"] and node["NodeID"] not in leaving]


def node_resources() -> list[dict[str, float]]:
    """What each of them has: CPU, GPU, memory in bytes."""
    return [node["Resources"] for node in nodes()]


def growth() -> Growth | None:
    """What the autoscaler may add, by the file that it was started with on the head; None where nodes are fixed.

    Ray 2.60 tells a driver neither the node types nor that file: `state.get_cluster_config` is filled by none of its open
    autoscalers, v1 and v2 (read in its sources). KubeRay's runs beside the head, where no file is to be seen.
    """
    here = ray.get_runtime_context().get_node_id()
    node: Any = ray._private.worker.global_worker.node
    session = Path(node.get_session_dir_path()).name
    heads = [node["NodeID"] for node in nodes() if HEAD in node["Resources"]]
    if here in heads or not heads:
        return _growth_of(_autoscaling_file(session))
    return _growth_of(on_nodes(lambda: _autoscaling_file(session), heads)[0])


def _autoscaling_file(session: str) -> dict[str, Any]:
    """The configuration of the autoscaler on this node, empty where there is none; `session`: the name of Ray's session."""
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
        except psutil.Error:  # it has ended, or is another user's
            continue
        files = [part.partition("=")[2] for part in command if part.startswith("--autoscaling-config=")]
        if files and any(session in part for part in command):
            config: dict[str, Any] = yaml.safe_load(Path(files[0]).expanduser().read_text(encoding="utf-8"))
            return config
    return {}


def _growth_of(config: dict[str, Any]) -> Growth | None:
    kinds = config.get("available_node_types") or {}
    most_nodes = config.get("max_workers", 0)
    head, local = config.get("head_node_type"), "local.cluster.node"  # of machines that are there: head and workers alike
    types = tuple(
        NodeType(name, kind.get("resources") or {}, kind.get("max_workers", 0 if name == head else most_nodes))
        for name, kind in kinds.items()
        if name != head or name == local
    )
    return Growth(types, most_nodes) if types else None


def check_storage_is_shared(storage: StorageLike) -> None:
    """Looks from every node for a file that the driver writes.

    Raises:
        SweepError: some node does not see the storage.
        RayError: a node does not answer.
    """
    _patiently(partial(_check_storage, storage))


def _patiently(check: Callable[[], None]) -> None:
    """Checks again where nodes do not answer: they may just be taken away, and are not asked the next time."""
    for tries_left in reversed(range(_TRIES)):
        try:
            return check()
        except ray.exceptions.RayError:
            if not tries_left:
                raise
        time.sleep(_LOOK_SECONDS)


def _check_storage(storage: StorageLike) -> None:
    here = ray.get_runtime_context().get_node_id()
    others = [node["NodeID"] for node in nodes() if node["NodeID"] != here]
    if not others:
        return
    marker = location(storage, f".seen-{os.getpid()}")
    marker.write(b"")
    try:
        seen = on_nodes(lambda: marker.exists(), others)
    finally:
        marker.remove()
    if not all(seen):
        blind = f"{seen.count(False)} of {len(seen)} other nodes do not see it"
        raise SweepError(f"storage {storage} is not shared: {blind}; name a folder that is mounted on every node")


def check_environments() -> None:
    """Asks every node once what it runs. Raises SweepError: a node runs other versions or other code than this process."""
    try:
        _patiently(_compare_environments)
    except ray.exceptions.RayError as error:
        raise SweepError(f"a node cannot say what it runs: {str(error).strip().splitlines()[-1]}") from error


def check_joined(storage: StorageLike) -> None:
    """What was checked of all nodes at the start, now that more have joined.

    Raises:
        SweepError: a node runs something else than this process, or does not see the storage.
        RayError: a node does not answer; whoever calls looks again later.
    """
    _compare_environments()
    _check_storage(storage)


def _compare_environments() -> None:
    alive = {node["NodeID"]: Node.of(node) for node in nodes()}
    check_same_environment(alive, partial(on_nodes, described_environment()))


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Joins the cluster at `address`, or starts a local Ray and stops it at the end."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address:
        _join(address, quiet)
    else:
        with _groups_of_their_own():
            ray.init(
                address="local", num_cpus=num_cpus(), object_store_memory=_OBJECT_STORE_BYTES, include_dashboard=False, **quiet
            )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _groups_of_their_own() -> Iterator[None]:
    """Processes that Ray starts in here do not hear a signal to this process's group.

    `timeout`, Slurm and service managers send SIGTERM to all of a job's processes: Ray would be gone before any checkpoint.
    """
    start = services.ConsolePopen
    services.ConsolePopen = partial(start, process_group=0)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        services.ConsolePopen = start  # type: ignore[misc]


def _join(address: str, quiet: dict[str, Any]) -> None:
    """Connects this process to a cluster. Raises SweepError: there is none, of another Python or Ray, or of another token."""
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        why = " ".join(str(error).split())[:_SHOWN_OF_AN_ERROR] or type(error).__name__
        raise SweepError(
            f"cannot join the cluster at {address}: {why} (--address or $RAY_ADDRESS names a cluster of the same Python "
            "and Ray; where it asks for a token, set RAY_AUTH_MODE=token and have its token in ~/.ray/auth_token)"
        ) from error


class NodeWatch:
    """Knows the nodes as they come and go, and notices that none is left: Tune would wait for one for ever."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._looked_at = self._seen_at = clock()
        self._nodes = nodes()
        self.on_join: Callable[[], None] = lambda: None
        """Called when nodes have joined; an error of Ray's in it means that they are asked again at the next look."""

    @property
    def resources(self) -> list[dict[str, float]]:
        """Of the nodes at the last look."""
        return [node["Resources"] for node in self._nodes]

    def are_gone(self) -> bool:
        """True when there has been no node for `_NODES_GONE_SECONDS`; asks Ray now and then only.

        Raises what `on_join` raises.
        """
        now = self._clock()
        if now - self._looked_at > _NODES_GONE_SECONDS / 4:
            self._looked_at = now
            self._look()
            if self._nodes:
                self._seen_at = now
        return self._looked_at - self._seen_at > _NODES_GONE_SECONDS

    def _look(self) -> None:
        known = {node["NodeID"] for node in self._nodes}
        found = nodes()
        if any(node["NodeID"] not in known for node in found):
            try:
                self.on_join()
            except ray.exceptions.RayError:
                _log.warning("a node that joined has not answered", exc_info=True)
                found = [node for node in found if node["NodeID"] in known]
        self._nodes = found


def heed_drain() -> None:
    """From now on this worker hears that its node will be taken away as it hears a SIGTERM, which Ray does not send it.

    A node is announced to go (Ray: drained) by an autoscaler, or by whoever got the cloud's notice, with `ray drain-node`.
    """
    threading.Thread(target=_wait_for_drain, args=(ray.get_runtime_context().get_node_id(),), daemon=True).start()


def _wait_for_drain(node_id: str) -> None:
    while node_id not in _draining():
        time.sleep(_DRAIN_LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _draining() -> set[str]:
    try:
        return set(state.get_draining_nodes())
    except Exception:  # the head is gone: there will be another look, or this process will be ended
        return set()
