"""Asynchronous successive halving as a state machine: reports go in, decisions come out. No clock, no Ray, no Optuna.

Rungs lie at grace, grace * eta, grace * eta^2 ... below the maximal fidelity. A trial that comes to a rung is compared with
those that came there before it; the best 1/eta go on. Lower values are better.

Source: Li et al. 2020, A System for Massively Parallel Hyperparameter Tuning, algorithm 2: among n arrivals floor(n / eta)
may be promoted. The stopping variant decides at once and keeps the best max(1, floor(n / eta)), as in
determined-ai/determined, master/pkg/searcher/asha_stopping.go.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, get_args

from orchestrator.errors import SweepError

__all__ = ["Action", "Asha", "AshaError", "Decision", "RungRow", "Variant", "has_reached", "rung_fidelities"]

Variant = Literal["stopping", "promotion"]

_SLACK = 1 - 1e-9  # 0.1 * 3 is above 0.3, and a trial that reports 0.3 is at that rung


class AshaError(SweepError, ValueError):
    """A setting or a report that successive halving cannot work with."""


class Action(StrEnum):
    """What becomes of a trial after a report."""

    GO_ON = "go on"
    STOP = "stop"
    PAUSE = "pause"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Decision:
    """`rung` is the fidelity of the rung that the trial was judged at, None between rungs; `reason` is why it was stopped."""

    action: Action
    rung: float | None = None
    reason: Literal["rung", "diverged"] | None = None


_GO_ON = Decision(Action.GO_ON)
_FINISHED = Decision(Action.FINISHED)
_DIVERGED = Decision(Action.STOP, reason="diverged")


@dataclass(frozen=True, slots=True)
class RungRow:
    """A rung for display. `cutoff` is the worst value of its present best 1/eta, None where there is none."""

    rung: float
    arrived: int
    survived: int
    cutoff: float | None


@dataclass(slots=True)
class _Rung:
    fidelity: float
    ranking: list[tuple[float, int, str]] = field(default_factory=list)  # value, place in the order of arrival, trial key
    num_survivors: int = 0

    def arrive(self, trial_key: str, value: float) -> int:
        """The trial's rank among those that came so far, from 0; of equal values the earlier ranks first."""
        entry = (value, len(self.ranking), trial_key)
        insort(self.ranking, entry)
        return bisect_left(self.ranking, entry)


@dataclass(slots=True)
class _Progress:
    """One trial: how far it is, the rung it waits at, and its judgements, each with the fidelities that it answers for."""

    reached: float = 0  # the highest fidelity reported
    num_rungs: int = 0
    waits_at: _Rung | None = None
    judged: list[tuple[float, float, Decision]] = field(default_factory=list)  # from, to, decision

    def answer(self, fidelity: float) -> Decision | None:
        """What a report that brings nothing new has heard before; None for a new one."""
        for begins, ends, decision in reversed(self.judged):
            is_last_word = decision.action in (Action.STOP, Action.FINISHED)
            if begins <= fidelity and (fidelity <= ends or is_last_word):
                return decision
        return _GO_ON if fidelity <= self.reached else None


