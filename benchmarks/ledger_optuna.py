"""Optuna with its SQLite store and with its journal file, through `optuna.study`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ledger_contender import Answers, Append, Rows, TrialRecord, trial_records
from ledger_data import STEPS_PER_EPOCH, Asked, Tables
from ledger_means import count_by, hour, mean_by, sum_by

__all__ = ["Optuna"]


class Optuna:
    """A trial's reports are its intermediate values, one number a step: the validation loss, and no other metric."""

    packages = (("optuna", "optuna"), ("sqlalchemy", "sqlalchemy"))
    imports = ("optuna.storages._rdb.storage",)
    append_imports = imports

    def __init__(self, store: Literal["SQLite", "journal"]) -> None:
        self.name = f"Optuna {store}"
        self._store = store

    def load(self, place: Path, sweeps: Iterable[Tables]) -> None:
        """`add_trial` with everything, which is one transaction or one line for each trial."""
        study = self._study(place, "benchmark")
        for tables in sweeps:
            study.add_trials(_frozen(trial) for trial in trial_records(tables))

    def open(self, place: Path, asked: Asked) -> Answers:
        asking = _Asking(self._study(place, "benchmark"), asked)
        names = ("status", "best", "curve", "mean curve", "scores", "finished", "GPU-hours", "failures", "experts")
        return {name: getattr(asking, name.replace(" ", "_").replace("-", "_").lower()) for name in names}

    def appender(self, place: Path, writer: int) -> Append:
        trial = self._study(place, "append").ask()
        return lambda step: trial.report(1.0 / (1 + step), step)

    def _study(self, place: Path, name: str) -> Any:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        place.mkdir(parents=True, exist_ok=True)
        journal = self._store == "journal"
        storage = JournalStorage(JournalFileBackend(f"{place}/journal.log")) if journal else f"sqlite:///{place}/optuna.db"
        return optuna.create_study(storage=storage, study_name=name, load_if_exists=True)


class _Asking:
    """One method a question."""

    def __init__(self, study: Any, asked: Asked) -> None:
        self._study = study
        self._asked = asked

    def status(self) -> Rows:
        return count_by(trial.user_attrs["status"] for trial in self._trials())

    def best(self) -> Rows:
        found = [(min(t.intermediate_values.values()), t) for t in self._trials()]
        found.sort(key=lambda pair: pair[0])
        return [(t.user_attrs["trial_key"], t.params["architecture"], t.params["share"], loss) for loss, t in found[:10]]

    def curve(self) -> Rows:
        return sorted(self._trial().intermediate_values.items())

    def mean_curve(self) -> Rows:
        values = defaultdict(list)
        for trial in self._trials():
            for step, loss in trial.intermediate_values.items():
                values[trial.params["architecture"], float(-(-step // STEPS_PER_EPOCH))].append(loss)
        return mean_by(values)

    def scores(self) -> Rows:
        values = defaultdict(list)
        for trial in self._trials():
            for domain, em in trial.user_attrs["scores"].items():
                values[trial.params["architecture"], trial.params["share"], trial.params["order"], domain].append(em)
        return mean_by(values)

    def finished(self) -> Rows:
        done = (trial for trial in self._trials() if trial.user_attrs["status"] == "completed")
        return count_by(hour(trial.datetime_complete.timestamp()) for trial in done)

    def gpu_hours(self) -> Rows:
        return sum_by((t.user_attrs["status"], t.user_attrs["gpu_seconds"] / 3600) for t in self._trials())

    def failures(self) -> Rows:
        failed = (trial for trial in self._trials() if trial.user_attrs["status"] == "failed")
        return count_by(trial.user_attrs["error_signature"] for trial in failed)

    def experts(self) -> Rows:
        return [tuple(row) for row in self._trial().user_attrs["load"]]

    def _trials(self) -> list[Any]:
        found: list[Any] = self._study.get_trials(deepcopy=False)
        return found

    def _trial(self) -> Any:
        """Optuna finds trials by number alone."""
        return next(trial for trial in self._trials() if trial.user_attrs["trial_key"] == self._asked.trial)


def _frozen(trial: TrialRecord) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    from optuna.trial import FrozenTrial, TrialState

    states = {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "running": TrialState.RUNNING}
    state = states.get(trial.status, TrialState.FAIL)
    values = dict(zip(trial.reports["step"].to_pylist(), trial.reports["val_qa_loss"].to_pylist(), strict=True))
    choices = {
        "architecture": CategoricalDistribution(["distilbert", "exbert"]),
        "share": CategoricalDistribution([0, 20, 40, 60, 80, 100]),
        "order": CategoricalDistribution(["concatenated", "shuffled"]),
        "learning_rate": FloatDistribution(1e-6, 1e-3, log=True),
    }
    attrs = {name: getattr(trial, name) for name in ("status", "gpu_seconds", "error_signature", "scores", "seed")}
    load = sorted((domain, expert, share) for (domain, expert), share in trial.load.items())
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=state,
        value=min(values.values()) if state == TrialState.COMPLETE else None,
        datetime_start=_local(trial.started),
        datetime_complete=None if state == TrialState.RUNNING or trial.finished is None else _local(trial.finished),
        params={name: getattr(trial, name) for name in choices},
        distributions=choices,
        user_attrs={"trial_key": trial.key, "load": load, **attrs},
        system_attrs={},
        intermediate_values=values,
    )


def _local(moment: datetime) -> datetime:
    """With a time zone of the standard library, which a deep copy keeps."""
    return moment.astimezone(UTC)
