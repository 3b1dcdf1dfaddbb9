"""The settings of a grid's trials by dotted name, and pairs of trials that differ in stated settings alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from results.grid import Grid, GridTrial
from results.ledger import Ledger

__all__ = ["PARENTS_EPOCHS", "Settings", "TrialSettings"]

Settings = Mapping[str, Any]
"""By dotted name, `architecture` among them."""

PARENTS_EPOCHS = "parents.epochs"
"""Of what the trial begins from, the most; None where it begins from nothing."""

_WHERE_ABSENT: Settings = {
    "model.reinit_k": 0,
    "model.start_from": "base",
    "model.gate_data": "mixture",
    "model.expert_epochs": None,
    "training.select": "last",
}
"""What a recorded configuration that lacks the setting was trained with (`trainables.config.ADDED_LATER`)."""


class TrialSettings:
    """The settings of every completed trial of a grid, and `PARENTS_EPOCHS`."""

    def __init__(self, ledger: Ledger, grid: Grid) -> None:
        done = {trial.trial_key: trial for trial in grid.trials if trial.em}
        rows = ledger.sql(_CONFIGS, {"keys": list(done)}).to_pylist() if done else []
        parents = sorted({key for row in rows for key in row["parent_keys"] or ()})
        epochs = (
            {row["trial_key"]: row["epochs"] for row in ledger.sql(_EPOCHS, {"keys": parents}).to_pylist()} if parents else {}
        )
        self._found = [
            (
                done[row["trial_key"]],
                {
                    "architecture": row["architecture"],
                    PARENTS_EPOCHS: max((epochs.get(key) or 0 for key in row["parent_keys"] or ()), default=None),
                    **_flat(json.loads(row["config"])),
                },
            )
            for row in sorted(rows, key=lambda row: str(row["trial_key"]))
        ]

    def matching(self, wanted: Settings) -> Iterator[tuple[GridTrial, Settings]]:
        """Trials that have all of these settings; a set holds alternatives."""
        for trial, settings in self._found:
            if all(_has(settings, name, value) for name, value in wanted.items()):
                yield trial, settings

    def pairs(self, base: Settings, other: Settings, where: Settings) -> list[tuple[GridTrial, GridTrial]]:
        """Trials with the settings of `base` and of `other` on the same mixture with the same seed, both as `where` says.

        Two of one architecture are equal in every setting that `base` and `other` do not name, two of different ones in the
        mixture's and in which weights were taken.
        """
        named = {*base, *other}
        others = list(self.matching({**where, **other}))
        return [
            (first, second)
            for first, left in self.matching({**where, **base})
            for second, right in others
            if (first.share, first.order, first.seed) == (second.share, second.order, second.seed)
            and _is_fair(left, right, named)
        ]

    def values(self, name: str, where: Settings) -> list[Any]:
        """What that setting was given, each value once, ascending; None, where nothing was, is left out."""
        found = {_value(settings, name) for _, settings in self.matching(where)}
        return sorted(value for value in found if value is not None)


_CONFIGS = """
    SELECT trial_key, any_value(architecture) AS architecture, any_value(config) AS config,
           any_value(parent_keys) AS parent_keys
    FROM plans WHERE trial_key IN (SELECT unnest($keys::VARCHAR[])) GROUP BY trial_key
"""

_EPOCHS = "SELECT trial_key, any_value(epochs) AS epochs FROM plans WHERE list_contains($keys, trial_key) GROUP BY trial_key"


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _value(settings: Settings, name: str) -> Any:
    return settings.get(name, _WHERE_ABSENT.get(name))


def _has(settings: Settings, name: str, wanted: Any) -> bool:
    value = _value(settings, name)
    return value in wanted if isinstance(wanted, frozenset) else bool(value == wanted)


def _is_fair(left: Settings, right: Settings, named: set[str]) -> bool:
    if left["architecture"] != right["architecture"]:
        return bool(_value(left, "training.select") == _value(right, "training.select"))
    return _without(left, named) == _without(right, named)


def _without(settings: Settings, named: set[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in named}
