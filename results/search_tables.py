"""A search as a table, the best trial first, and in a line: its best, the epochs it saved, where it stopped trials."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa

from results.search import Search, SearchTrial
from results.search_space import Value

__all__ = ["search_summary", "search_table"]


def search_table(search: Search, limit: int | None = None) -> pa.Table:
    """One row per trial, in the order of `Search.ranking`, at most `limit`; with two objectives both, and the Pareto set."""
    trials = search.ranking[:limit]
    pareto = search.pareto
    columns: dict[str, pa.Array] = {
        "number": pa.array([trial.number for trial in trials], pa.int64()),
        "trial_key": pa.array([trial.trial_key for trial in trials], pa.string()),
        "state": pa.array([trial.state for trial in trials], pa.string()),
        "epochs": pa.array([trial.epochs for trial in trials], pa.float64()),
        "val_qa_loss": pa.array([trial.value for trial in trials], pa.float64()),
    }
    for name in search.objectives[1:]:
        columns[name] = pa.array([trial.objective(name) for trial in trials], pa.float64())
    if len(search.objectives) > 1:
        columns["pareto"] = pa.array(["yes" if trial.number in pareto else "" for trial in trials], pa.string())
    if any(trial.stage for trial in trials):
        columns["stage"] = pa.array([trial.stage for trial in trials], pa.string())
    for name in search.space.dimensions:
        columns[name] = _parameter(trials, name)
    columns["rung"] = pa.array([trial.rung for trial in trials], pa.float64())
    return pa.table(columns)


def search_summary(search: Search) -> str:
    """The search in a line."""
    parts = [_best(search), _epochs(search)]
    parts += [rung.described for rung in search.rung_counts]
    parts += [f"its sampler was told of {len(search.warm)} earlier trials"] if search.warm else []
    return f"{search.sweep_id}: {'; '.join(parts)}"


def _best(search: Search) -> str:
    if search.best is None:
        return "no trial has a loss yet"
    state = "" if search.best.state == "completed" else f" ({search.best.state})"
    return f"best is trial {search.best.number} ({search.best.trial_key}){state} with val_qa_loss {search.best.value:.4f}"


def _epochs(search: Search) -> str:
    full = search.epochs_without_stopping
    share = f" ({search.epochs_trained / full:.0%})" if full else ""
    return f"{search.epochs_trained:g} epochs trained of {full:g} without stopping{share}"


def _parameter(trials: Sequence[SearchTrial], name: str) -> pa.Array:
    """A column of numbers where all values are, else of text; null where the dimension does not apply."""
    values = [trial.parameters.get(name) for trial in trials]
    kinds = {type(value) for value in values if value is not None}
    if kinds and kinds <= {int, float}:
        return pa.array(values, pa.int64() if kinds == {int} else pa.float64())
    return pa.array([_text(value) for value in values], pa.string())


def _text(value: Value) -> str | None:
    return value if isinstance(value, str) or value is None else json.dumps(value)
