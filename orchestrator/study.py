"""What to try next: Optuna's samplers behind a pure function of the space, the seed and what has been told.

Optuna's own state is never kept: each suggestion is made on a study rebuilt from the history, by a sampler seeded for that
suggestion alone. So a search that was interrupted suggests what it would have suggested.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from orchestrator.errors import SweepError
from orchestrator.search_settings import SamplerName
from search_spaces.space import Dimension, Float, Int, Space, Value

__all__ = ["MissingPackageError", "SpaceExhaustedError", "State", "Study", "StudyError", "Told"]

State = Literal["running", "completed", "stopped", "failed"]

_PACKAGES: dict[str, tuple[str, ...]] = {"gp": ("scipy", "torch"), "qmc": ("scipy",), "cmaes": ("cmaes",)}
"""What Optuna imports for a sampler and does not itself require."""

_NUM_TRIES = 10
"""How often a sampler, and then chance, is asked for a point that has not been told."""

_STEPS_PER_UNIT = 1_000_000
"""Optuna counts steps in whole numbers; fidelities are given to it in millionths."""


class StudyError(SweepError, ValueError):
    """A sampler, a number or a history that no suggestion can be made from."""


class MissingPackageError(StudyError):
    """The sampler needs a package that is not installed."""


class SpaceExhaustedError(StudyError):
    """Every point of a finite space has been told."""


@dataclass(frozen=True)
class Told:
    """What is known of one trial. In a history of several entries for a number the last one holds."""

    number: int
    values: Mapping[str, Value]
    state: State
    intermediate: Mapping[float, float] = field(default_factory=dict)  # fidelity -> value, lower is better
    value: float | None = None
    second: float | None = None  # the second objective, lower is better


class Study:
    """Suggests points of a space. What it keeps from call to call only saves time."""

    def __init__(self, space: Space, sampler: SamplerName = "tpe", seed: int = 0, num_objectives: int = 1) -> None:
        if sampler not in get_args(SamplerName):
            raise StudyError(f"sampler must be one of {', '.join(get_args(SamplerName))}, got {sampler!r}")
        missing = [package for package in _PACKAGES.get(sampler, ()) if importlib.util.find_spec(package) is None]
        if missing:
            names = " ".join(missing)
            raise MissingPackageError(f"sampler {sampler!r} needs {names}, not installed here: pip install {names}")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = space
        self.sampler = sampler
        self.seed = seed
        self._num_objectives = num_objectives
        self._distributions = {name: _distribution(dimension) for name, dimension in space.dimensions.items()}
        self._qmc_study: optuna.Study | None = None
        self._forget()

    def suggest(self, number: int, history: Sequence[Told]) -> dict[str, Value]:
        """The point for trial `number`, one that `history` (in the order of arrival) does not have yet.

        Raises:
            SpaceExhaustedError: `history` has every point of the space.
            StudyError: `history` has this number, or a point that is not of the space.
        """
        latest = _latest(history)
        if number < 0 or number in latest:
            raise StudyError(f"number must be 0 or more and not told before, got {number}")
        running = [told for told in latest.values() if told.state == "running"]
        self._learn([told for told in latest.values() if told.state != "running"])
        taken = self._points | {json.dumps(_complete(self.space, told)) for told in running}
        if self.space.size is not None and len(taken) >= self.space.size:
            raise SpaceExhaustedError(f"space {self.space.name}: all {self.space.size} points were tried; widen a dimension")
        for attempt in range(2 * _NUM_TRIES):
            values = self._ask(number, attempt, running)
            if json.dumps(values) not in taken:
                return values
        # Two independent series of draws found only what is taken, so little else can be left: list it.
        left = [point for point in self.space.grid() if json.dumps(point) not in taken]
        return random.Random(self._seed_of(number, "left")).choice(left)

    def _forget(self) -> None:
        self._study = optuna.create_study(sampler=RandomSampler(), directions=["minimize"] * self._num_objectives)
        self._told: list[Told] = []
        self._points: set[str] = set()
        self._num_ghosts = 0

    def _learn(self, finished: list[Told]) -> None:
        """Brings the study up to date, from the beginning unless the history only grew."""
        grew = finished[: len(self._told)] == self._told
        # CMA-ES draws depend on how many trials its study holds, ghosts included.
        if not grew or self.sampler == "cmaes" or self._num_ghosts > 200 + len(self._told):
            self._forget()
        for told in finished[len(self._told) :]:
            point = json.dumps(_complete(self.space, told))
            self._study.add_trial(self._freeze(told, self._attributes(told)))
            self._told.append(told)
            self._points.add(point)

    def _attributes(self, told: Told) -> dict[str, Any]:
        """What the sampler would have noted beside this trial: CMA-ES keeps its generations and its state there."""
        if self.sampler != "cmaes" or _outcome(told)[0] is not TrialState.COMPLETE:
            return {}
        self._study.sampler = self._make_sampler(f"history {len(self._told)}")
        ghost = self._study.ask()
        self._read(ghost)  # Optuna calls the sampler at the first value that is read
        noted = dict(self._study.get_trials(deepcopy=False)[ghost.number].system_attrs)
        self._study.tell(ghost.number, state=TrialState.FAIL)
        return noted

    def _freeze(self, told: Told, attributes: Mapping[str, Any] | None = None) -> FrozenTrial:
        distributions = self._distributions
        if self.sampler == "cmaes":  # it gives up on a space that changes; conditional dimensions are drawn beside it
            distributions = {name: given for name, given in distributions.items() if self.space.dimensions[name].when is None}
        return _frozen(self.space, told, distributions, self._num_objectives, system_attrs=dict(attributes or {}))

    def _ask(self, number: int, attempt: int, running: Sequence[Told]) -> dict[str, Value]:
        if self.sampler == "qmc" and attempt == 0:
            return self._read(self._ask_sequence(number))
        at_random = attempt >= _NUM_TRIES or self.sampler == "qmc"  # the next of the sequence belongs to the next number
        self._study.sampler = self._make_sampler(f"{number} {attempt}", at_random=at_random)
        first = len(self._study.get_trials(deepcopy=False))
        self._study.add_trials([self._freeze(told) for told in running])
        trial = self._study.ask()
        values = self._read(trial)
        # A failed trial tells no sampler anything: these are as good as removed.
        for ghost in range(first, trial.number + 1):
            self._study.tell(ghost, state=TrialState.FAIL)
        self._num_ghosts += trial.number + 1 - first
        return values

    def _ask_sequence(self, number: int) -> optuna.Trial:
        """The point of that number in a quasi-random sequence, which Optuna counts by the points asked for."""
        if self._qmc_study is None or len(self._qmc_study.get_trials(deepcopy=False)) > number + 1:
            self._qmc_study = optuna.create_study(sampler=self._make_sampler("sequence"))
            corner = {name: dimension.ends[0] for name, dimension in self.space.dimensions.items()}
            self._qmc_study.add_trial(create_trial(params=corner, distributions=self._distributions, value=0.0))
        while len(self._qmc_study.get_trials(deepcopy=False)) <= number:
            self._read(self._qmc_study.ask())
        return self._qmc_study.ask()

    def _read(self, trial: optuna.Trial) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for name, dimension in self.space.dimensions.items():
            if name in self.space.active(values):
                values[name] = _suggest(trial, name, dimension)
        return self.space.complete(values)

    def _make_sampler(self, purpose: str, *, at_random: bool = False) -> BaseSampler:
        seed = self._seed_of(purpose)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if at_random or self.sampler == "random":
                return RandomSampler(seed=seed)
            if self.sampler == "tpe":  # group: dimensions under a condition are modelled together with the others
                return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
            if self.sampler == "gp":
                return GPSampler(seed=seed, warn_independent_sampling=False)
            if self.sampler == "qmc":
                return QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
            return CmaEsSampler(seed=seed, warn_independent_sampling=False)

    def _seed_of(self, *purpose: object) -> int:
        return int.from_bytes(hashlib.sha256(json.dumps([self.seed, *purpose]).encode()).digest()[:4])


def _latest(history: Sequence[Told]) -> dict[int, Told]:
    """The last entry of each number, in the order of arrival."""
    latest: dict[int, Told] = {}
    for told in history:
        latest.pop(told.number, None)
        latest[told.number] = told
    return latest


def _complete(space: Space, told: Told) -> dict[str, Value]:
    """The trial's values in the space's order.

    Raises:
        StudyError: they are no point of the space.
    """
    try:
        return space.complete(told.values)
    except ValueError as error:
        raise StudyError(f"trial {told.number}: {error}") from error


def _outcome(told: Told) -> tuple[TrialState, float | None]:
    """Optuna's state and value: a stopped trial is as good as its last report, one that is not finite says nothing.

    Raises:
        StudyError: the state is unknown, or a completed trial has no value.
    """
    if told.state not in get_args(State):
        raise StudyError(f"trial {told.number}: state must be one of {', '.join(get_args(State))}, got {told.state!r}")
    if told.state == "completed" and told.value is None:
        raise StudyError(f"trial {told.number}: a completed trial must have a value, got None")
    if told.state == "running":
        return TrialState.RUNNING, None
    value = told.value
    if told.state == "stopped" and told.intermediate:
        value = told.intermediate[max(told.intermediate)]
    if told.state == "failed" or value is None or not math.isfinite(value):
        return TrialState.FAIL, None
    return (TrialState.COMPLETE if told.state == "completed" else TrialState.PRUNED), value


def _frozen(
    space: Space, told: Told, distributions: Mapping[str, BaseDistribution], num_objectives: int = 1, **attributes: Any
) -> FrozenTrial:
    """The trial as Optuna has it, with the parameters that `distributions` names.

    Of two objectives Optuna takes complete trials alone: it has no place for the loss of one that was stopped.
    """
    state, value = _outcome(told)
    measured = [each for each in (value, told.second)[:num_objectives] if each is not None]
    if num_objectives > 1 and (state is TrialState.PRUNED or len(measured) < num_objectives):
        state, measured = (state if state is TrialState.RUNNING else TrialState.FAIL), []
    values = _complete(space, told)
    return create_trial(
        state=state,
        values=measured or None,
        params={name: values[name] for name in values if name in distributions},
        distributions={name: distributions[name] for name in values if name in distributions},
        intermediate_values={round(fidelity * _STEPS_PER_UNIT): loss for fidelity, loss in told.intermediate.items()},
        **attributes,
    )


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Float):
        return FloatDistribution(dimension.low, dimension.high, log=dimension.log)
    if isinstance(dimension, Int):
        return IntDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)
    return CategoricalDistribution(dimension.values)


def _suggest(trial: optuna.Trial, name: str, dimension: Dimension) -> Value:
    if isinstance(dimension, Float):
        return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
    if isinstance(dimension, Int):
        return trial.suggest_int(name, dimension.low, dimension.high, log=dimension.log, step=dimension.step)
    return trial.suggest_categorical(name, dimension.values)
