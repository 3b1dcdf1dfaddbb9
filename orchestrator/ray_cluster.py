"""The nodes of a Ray: joined or started, listed, asked, and watched."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

from orchestrator.errors import SweepError
from orchestrator.location import location
from orchestrator.machine import num_cpus
from results.storage import StorageLike

__all__ = ["NodeWatch", "check_storage_is_shared", "node_resources", "nodes", "on_nodes", "ray_session"]

_NODES_GONE_SECONDS = 20.0

_OBJECT_STORE_BYTES = 100 * 1024**2  # no data goes through Ray; its least is 75 MiB


def on_nodes(call: Callable[[], bool], node_ids: list[str]) -> list[bool]:
    """What `call` returns on each of the nodes."""
    pinned = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    task = ray.remote(num_cpus=0)(call)
    results: list[bool] = ray.get(
        [task.options(scheduling_strategy=pinned(node_id, soft=False)).remote() for node_id in node_ids]
    )
    return results


def nodes() -> list[dict[str, Any]]:
    """Those that are alive, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def node_resources() -> list[dict[str, float]]:
    """What each of them has: CPU, GPU, memory in bytes."""
    return [node["Resources"] for node in nodes()]


def check_storage_is_shared(storage: StorageLike) -> None:
    """Looks from every node for a file that the driver writes.

    Raises:
        SweepError: some node does not see the storage.
    """
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


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Joins the cluster at `address`, or starts a local Ray and stops it at the end."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address:
        ray.init(address=address, **quiet)
    else:
        ray.init(
            address="local", num_cpus=num_cpus(), object_store_memory=_OBJECT_STORE_BYTES, include_dashboard=False, **quiet
        )
    try:
        yield
    finally:
        ray.shutdown()


class NodeWatch:
    """Notices that no node is left: Tune would wait for one for ever."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._looked_at = self._seen_at = clock()

    def are_gone(self) -> bool:
        """True when there has been no node for `_NODES_GONE_SECONDS`; asks Ray now and then only."""
        now = self._clock()
        if now - self._looked_at > _NODES_GONE_SECONDS / 4:
            self._looked_at = now
            if nodes():
                self._seen_at = now
        return self._looked_at - self._seen_at > _NODES_GONE_SECONDS
