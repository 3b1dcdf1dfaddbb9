"""What a search will cost before it begins: trials that come to each rung, epochs, hours."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from orchestrator.curves import load_curves
from orchestrator.estimate import estimate, local_gpus
from orchestrator.preset import Resources
from orchestrator.search_spec import SearchSpec
from orchestrator.simulate import Curve, Settings, Simulated, SimulationError, simulate
from results.storage import StorageLike
from search_spaces.stages import Narrowing

__all__ = ["Forecast", "RungForecast", "forecast"]

_ORDERS = 100
"""Orders of the trials to simulate; the forecast is their mean."""

_POINTS = 20
"""Points of the space whose time is estimated; the forecast takes their mean."""


@dataclass(frozen=True)
class RungForecast:
    """How many trials come to a rung, and how many of them go on."""

    epoch: float
    arrive: float
    go_on: float


@dataclass(frozen=True)
class Forecast:
    """The whole search from its beginning. `trial_seconds` None: the ledger has no trial of this kind to go by."""

    trials: int
    rungs: tuple[RungForecast, ...]
    epochs: float
    full_epochs: int  # without early stopping
    by: str  # what the survivors are reckoned by
    trial_seconds: float | None  # summed over the trials
    gpu_hours: float | None
    slots: int

    @property
    def wall_seconds(self) -> float | None:
        """Trial seconds shared evenly by the slots."""
        return None if self.trial_seconds is None else self.trial_seconds / self.slots


def forecast(spec: SearchSpec, storage: StorageLike, resources: Resources) -> Forecast:
    """Survivors by simulation on recorded curves where there are enough, else as if losses kept their order from the start."""
    settings, trials = spec.settings, spec.num_trials
    points = spec.space.points() if isinstance(spec.space, Narrowing) else spec.space.sample(_POINTS, random.Random(0))
    sample = [spec.trial_at(values, 0) for values in points]
    cost = estimate(sample, storage, resources)
    known = len(sample) - cost.unknown
    seconds_per_epoch = cost.trial_seconds / known / settings.max_epochs if known else None
    curves, by = _curves(storage, trials, settings.max_epochs)
    if settings.rungs:
        halving = Settings(settings.grace, settings.eta, float(settings.max_epochs), settings.variant)
        keys = [curve.trial_key for curve in curves]
        orders = (random.Random(seed).sample(keys, len(keys)) for seed in range(_ORDERS))
        searches = [simulate(curves, order, halving, cost.slots, trials) for order in orders]
        epochs = fmean(search.trained_epochs for search in searches)
        rungs = _rungs(settings.rungs, searches, trials)
    else:
        epochs, rungs = float(trials * settings.max_epochs), ()
    trial_seconds = None if seconds_per_epoch is None else epochs * seconds_per_epoch
    gpus = local_gpus(resources)
    return Forecast(
        trials=trials,
        rungs=rungs,
        epochs=epochs,
        full_epochs=trials * settings.max_epochs,
        by=by,
        trial_seconds=trial_seconds,
        gpu_hours=None if trial_seconds is None or not gpus else trial_seconds * gpus / 3600,
        slots=cost.slots,
    )


def _curves(storage: StorageLike, trials: int, max_epochs: int) -> tuple[list[Curve], str]:
    try:
        recorded, epochs = load_curves(storage, None)
    except SimulationError:
        recorded, epochs = [], 0.0
    if epochs == max_epochs and len(recorded) >= trials:
        return recorded, f"{len(recorded)} recorded curves"
    reports = [float(epoch) for epoch in range(1, max_epochs + 1)]
    fixed = [Curve(str(rank), reports, [float(rank)] * max_epochs, 1.0) for rank in range(trials)]
    return fixed, "losses that keep their order from the start, as there are no recorded curves of that length"


def _rungs(rungs: Sequence[float], searches: Sequence[Simulated], trials: int) -> tuple[RungForecast, ...]:
    rows, arrive = [], float(trials)
    for rung in rungs:
        stay = fmean(search.stopped_at.get(rung, 0) for search in searches)
        rows.append(RungForecast(rung, arrive, arrive - stay))
        arrive -= stay
    return tuple(rows)