class Asha:
    """Decides on reports in the order they come; the same reports in the same order get the same decisions.

    So the state is rebuilt by reporting again what was recorded. A trial that was killed and repeats its reports changes
    nothing and hears the same. In the promotion variant a report beyond a pause shows that the trial was promoted;
    `promote` says so of one that was taken up again and has not reported since.
    """

    def __init__(self, grace: float, eta: int, max_fidelity: float, variant: Variant = "stopping") -> None:
        if variant not in get_args(Variant):
            raise AshaError(f"variant must be one of {', '.join(get_args(Variant))}, got {variant!r}")
        self._rungs = [_Rung(fidelity) for fidelity in rung_fidelities(grace, eta, max_fidelity)]
        self._eta = eta
        self._max_fidelity = max_fidelity
        self._variant = variant
        self._progress: dict[str, _Progress] = {}

    def report(self, trial_key: str, fidelity: float, value: float) -> Decision:
        """What to do with a trial that has trained up to `fidelity` and measured `value`; a value that is not finite is worst.

        A trial that passes a rung without a report there is judged at that rung by its next report.

        Raises:
            AshaError: `fidelity` is not a positive number.
        """
        if not 0 < fidelity < math.inf:
            raise AshaError(f"fidelity of trial {trial_key} must be a positive number, got {fidelity}")
        progress = self._progress.setdefault(trial_key, _Progress())
        known = progress.answer(fidelity)
        if known is not None:
            return known
        self.promote(trial_key)
        begins = self._begins(progress, fidelity)
        progress.reached = fidelity
        decision = self._judge(trial_key, progress, fidelity, value)
        if decision is not _GO_ON:
            progress.judged.append((begins, fidelity, decision))
        return decision

    def next_promotion(self) -> str | None:
        """Takes a paused trial up again, the best of the highest rung first; None when none is good enough yet."""
        trial_key = self.promotable()
        if trial_key is not None:
            self.promote(trial_key)
        return trial_key

    def promotable(self) -> str | None:
        """The trial that `next_promotion` would take up."""
        for rung in reversed(self._rungs):
            for _, _, trial_key in rung.ranking[: len(rung.ranking) // self._eta]:
                if self._progress[trial_key].waits_at is rung:
                    return trial_key
        return None

    def promote(self, trial_key: str) -> None:
        """Takes a paused trial as promoted, as the record of an earlier run says; does nothing to one that does not wait."""
        progress = self._progress.get(trial_key)
        if progress is None or progress.waits_at is None:
            return
        rung, progress.waits_at = progress.waits_at, None
        rung.num_survivors += 1
        begins, ends, _ = progress.judged[-1]
        progress.judged[-1] = (begins, ends, Decision(Action.GO_ON, rung.fidelity))

    def rung_table(self) -> list[RungRow]:
        """Every rung, the lowest first: how many came, how many went on, and the value it takes."""
        return [RungRow(rung.fidelity, len(rung.ranking), rung.num_survivors, self._cutoff(rung)) for rung in self._rungs]

    def _begins(self, progress: _Progress, fidelity: float) -> float:
        """From where the judgement at `fidelity` answers repeated reports: a jump's from its rung, another's from itself."""
        ahead = self._rungs[progress.num_rungs].fidelity if progress.num_rungs < len(self._rungs) else fidelity
        return ahead if progress.reached < ahead < fidelity else fidelity

    def _judge(self, trial_key: str, progress: _Progress, fidelity: float, value: float) -> Decision:
        """Lets the trial arrive at each rung that it has come to, until one of them holds it."""
        if not math.isfinite(value):
            # It counts at the rung it was heading for: 1/eta of all that started go on, not of the healthy ones.
            if progress.num_rungs < len(self._rungs):
                self._rungs[progress.num_rungs].arrive(trial_key, math.inf)
            return _DIVERGED
        decision = _FINISHED if has_reached(fidelity, self._max_fidelity) else _GO_ON
        while progress.num_rungs < len(self._rungs) and has_reached(fidelity, self._rungs[progress.num_rungs].fidelity):
            rung = self._rungs[progress.num_rungs]
            progress.num_rungs += 1
            rank = rung.arrive(trial_key, value)
            if decision is _FINISHED:  # trained to the end, there is nothing left to save
                rung.num_survivors += 1
                continue
            decision = self._judge_at(rung, rank, progress)
            if decision.action is not Action.GO_ON:
                break
        return decision

    def _judge_at(self, rung: _Rung, rank: int, progress: _Progress) -> Decision:
        if self._variant == "promotion":
            progress.waits_at = rung
            return Decision(Action.PAUSE, rung.fidelity)
        if rank < max(1, len(rung.ranking) // self._eta):
            rung.num_survivors += 1
            return Decision(Action.GO_ON, rung.fidelity)
        return Decision(Action.STOP, rung.fidelity, "rung")

    def _cutoff(self, rung: _Rung) -> float | None:
        num_kept = len(rung.ranking) // self._eta
        if self._variant == "stopping":
            num_kept = max(1, num_kept)
        kept = [value for value, _, _ in rung.ranking[:num_kept] if value < math.inf]
        return kept[-1] if kept else None


def has_reached(fidelity: float, rung: float) -> bool:
    """Whether a trial that trained up to `fidelity` is at the rung, but for rounding."""
    return fidelity >= rung * _SLACK


def rung_fidelities(grace: float, eta: int, max_fidelity: float) -> list[float]:
    """Where trials are judged: grace, grace * eta, ... below `max_fidelity`; none when `grace` is `max_fidelity`.

    Raises:
        AshaError: a setting is out of its range.
    """
    if not 0 < max_fidelity < math.inf:
        raise AshaError(f"max_fidelity must be a positive number, got {max_fidelity}")
    if not 0 < grace <= max_fidelity:
        raise AshaError(f"grace must be in (0, max_fidelity={max_fidelity:g}], got {grace}")
    if not isinstance(eta, int) or isinstance(eta, bool) or eta < 2:
        raise AshaError(f"eta must be a whole number of 2 or more, got {eta}")
    rungs = []
    while grace < max_fidelity * _SLACK:
        rungs.append(grace)
        grace *= eta
    return rungs
