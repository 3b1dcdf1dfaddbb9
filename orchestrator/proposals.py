"""What a search tries next: a point from a sampler, or the next of a narrowing's stages. Pure functions of the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.errors import SweepError
from orchestrator.search_spec import SearchSpec
from orchestrator.study import Study, Told
from search_spaces.space import Value
from search_spaces.stages import Narrowing

__all__ = ["Proposal", "Proposer", "proposer_of"]


@dataclass(frozen=True)
class Proposal:
    """A point to try, by dotted names; of a narrowing also the stage, and the number of the winner that it builds on."""

    values: Mapping[str, Value]
    stage: str | None = None
    parent: int | None = None


class Proposer(Protocol):
    """Proposes points one after the other."""

    def propose(self, number: int, history: Sequence[Told]) -> Proposal | None:
        """The point of that number; None when it depends on trials that run.

        Raises:
            SpaceExhaustedError: there is no further point.
            SweepError: no trial came out of which it could follow.
        """


def proposer_of(spec: SearchSpec) -> Proposer:
    """The search's own."""
    return _Stages(spec.space) if isinstance(spec.space, Narrowing) else _Sampler(spec)


class _Sampler:
    def __init__(self, spec: SearchSpec) -> None:
        assert not isinstance(spec.space, Narrowing)
        self._study = Study(spec.space, spec.settings.sampler, spec.settings.seed, len(spec.settings.objectives))

    def propose(self, number: int, history: Sequence[Told]) -> Proposal | None:
        return Proposal(self._study.suggest(number, history))


class _Stages:
    """Each stage tries its grid around the winner so far: the lowest final loss, of equal ones the first."""

    def __init__(self, narrowing: Narrowing) -> None:
        self._narrowing = narrowing

    def propose(self, number: int, history: Sequence[Told]) -> Proposal | None:
        latest = {told.number: told for told in history}
        base, parent, first = self._narrowing.start, None, 0
        for stage in self._narrowing.stages:
            if first in latest:  # a stage that has begun keeps its base, also where a retry gave the last one another winner
                base = {name: value for name, value in latest[first].values.items() if name not in stage.dimensions}
            points = stage.points(base)
            if number < first + len(points):
                return Proposal(points[number - first], stage.name, parent)
            tried = [latest.get(other) for other in range(first, first + len(points))]
            if any(told is None or told.state == "running" for told in tried):
                return None
            parent = _winner(stage.name, [told for told in tried if told is not None])
            base, first = latest[parent].values, first + len(points)
        raise AssertionError(f"a narrowing of {first} trials was asked for number {number}")


def _winner(stage: str, tried: Sequence[Told]) -> int:
    losses = [(told.value, told.number) for told in tried if told.value is not None]
    if not losses:
        raise SweepError(
            f"no trial of stage {stage} completed, so the next stage has nothing to build on; mend what they failed of and run "
            "`retry --failed`, or, where all diverged, take stages with lower rates"
        )
    return min(losses)[1]
