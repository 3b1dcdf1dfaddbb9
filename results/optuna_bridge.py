"""A search in Optuna's terms: a study for optuna-dashboard, and the importances of its parameters.

Optuna is imported when it is needed: nothing else here needs it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from datetime import UTC, datetime
from types import ModuleType
from typing import TYPE_CHECKING, Any

from results.errors import LedgerError, OptunaMissingError
from results.search import Search, SearchTrial
from results.search_space import Dimension, Value

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

__all__ = ["export_study", "importances"]

_STATES = {"completed": "COMPLETE", "stopped": "PRUNED", "paused": "PRUNED", "failed": "FAIL", "running": "RUNNING"}
"""A paused trial that waits for its promotion is no running one to a dashboard."""

_LEAST_TRIALS = 4
_UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=UTC)


def export_study(search: Search, storage_url: str) -> int:
    """Writes the search as a study named by its sweep id; returns how many trials it has.

    A trial's attributes say its number and key. Steps are whole numbers to Optuna: the study's attribute
    `steps_per_fidelity` says how many make an epoch. A trial that was stopped in a search of two objectives has no values.

    Raises:
        LedgerError: Optuna is not installed, the storage cannot be written, or it has a study of that name.
    """
    optuna = _optuna()
    from sqlalchemy.exc import SQLAlchemyError

    chosen = (*search.warm, *search.trials)
    per_epoch = _steps_per_epoch(epoch for trial in chosen for epoch, _ in trial.curve)
    trials = [_frozen(optuna, search, trial, per_epoch) for trial in chosen]
    try:
        storage = optuna.storages.RDBStorage(storage_url)
        try:
            directions = ["minimize"] * len(search.objectives)
            study = optuna.create_study(study_name=search.sweep_id, storage=storage, directions=directions)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names(list(search.objectives))
            attributes = {"space": search.space.name, "settings": dict(search.settings), "steps_per_fidelity": per_epoch}
            for name, value in attributes.items():
                study.set_user_attr(name, value)
            study.add_trials(trials)
        finally:
            storage.remove_session()
            storage.engine.dispose()
    except optuna.exceptions.DuplicatedStudyError as error:
        raise LedgerError(f"{storage_url} has a study {search.sweep_id!r} already: name another file, or delete it") from error
    except (optuna.exceptions.OptunaError, SQLAlchemyError, ImportError) as error:
        raise LedgerError(f"cannot write a study to {storage_url!r}: {error}; give a URL such as sqlite:///study.db") from error
    return len(trials)


def importances(search: Search) -> dict[str, float]:
    """What share each dimension has in coming out among the best trials, the largest first; none of fewer than 4 trials.

    PED-ANOVA looks at the order of the trials alone, so that trials which were stopped count by `Search.ranking`: the
    further they came the better.

    Raises:
        OptunaMissingError: Optuna is not installed.
    """
    optuna = _optuna()
    ranked = [trial for trial in search.ranking if trial.state not in ("failed", "running")]
    if len(ranked) < _LEAST_TRIALS:
        return {}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for rank, trial in enumerate(ranked):
        parameters, distributions = _point(optuna, search, trial)
        study.add_trial(optuna.trial.create_trial(params=parameters, distributions=distributions, value=float(rank)))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {str(name): float(share) for name, share in found.items()}


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError as error:
        raise OptunaMissingError("Optuna") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _frozen(optuna: Any, search: Search, trial: SearchTrial, per_epoch: int) -> FrozenTrial:
    state = optuna.trial.TrialState[_STATES[trial.state]]
    values = _values(search, trial)
    if trial.state == "completed" and values is None:
        state = optuna.trial.TrialState.FAIL  # to Optuna a trial without a value is not complete
    parameters, distributions = _point(optuna, search, trial)
    times = [_local(row.happened_at) for row in trial.decisions]
    attributes = {"number": trial.number, "trial_key": trial.trial_key, "state": trial.state, "stage": trial.stage}
    frozen: FrozenTrial = optuna.trial.FrozenTrial(
        number=0,  # the storage gives the next one
        trial_id=0,
        state=state,
        value=None,
        values=values,
        datetime_start=times[0],
        datetime_complete=times[-1] if state.is_finished() else None,
        params=parameters,
        distributions=distributions,
        user_attrs={name: value for name, value in attributes.items() if value is not None},
        system_attrs={},
        intermediate_values={round(epoch * per_epoch): value for epoch, value in trial.curve if value is not None},
    )
    return frozen


def _values(search: Search, trial: SearchTrial) -> list[float] | None:
    """A stopped trial is worth its last loss, but only where that is all that counts."""
    if trial.state == "completed" or (trial.state in ("stopped", "paused") and len(search.objectives) == 1):
        values = [trial.objective(name) for name in search.objectives]
        return None if None in values else [float(value) for value in values if value is not None]
    return None


def _point(optuna: Any, search: Search, trial: SearchTrial) -> tuple[dict[str, Value], dict[str, BaseDistribution]]:
    """The trial's parameters that are dimensions of the space, and their distributions."""
    parameters = {name: trial.parameters[name] for name in search.space.dimensions if name in trial.parameters}
    distributions = {name: _distribution(optuna, search.space.dimensions[name]) for name in parameters}
    return parameters, distributions


def _distribution(optuna: Any, dimension: Dimension) -> BaseDistribution:
    found: BaseDistribution
    if dimension.kind == "float":
        found = optuna.distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.log)
    elif dimension.kind == "int":
        low, high = int(dimension.low), int(dimension.high)
        found = optuna.distributions.IntDistribution(low, high, log=dimension.log, step=dimension.step)
    else:
        found = optuna.distributions.CategoricalDistribution(dimension.values)
    return found


def _steps_per_epoch(epochs: Iterable[float]) -> int:
    """The fewest steps that make every epoch a whole number of them, to a millionth."""
    given = set(epochs)
    exact = (steps for steps in range(1, 1001) if all(abs(epoch * steps - round(epoch * steps)) < 1e-6 for epoch in given))
    return next(exact, 1_000_000)


def _local(at: datetime | None) -> datetime:
    """Optuna's times are local ones without a zone."""
    return (at or _UNKNOWN_TIME).astimezone().replace(tzinfo=None)
