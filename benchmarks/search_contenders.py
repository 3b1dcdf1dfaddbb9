"""Who searches: this project, and what else there is, each as its own documentation has it, with the same rungs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import optuna
from search_clock import Searcher, Verdict
from search_table import REPORTS_PER_EPOCH, Table

from orchestrator.asha import Action, Asha, Variant
from orchestrator.study import Study, Told
from search_spaces.space import Float, Int, Space, Value

ETA = 2
"""As a preset's `search` has it by default."""

SYNE_PYTHON = "SYNE_PYTHON"


@dataclass(frozen=True)
class Contender:
    """Makes a new search from a table, the epochs before trials are first judged, and a seed."""

    name: str
    make: Callable[[Table, int, int], Searcher]
    workers: int = 2


class Ours:
    """The decisions of `orchestrator.search.Search` without its ledger."""

    def __init__(
        self, table: Table, grace: int, seed: int, variant: Variant, sampler: Literal["tpe", "random"] = "tpe"
    ) -> None:
        self._study = Study(table.space, sampler, seed)
        self._asha = Asha(grace, ETA, table.max_epochs, variant)
        self._promotes = variant == "promotion"
        self._told: dict[int, Told] = {}
        self._history: list[Told] = []

    def next(self, number: int) -> Mapping[str, Value] | int:
        promoted = self._asha.next_promotion() if self._promotes else None
        if promoted is not None:
            self._tell(replace(self._told[int(promoted)], state="running"))
            return int(promoted)
        values = self._study.suggest(number, self._history)
        self._tell(Told(number, values, "running"))
        return values

    def report(self, number: int, epoch: float, loss: float) -> Verdict:
        told = self._told[number]
        self._told[number] = told = replace(told, intermediate={**told.intermediate, epoch: loss})
        action = self._asha.report(str(number), epoch, loss).action
        if action is Action.GO_ON:
            return "go on"
        is_done = action is Action.FINISHED
        self._tell(replace(told, state="completed" if is_done else "stopped", value=loss if is_done else None))
        return "pause" if action is Action.PAUSE else "stop"

    def _tell(self, told: Told) -> None:
        self._told[told.number] = told
        self._history.append(told)


def suggest_point(space: Space, trial: Any) -> dict[str, Value]:
    """A point of the space by Optuna's define-by-run interface; a dimension is asked for where it applies."""
    values: dict[str, Value] = {}
    for name, dimension in space.dimensions.items():
        if name not in space.active(values):
            continue
        if isinstance(dimension, Float):
            values[name] = trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
        elif isinstance(dimension, Int):
            values[name] = trial.suggest_int(name, dimension.low, dimension.high, step=dimension.step)
        else:
            values[name] = trial.suggest_categorical(name, list(dimension.values))
    return values


class PlainOptuna:
    """`study.ask`, `trial.report`, `trial.should_prune`, `study.tell`."""

    def __init__(self, table: Table, grace: int, seed: int) -> None:
        self._space = table.space
        self._max_epochs = table.max_epochs
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=grace * REPORTS_PER_EPOCH, reduction_factor=ETA)
        self._study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed), pruner=pruner)
        self._trials: dict[int, optuna.Trial] = {}

    def next(self, number: int) -> Mapping[str, Value]:
        trial = self._trials[number] = self._study.ask()
        return suggest_point(self._space, trial)

    def report(self, number: int, epoch: float, loss: float) -> Verdict:
        trial = self._trials[number]
        trial.report(loss, round(epoch * REPORTS_PER_EPOCH))
        if epoch >= self._max_epochs:
            self._study.tell(trial, loss)
            return "stop"
        if trial.should_prune():
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return "stop"
        return "go on"


class RayTune:
    """`OptunaSearch` and `ASHAScheduler`, called in the order in which Tune's controller calls them (Ray 2.60)."""

    def __init__(self, table: Table, grace: int, seed: int) -> None:
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.optuna import OptunaSearch

        self._points: dict[str, Mapping[str, Value]] = {}
        self._space = table.space
        self._search = OptunaSearch(space=self._define, metric="loss", mode="min", seed=seed)
        self._scheduler = ASHAScheduler(
            time_attr="epoch", metric="loss", mode="min", max_t=table.max_epochs, grace_period=grace, reduction_factor=ETA
        )

    def _define(self, trial: Any) -> None:
        suggest_point(self._space, trial)

    def next(self, number: int) -> Mapping[str, Value]:
        point: Mapping[str, Value] = self._search.suggest(str(number))
        self._scheduler.on_trial_add(None, SimpleNamespace(trial_id=str(number)))
        return point

    def report(self, number: int, epoch: float, loss: float) -> Verdict:
        trial = SimpleNamespace(trial_id=str(number))
        result = {"epoch": epoch, "loss": loss, "training_iteration": round(epoch * REPORTS_PER_EPOCH)}
        if self._scheduler.on_trial_result(None, trial, result) != "STOP":
            self._search.on_trial_result(trial.trial_id, result)
            return "go on"
        self._scheduler.on_trial_complete(None, trial, result)
        self._search.on_trial_complete(trial.trial_id, result)
        return "stop"


class SyneTune:
    """A scheduler of Syne Tune in the Python that has it installed; see `search_syne.py`."""

    def __init__(self, table: Table, grace: int, seed: int, talk: Callable[..., Any], scheduler: str) -> None:
        self._space = table.space
        self._talk = talk
        dimensions = table.space.to_json()["dimensions"]
        settings = {"max_t": table.max_epochs, "grace_period": grace, "reduction_factor": ETA, "random_seed": seed}
        talk(do="start", scheduler=scheduler, dimensions=dimensions, settings=settings)

    def next(self, number: int) -> Mapping[str, Value]:
        flat = self._talk(do="suggest", number=number)
        point: dict[str, Value] = {}
        for name in self._space.dimensions:  # it knows no conditions: what does not apply is left out
            if name in self._space.active(point):
                point[name] = flat[name]
        return point

    def report(self, number: int, epoch: float, loss: float) -> Verdict:
        answer: Verdict = self._talk(do="report", number=number, epoch=epoch, loss=loss)
        return answer


def syne_talk(python: str) -> Callable[..., Any]:
    """Starts the other Python, and speaks with it by a line of JSON each way."""
    script = Path(__file__).with_name("search_syne.py")
    process = subprocess.Popen([python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    into, out_of = process.stdin, process.stdout

    def talk(**asked: Any) -> Any:
        into.write(json.dumps(asked) + "\n")
        into.flush()
        return json.loads(out_of.readline())

    return talk


def contenders() -> Iterable[Contender]:
    """Ours first, then random search, then the others; Syne Tune's only where SYNE_PYTHON names a Python that has it."""
    yield Contender("ours, stopping", lambda *given: Ours(*given, "stopping"))
    yield Contender("ours, promotion", lambda *given: Ours(*given, "promotion"))
    yield Contender("random, no stopping", lambda table, _, seed: Ours(table, table.max_epochs, seed, "stopping", "random"))
    yield Contender("Tune: OptunaSearch + ASHA", RayTune)
    yield Contender("Optuna: TPE + halving", PlainOptuna, workers=1)
    if SYNE_PYTHON in os.environ:
        talk = syne_talk(os.environ[SYNE_PYTHON])
        yield Contender("Syne Tune: ASHA", lambda *given: SyneTune(*given, talk, "ASHA"))
        yield Contender("Syne Tune: BOHB", lambda *given: SyneTune(*given, talk, "BOHB"))
