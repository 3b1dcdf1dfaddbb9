"""What successive halving would have done with recorded curves: other settings, another order, more slots, a fake clock.

The decisions are `orchestrator.asha`'s own. Reports between its rungs change nothing, so a search jumps from rung to rung.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from orchestrator.asha import Action, Asha, Variant
from orchestrator.errors import SweepError

__all__ = ["Curve", "Segment", "Settings", "SettingsGrid", "Simulated", "SimulationError", "simulate", "sweep_settings"]

_INTERVAL = {"low": 0.05, "median": 0.5, "high": 0.95}


class SimulationError(SweepError, ValueError):
    """Curves, an order or settings that no search can be simulated from."""


@dataclass(frozen=True)
class Curve:
    """What one trial measured, lower is better. It must reach the maximal epochs unless its last value is not finite.

    Raises:
        SimulationError: when made, if it has no reports, or they do not go forward in time.
    """

    trial_key: str
    epochs: Sequence[float]  # fidelity of each report, increasing
    values: Sequence[float]
    seconds_per_epoch: float

    def __post_init__(self) -> None:
        if not self.epochs or len(self.epochs) != len(self.values):
            given = f"{len(self.epochs)} and {len(self.values)}"
            raise SimulationError(f"curve {self.trial_key} needs as many epochs as values and at least one, got {given}")
        if any(later <= earlier for earlier, later in itertools.pairwise((0.0, *self.epochs))):
            raise SimulationError(f"curve {self.trial_key}: epochs must be above 0 and increase, got {list(self.epochs)}")
        if not 0 < self.seconds_per_epoch < math.inf:
            raise SimulationError(f"curve {self.trial_key}: seconds_per_epoch must be above 0, got {self.seconds_per_epoch}")


@dataclass(frozen=True)
class Settings:
    """Successive halving as it is to be tried; see `Asha`."""

    grace: float
    eta: int
    max_fidelity: float
    variant: Variant = "stopping"

    def start(self) -> Asha:
        """A search of these settings that nothing has been reported to."""
        return Asha(self.grace, self.eta, self.max_fidelity, self.variant)


class Segment(NamedTuple):
    """A trial on a slot, from its start or promotion until it ended or paused."""

    trial_key: str
    slot: int
    began_seconds: float
    ended_seconds: float
    from_epoch: float
    to_epoch: float
    ended_by: str  # "rung", "diverged", "pause" or "finished"


@dataclass(frozen=True)
class Simulated:
    """One search. The winner is the best of the trials that were trained longest."""

    best_trial: str
    best_value: float  # the winner's last one
    regret: float  # the winner's value when trained to the end, above that of the best curve among the trials searched
    trained_epochs: float
    trained_seconds: float  # summed over the slots
    wall_seconds: float
    stopped_at: Mapping[float, int]  # rung -> trials stopped there; paused ones count where they stayed
    timeline: Sequence[Segment]


@dataclass(frozen=True, kw_only=True)
class SettingsGrid:
    """Settings to cross with each other. Each is simulated once for each seed, which draws the order of the trials."""

    graces: Sequence[float]
    etas: Sequence[int]
    slots: Sequence[int]
    variants: Sequence[Variant] = ("stopping",)
    seeds: Sequence[int] = range(20)
    max_trials: int | None = None  # None: all curves


class _Course(NamedTuple):
    """A curve cut down to the reports at which something can be decided."""

    curve: Curve
    reports: list[tuple[float, float]]  # epoch, value

    @property
    def final(self) -> float:
        """The value at the end; infinite where it diverged."""
        value = self.reports[-1][1]
        return value if math.isfinite(value) else math.inf


def simulate(
    curves: Sequence[Curve], order: Sequence[str], settings: Settings, slots: int, max_trials: int | None = None
) -> Simulated:
    """The search that starts the first `max_trials` of `order` (trial keys), each as soon as one of `slots` is free.

    Raises:
        SimulationError: `order` names an unknown trial or one twice, or a curve ends before `settings.max_fidelity`.
        AshaError: a setting is out of its range.
    """
    known = {curve.trial_key: curve for curve in curves}
    chosen = order[: _checked_trials(max_trials, len(order))]
    unknown = [key for key in chosen if key not in known]
    if unknown or len(set(chosen)) < len(chosen):
        raise SimulationError(f"order must name curves, each once; unknown: {unknown}, got {list(order)}")
    if slots < 1:
        raise SimulationError(f"slots must be 1 or more, got {slots}")
    return _Search([_course(known[key], settings) for key in chosen], settings, slots).run()


def sweep_settings(curves: Sequence[Curve], grid: SettingsGrid, max_fidelity: float) -> pa.Table:
    """A row for each combination of `grid`: median, 5 % and 95 % quantile over the seeds of what it saves and what it costs.

    Saved is against training the same trials to the end; `found_best` is the share of searches without regret.

    Raises:
        SimulationError: there is no curve or no seed, or a curve ends before `max_fidelity`.
        AshaError: a setting is out of its range.
    """
    if not curves or not grid.seeds:
        raise SimulationError(f"curves and seeds must be 1 or more, got {len(curves)} and {len(grid.seeds)}")
    num_trials = _checked_trials(grid.max_trials, len(curves))
    rows = []
    for variant, grace, eta in itertools.product(grid.variants, grid.graces, grid.etas):
        settings = Settings(grace, eta, max_fidelity, variant)
        courses = [_course(curve, settings) for curve in curves]
        for slots in grid.slots:
            if slots < 1:
                raise SimulationError(f"slots must be 1 or more, got {slots}")
            orders = (random.Random(seed).sample(courses, num_trials) for seed in grid.seeds)
            figures = [_figures(order, _Search(order, settings, slots).run()) for order in orders]
            named = {"variant": variant, "grace": float(grace), "eta": eta, "slots": slots, "searches": len(figures)}
            rows.append({**named, **_summary(figures)})
    return pa.Table.from_pylist(rows)


@dataclass(slots=True)
class _Place:
    """A trial in a search: how many of its reports are in, and since when and where it runs."""

    course: _Course
    turn: int  # its place in the order, which decides between trials that report at the same time
    num_reports: int = 0
    slot: int = 0
    began_seconds: float = 0.0
    from_epoch: float = 0.0
    rung: float | None = None
    ended_by: str = ""

    @property
    def epoch(self) -> float:
        return self.course.reports[self.num_reports - 1][0] if self.num_reports else 0.0

    @property
    def value(self) -> float:
        value = self.course.reports[self.num_reports - 1][1]
        return value if math.isfinite(value) else math.inf


@dataclass
class _Search:
    courses: Sequence[_Course]
    settings: Settings
    num_slots: int
    _now: float = 0.0
    _timeline: list[Segment] = field(default_factory=list)
    _queue: list[tuple[float, int, _Place]] = field(default_factory=list)  # when it reports, its turn

    def run(self) -> Simulated:
        asha = self.settings.start()
        places: dict[str, _Place] = {}
        free = list(range(self.num_slots))
        waiting = iter(self.courses)
        while True:
            while free and (place := self._next(asha, waiting, places)) is not None:
                place.slot, place.began_seconds, place.from_epoch = heapq.heappop(free), self._now, place.epoch
                self._train(place)
            if not self._queue:
                return self._result(places)
            self._now, _, place = heapq.heappop(self._queue)
            epoch, value = place.course.reports[place.num_reports]
            place.num_reports += 1
            decision = asha.report(place.course.curve.trial_key, epoch, value)
            if decision.action is Action.GO_ON:
                self._train(place)
                continue
            place.rung, place.ended_by = decision.rung, decision.reason or decision.action.value
            self._write_down(place)
            heapq.heappush(free, place.slot)

    def _next(self, asha: Asha, waiting: Iterator[_Course], places: dict[str, _Place]) -> _Place | None:
        """The trial for a free slot: one that may be promoted before a new one."""
        promoted = asha.next_promotion() if self.settings.variant == "promotion" else None
        if promoted is not None:
            return places[promoted]
        course = next(waiting, None)
        return None if course is None else places.setdefault(course.curve.trial_key, _Place(course, len(places)))

    def _train(self, place: _Place) -> None:
        epochs = place.course.reports[place.num_reports][0] - place.epoch
        heapq.heappush(self._queue, (self._now + epochs * place.course.curve.seconds_per_epoch, place.turn, place))

    def _write_down(self, place: _Place) -> None:
        key = place.course.curve.trial_key
        self._timeline.append(
            Segment(key, place.slot, place.began_seconds, self._now, place.from_epoch, place.epoch, place.ended_by)
        )

    def _result(self, places: Mapping[str, _Place]) -> Simulated:
        winner = min(places.values(), key=lambda place: (place.value == math.inf, -place.epoch, place.value))
        best = min(place.course.final for place in places.values())
        stopped = Counter(place.rung for place in places.values() if place.rung is not None)
        return Simulated(
            best_trial=winner.course.curve.trial_key,
            best_value=winner.value,
            regret=0.0 if winner.course.final == best else winner.course.final - best,  # also where all are infinite
            trained_epochs=math.fsum(place.epoch for place in places.values()),
            trained_seconds=math.fsum(place.epoch * place.course.curve.seconds_per_epoch for place in places.values()),
            wall_seconds=self._now,
            stopped_at=dict(sorted(stopped.items())),
            timeline=self._timeline,
        )


def _course(curve: Curve, settings: Settings) -> _Course:
    """The reports at which something is decided: those of a trial that is alone and gets to its end.

    Raises:
        SimulationError: the curve ends before that.
    """
    asha = settings.start()
    reports = []
    for epoch, value in zip(curve.epochs, curve.values, strict=True):
        decision = asha.report(curve.trial_key, epoch, value)
        if decision.rung is not None or decision.action is not Action.GO_ON:
            reports.append((epoch, value))
        if decision.action is Action.PAUSE:
            asha.promote(curve.trial_key)
        elif decision.action is not Action.GO_ON:
            return _Course(curve, reports)
    raise SimulationError(
        f"curve {curve.trial_key} must reach max_fidelity={settings.max_fidelity:g} or diverge, it ends at "
        f"{curve.epochs[-1]:g}; leave out trials that were stopped, or lower max_fidelity"
    )


def _checked_trials(max_trials: int | None, available: int) -> int:
    if (max_trials is not None and max_trials < 1) or not available:
        raise SimulationError(f"max_trials must be 1 or more of at least one curve, got {max_trials} of {available}")
    return available if max_trials is None else min(max_trials, available)


def _figures(order: Sequence[_Course], simulated: Simulated) -> dict[str, float]:
    full_epochs = math.fsum(course.reports[-1][0] for course in order)
    full_seconds = math.fsum(course.reports[-1][0] * course.curve.seconds_per_epoch for course in order)
    return {
        "epochs_saved": full_epochs - simulated.trained_epochs,
        "epochs_saved_share": 1 - simulated.trained_epochs / full_epochs,
        "seconds_saved": full_seconds - simulated.trained_seconds,
        "regret": simulated.regret,
        "wall_seconds": simulated.wall_seconds,
    }


def _summary(figures: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Quantiles by the nearest rank, since a regret can be infinite and does not average."""
    summary: dict[str, Any] = {"found_best": sum(figure["regret"] == 0 for figure in figures) / len(figures)}
    for name in figures[0]:
        ranked = sorted(figure[name] for figure in figures)
        for suffix, share in _INTERVAL.items():
            summary[f"{name}_{suffix}"] = ranked[round(share * (len(ranked) - 1))]
    return summary
