"""Every node of a cluster must run what the driver runs: the same Python, Ray, torch and code of this project."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from orchestrator.errors import SweepError

if TYPE_CHECKING:
    from orchestrator.cluster_wait import Node

__all__ = ["check_same_environment", "described_environment"]

Environment = Mapping[str, str]
"""Version by name; "code" is a hash of the project's sources."""

_MOST_NODES = 3


def described_environment() -> Callable[[], dict[str, str]]:
    """A function that describes the environment of the process that calls it.

    It is made here, inside, so that Ray ships its code instead of its name: a node may not have this module, or another one.
    """

    def describe() -> dict[str, str]:
        import hashlib
        import importlib.util
        import platform
        from importlib import metadata
        from pathlib import Path

        def version_of(package: str) -> str:
            try:
                return metadata.version(package)
            except metadata.PackageNotFoundError:
                return "missing"

        digest = hashlib.sha256()
        for name in ("orchestrator", "results", "search_spaces", "trainables"):
            spec = importlib.util.find_spec(name)
            if spec is None or spec.origin is None:
                digest = hashlib.sha256(b"missing")
                break
            folder = Path(spec.origin).parent
            for path in sorted(folder.rglob("*.py")):
                digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
        versions = {package: version_of(package) for package in ("ray", "torch", "transformers", "pyarrow", "expert-sweeps")}
        return {"python": platform.python_version(), **versions, "code": digest.hexdigest()[:12]}

    return describe


def check_same_environment(nodes: Mapping[str, Node], ask: Callable[[list[str]], list[dict[str, str]]]) -> None:
    """Compares every node's environment with this process's. `nodes` by Ray's ids; `ask` returns their environments, in order.

    Raises:
        SweepError: some differ; the message names the first, and what differs.
    """
    here = described_environment()()
    ids = list(nodes)
    found = [
        f"{nodes[node_id].host} ({nodes[node_id].address}) has {differences}"
        for node_id, there in zip(ids, ask(ids), strict=True)
        if (differences := _differences(here, there))
    ]
    if found:
        more = f"; and {len(found) - _MOST_NODES} more nodes" if len(found) > _MOST_NODES else ""
        raise SweepError(
            f"{'; '.join(found[:_MOST_NODES])}{more}. All nodes must run what the driver runs: "
            "`ray up` again with the same cluster file brings code and environment to every node"
        )


def _differences(here: Environment, there: Environment) -> str:
    names = [name for name in here if here[name] != there.get(name, "missing")]
    return " and ".join(f"{name} {there.get(name, 'missing')} where the driver has {here[name]}" for name in names)
