"""Where trials can run: what a node holds, what a cluster holds now, and what it can grow to. Pure arithmetic, no Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.errors import InfeasibleError

__all__ = ["HEAD", "Growth", "NodeType", "Request", "check_feasible", "has_gpus", "most_trials", "trials_now"]

_ROUNDING = 1e-9
"""What a sum of 1/k may lack of a whole GPU."""

HEAD = "node:__internal_head__"
"""The resource by which Ray marks the head."""


@dataclass(frozen=True)
class Request:
    """What one trial holds while it runs."""

    cpus: float
    gpus: float  # 1/k where k trials share one
    memory_bytes: int | None = None

    @property
    def for_ray(self) -> dict[str, float]:
        """The same as Ray Tune asks for it. (Measured on 2.60: k times 1/k fits on a GPU, also for 3, 6 and 7.)"""
        memory = {} if self.memory_bytes is None else {"memory": float(self.memory_bytes)}
        return {"cpu": self.cpus, "gpu": self.gpus, **memory}

    def trials_on(self, resources: Mapping[str, float]) -> int:
        """How many trials a node with these resources (Ray's names: CPU, GPU, memory in bytes) holds."""
        asked = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory_bytes or 0}
        return min(int(resources.get(name, 0) / amount + _ROUNDING) for name, amount in asked.items() if amount)

    def __str__(self) -> str:
        memory = "" if self.memory_bytes is None else f" and {self.memory_bytes / 1024**3:g} GiB"
        return f"{self.cpus:g} CPUs and {self.gpus:g} GPUs{memory}"


@dataclass(frozen=True)
class NodeType:
    """A kind of node that an autoscaler may start."""

    name: str
    resources: Mapping[str, float]  # of one node; empty where only the node itself will know
    most: int  # nodes of this kind at a time


@dataclass(frozen=True)
class Growth:
    """What an autoscaler may add to a cluster."""

    types: tuple[NodeType, ...]
    most_nodes: int  # of all kinds together, the head not counted


def trials_now(request: Request, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many trials the nodes there are hold together."""
    return sum(request.trials_on(node) for node in nodes)


def has_gpus(nodes: Sequence[Mapping[str, float]], growth: Growth | None) -> bool:
    """True where a node has a GPU, or one that the autoscaler may start."""
    kinds = [] if growth is None else [kind.resources for kind in growth.types if kind.most > 0]
    return any(resources.get("GPU", 0) >= 1 for resources in [*nodes, *kinds])


def most_trials(request: Request, nodes: Sequence[Mapping[str, float]], growth: Growth | None) -> int:
    """How many trials the cluster holds when it has grown as far as it may.

    A kind of node whose resources nobody knows yet counts as the best node there is, and as one trial at least.
    """
    now = trials_now(request, nodes)
    if growth is None or len(nodes) > growth.most_nodes:
        return now
    best = max((request.trials_on(node) for node in nodes), default=0)
    kinds = [(request.trials_on(kind.resources) if kind.resources else max(1, best), kind.most) for kind in growth.types]
    grown, room = trials_now(request, [node for node in nodes if HEAD in node]), growth.most_nodes
    for trials, most in sorted(kinds, reverse=True):
        started = min(most, room)
        grown, room = grown + started * trials, room - started
    return max(now, grown)


def check_feasible(request: Request, nodes: Sequence[Mapping[str, float]], growth: Growth | None) -> None:
    """A trial that no node can hold would wait for ever (ray issue 18332).

    Raises:
        InfeasibleError: neither a node there is nor one that the autoscaler may start holds one trial.
    """
    kinds = [] if growth is None else [kind for kind in growth.types if kind.most > 0]
    if any(not kind.resources for kind in kinds) and growth is not None and len(nodes) <= growth.most_nodes:
        return  # some node is still to come, and nobody knows what it has
    if any(request.trials_on(resources) for resources in [*nodes, *(kind.resources for kind in kinds)]):
        return
    have = "; ".join(_describe(node) for node in nodes) or "nothing"
    kinds_have = "; ".join(f"{kind.name}: {_describe(kind.resources)}" for kind in kinds if kind.resources)
    may_start = f", and the autoscaler may start {kinds_have}" if kinds_have else ""
    raise InfeasibleError(
        f"a trial asks for {request}, and the nodes have {have}{may_start}; lower resources.cpus_per_trial, "
        "resources.gpus_per_trial or resources.memory_gib_per_trial, or raise resources.trials_per_gpu"
    )


def _describe(resources: Mapping[str, float]) -> str:
    memory = resources.get("memory", 0) / 1024**3
    return f"{resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs and {memory:.1f} GiB"
