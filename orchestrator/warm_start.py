"""Completed trials of the ledger that a new search can learn from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orchestrator.errors import PlanError
from orchestrator.search_spec import SearchSpec
from orchestrator.study import Told
from results.ledger import Ledger
from results.storage import StorageLike
from search_spaces.space import Space, Value

__all__ = ["fitting_trials", "warm"]

_COMPLETED = """
    SELECT trial_key, any_value(config) AS config, arg_max(val_qa_loss, step) AS loss,
           CAST(any_value(epochs) AS DOUBLE) AS epochs,
           any_value(train_seconds) AS train_seconds, any_value(params_active) AS params_active
    FROM trials JOIN reports USING (trial_key)
    WHERE status = 'completed' AND epochs <= $epochs AND architecture = $trainable AND seed = $seed AND val_qa_loss IS NOT NULL
      AND trial_key IN (SELECT trial_key FROM plans WHERE data_fingerprint = $data AND trainable_version = $version)
    GROUP BY trial_key ORDER BY trial_key
"""

_MAY_DIFFER = (("training", "epochs"), ("evaluation", "reports_per_epoch"), ("evaluation", "validate_at"))
"""Settings that a search sets for its own purposes."""


def fitting_trials(spec: SearchSpec, storage: StorageLike) -> list[tuple[str, Told]]:
    """Key and outcome of each completed trial on the same data and seed that is a point of the search's space.

    Its settings outside the space must be the search's own, but for how often it was validated and fewer epochs.
    """
    assert isinstance(spec.space, Space)
    base = spec.base
    wanted = {
        "trainable": base.trainable,
        "version": base.version,
        "seed": base.seed,
        "data": base.data_fingerprint,
        "epochs": spec.settings.max_epochs,
    }
    found = []
    for row in Ledger(storage, must_exist=False).sql(_COMPLETED, wanted).to_pylist():
        values = _point(spec, json.loads(row["config"]))
        if values is not None:
            told = warm(values, row["epochs"], row["loss"], spec.settings.max_epochs)
            second = [float(row[name]) for name in spec.settings.objectives[1:]]
            found.append((row["trial_key"], replace(told, second=second[0] if second else None)))
    return found


def warm(values: Mapping[str, Value], epochs: float, loss: float, max_epochs: int) -> Told:
    """An earlier trial as the sampler is told of it: of fewer epochs than the search's, as one that was stopped then."""
    return Told(0, values, "completed" if epochs == max_epochs else "stopped", {epochs: loss}, loss)


def _point(spec: SearchSpec, config: dict[str, Any]) -> Mapping[str, Value] | None:
    """The point of the space that the configuration is at; None where it is not at any."""
    assert isinstance(spec.space, Space)
    flat = {f"{section}.{name}": value for section, settings in config.items() for name, value in settings.items()}
    given: dict[str, Value] = {}
    for name in spec.space.dimensions:
        if name in spec.space.active(given) and name in flat:
            given[name] = flat[name]
    try:
        values = spec.space.complete(given)
        theirs = spec.trial_at(values, 0).config.resolved()
    except (ValueError, PlanError):
        return None
    return values if _comparable(theirs) == _comparable(config) else None


def _comparable(config: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], Any]:
    return {
        (section, name): value
        for section, settings in config.items()
        for name, value in settings.items()
        if (section, name) not in _MAY_DIFFER
    }
