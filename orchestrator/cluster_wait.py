"""Waiting for a cluster's nodes: `ray up` ends well as soon as the head runs; workers come later, or fail unseen."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = ["BOOTSTRAP_FILE", "LOG_DIR", "Expected", "Node", "missing_workers", "setup_errors", "wait_for_nodes"]

LOG_DIR = Path("/tmp/ray/session_latest/logs")
"""Where the autoscaler logs, on the head. Source: Ray 2.60's own message after `ray up`."""

BOOTSTRAP_FILE = Path("~/ray_bootstrap_config.yaml")
"""The cluster file as `ray up` leaves it on the head."""

_POLL_SECONDS = 1.0
_MOST_ERRORS = 12
_TROUBLE = re.compile(
    r"^(?:[\w.]*(?:Error|Exception)|ERROR|FATAL|fatal|error|ssh|bash|rsync|E):"
    r"|No module named|No matching distribution|Permission denied|No such file or directory|command not found|No space left"
    r"|No route to host|Connection refused"
    r"|update-failed|Failed to setup",
)
"""What tells of trouble in the output of set-up commands, pip, ssh, rsync and Ray's own updater (seen with Ray 2.60)."""

_NO_TROUBLE = re.compile(r"metrics server|port must be 0-65535|SSH command failed")
"""Metrics servers that the cluster files switch off; and what Ray adds to the error of a command over SSH."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node that is alive, by its address on the cluster's network."""

    address: str
    host: str
    gpus: float
    is_head: bool

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Node:
        """From Ray's description."""
        has: Mapping[str, float] = described["Resources"]
        return cls(
            address=described["NodeManagerAddress"],
            host=described["NodeManagerHostname"],
            gpus=has.get("GPU", 0.0),
            is_head="node:__internal_head__" in has,
        )


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a cluster must have before a sweep is worth starting: GPUs of all nodes together, and workers beside the head."""

    gpus: float
    nodes: int

    def lacks(self, nodes: Sequence[Node]) -> str:
        """What is missing, in words; empty when nothing is."""
        gpus, workers = sum(node.gpus for node in nodes), sum(not node.is_head for node in nodes)
        found = []
        if gpus < self.gpus:
            found.append(f"{gpus:g} of {self.gpus:g} GPUs")
        if workers < self.nodes:
            found.append(f"{workers} of {self.nodes} workers")
        return " and ".join(found)


def wait_for_nodes(
    look: Callable[[], Sequence[Node]],
    expected: Expected,
    timeout_seconds: float,
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    say: Callable[[str], None],
) -> Sequence[Node]:
    """The nodes, as soon as they have what is `expected` or the time is over; says who comes and who goes.

    `look` lists the nodes that are alive; `clock` and `sleep` are those of `time`, in seconds.
    """
    deadline = clock() + timeout_seconds
    known: dict[str, Node] = {}
    while True:
        nodes = look()
        now = {node.address: node for node in nodes}
        for address in now.keys() - known.keys():
            say(f"{now[address].host} ({address}) is there, with {now[address].gpus:g} GPUs")
        for address in known.keys() - now.keys():
            say(f"{known[address].host} ({address}) is gone")
        known = now
        if not expected.lacks(nodes) or clock() >= deadline:
            return nodes
        sleep(_POLL_SECONDS)


def missing_workers(bootstrap_file: Path, nodes: Sequence[Node]) -> list[str]:
    """Addresses of workers that the cluster file names (provider `local`) and that are not there."""
    try:
        provider = yaml.safe_load(bootstrap_file.expanduser().read_text(encoding="utf-8"))["provider"]
        named: Sequence[str] = provider.get("worker_ips", ())
    except (OSError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return []  # a cluster that was not started by `ray up`, or not from here
    there = {node.address for node in nodes}
    return [address for address in named if address not in there]


def setup_errors(log_dir: Path) -> list[str]:
    """The last lines of the autoscaler's logs that tell of trouble with workers, each once, with the file's name before it."""
    found: dict[str, None] = {}
    for name in ("monitor.out", "monitor.err", "monitor.log"):
        for line in _troubled(log_dir / name):
            shown = f"{name}: {line}"
            found.pop(shown, None)  # a repeated line counts where it was last seen
            found[shown] = None
    return list(found)[-_MOST_ERRORS:]


def _troubled(path: Path) -> Iterator[str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", line).strip()  # colours
        if _TROUBLE.search(plain) and not _NO_TROUBLE.search(plain):
            yield re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+\s+|^\(.*?\)\s+", "", plain)[:300]
