"""One search of the ledger: its trials as its decisions tell them, its rungs, its best trial, its Pareto set."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from results.errors import QueryError
from results.ledger import Ledger
from results.naming import no_sweep, sweeps_line
from results.search_space import SearchSpace, Value, read_space

__all__ = ["OBJECTIVES", "Decision", "Losses", "Rung", "Search", "SearchTrial", "State", "load_search", "search_ids"]

OBJECTIVES = ("val_qa_loss", "train_seconds", "params_active")
"""What a search may minimise."""

State = Literal["completed", "stopped", "failed", "paused", "running"]

_SLACK = 1 - 1e-9  # an epoch that was summed up from steps may fall short of its rung by a rounding error


@dataclass(frozen=True)
class Decision:
    """One row of `decisions` on a trial."""

    sequence: int
    happened_at: datetime | None
    kind: str
    epoch: float | None
    value: float | None
    action: str | None
    rung: float | None
    reason: str | None


@dataclass(frozen=True)
class Losses:
    """One report of a trial, from whichever sweep trained it; losses in nats, None where not measured."""

    epoch: float
    train: float | None
    val: float | None


_STATES: dict[tuple[str, str | None], State] = {
    ("warm", None): "completed",
    ("judged", "stop"): "stopped",
    ("judged", "pause"): "paused",
    ("ended", "completed"): "completed",
    ("ended", "failed"): "failed",
}


@dataclass(frozen=True, kw_only=True)
class SearchTrial:
    """A trial as its search saw it; the same trial may have gone further in another sweep."""

    number: int
    """From 0 in the order of suggestion; below 0 for an earlier trial that the search was told of."""
    trial_key: str
    parameters: Mapping[str, Value]
    """By dotted name."""
    stage: str | None
    decisions: tuple[Decision, ...]
    reports: tuple[Losses, ...]
    n_layers: int | None
    learning_rate: float | None
    train_seconds: float | None
    params_active: int | None

    @property
    def state(self) -> State:
        """By the last decision on it."""
        last = self.decisions[-1]
        return _STATES.get((last.kind, last.action), "running")

    @property
    def curve(self) -> tuple[tuple[float, float | None], ...]:
        """Epoch and val_qa_loss of every judged report, None where it was not finite; of a trial never judged, its reports."""
        judged = {row.epoch: row.value for row in self.decisions if row.kind == "judged" and row.epoch is not None}
        return tuple(sorted((judged or {row.epoch: row.val for row in self.reports if row.val is not None}).items()))

    @property
    def epochs(self) -> float:
        """Epochs trained up to its last judged report."""
        return self.curve[-1][0] if self.curve else 0.0

    @property
    def value(self) -> float | None:
        """Its last val_qa_loss; None where there is none, or none that is finite."""
        last = self.decisions[-1]
        if last.value is not None:
            return last.value
        return self.curve[-1][1] if self.curve else None

    @property
    def rung(self) -> float | None:
        """The rung that it was stopped or paused at, in epochs."""
        return self.decisions[-1].rung if self.state in ("stopped", "paused") else None

    @property
    def reason(self) -> str | None:
        """Why it was stopped."""
        return self.decisions[-1].reason if self.state == "stopped" else None

    def objective(self, name: str) -> float | None:
        """What it reached in one of OBJECTIVES."""
        return self.value if name == "val_qa_loss" else {"train_seconds": self.train_seconds}.get(name, self.params_active)


@dataclass(frozen=True)
class Rung:
    """How many trials came to a rung, and how many went on from it."""

    epochs: float
    arrived: int
    went_on: int

    @property
    def described(self) -> str:
        """The rung in a few words."""
        return f"{self.went_on} of {self.arrived} went on after epoch {self.epochs:g}"


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search with all that it decided so far."""

    sweep_id: str
    strategy: str
    trainable: str
    space: SearchSpace
    settings: Mapping[str, Any]
    objectives: tuple[str, ...]
    rungs: tuple[float, ...]
    max_epochs: float
    trials: tuple[SearchTrial, ...]
    """By number."""
    warm: tuple[SearchTrial, ...]
    """Completed earlier trials that its sampler was told of, in that order."""
    known: tuple[str, ...] = ()
    """Every search of the ledger, the newest first, where none was asked for."""

    @property
    def described(self) -> list[str]:
        """A line on which search it is."""
        return [sweeps_line([self.sweep_id], len(self.trials), kind="searches", known=self.known)]

    @property
    def ranking(self) -> tuple[SearchTrial, ...]:
        """The best first: completed trials by loss, then those that came furthest, failed ones last."""
        return tuple(sorted(self.trials, key=_standing))

    @property
    def best(self) -> SearchTrial | None:
        """The completed trial of the lowest loss; where none is completed, the best of those that came furthest."""
        return next((trial for trial in self.ranking if trial.value is not None and trial.state != "failed"), None)

    @property
    def epochs_trained(self) -> float:
        """Epochs of all trials."""
        return sum(trial.epochs for trial in self.trials)

    @property
    def epochs_without_stopping(self) -> float:
        """What the same trials would have taken to the end; of failed and running ones what they took."""
        ended = ("completed", "stopped", "paused")
        return sum(max(self.max_epochs, trial.epochs) if trial.state in ended else trial.epochs for trial in self.trials)

    @property
    def rung_counts(self) -> tuple[Rung, ...]:
        """Each rung, the lowest first."""
        return tuple(self._rung(epochs) for epochs in self.rungs)

    @property
    def pareto(self) -> frozenset[int]:
        """Numbers of the completed trials that no other one beats in all objectives; none with a single objective."""
        if len(self.objectives) < 2:
            return frozenset()
        measured = {t.number: [t.objective(name) for name in self.objectives] for t in self.trials if t.state == "completed"}
        points = {number: [v for v in values if v is not None] for number, values in measured.items() if None not in values}
        return frozenset(n for n, point in points.items() if not any(_dominates(other, point) for other in points.values()))

    def _rung(self, epochs: float) -> Rung:
        arrived = [trial for trial in self.trials if trial.epochs >= epochs * _SLACK]
        held = [t for t in arrived if t.state in ("stopped", "paused") and (t.rung == epochs or t.epochs <= epochs / _SLACK)]
        return Rung(epochs, len(arrived), len(arrived) - len(held))


def search_ids(ledger: Ledger) -> list[str]:
    """The searches of the ledger, the newest first."""
    query = "SELECT sweep_id FROM searches GROUP BY sweep_id ORDER BY max(created_at) DESC NULLS LAST, sweep_id DESC"
    return [str(sweep_id) for sweep_id in ledger.sql(query).column(0).to_pylist()]


def load_search(ledger: Ledger, sweep_id: str | None = None) -> Search:
    """The search of that id; without one, the newest.

    Raises:
        QueryError: there is no such search, or it minimises what this version does not know.
    """
    known = search_ids(ledger)
    if not known:
        raise QueryError("no search in this ledger: run `python -m orchestrator.run search`, or name another with --storage")
    chosen = sweep_id or known[0]
    if chosen not in known:
        raise no_sweep("search", chosen, known)
    row = ledger.sql("SELECT * FROM searches WHERE sweep_id = $sweep", {"sweep": chosen}).to_pylist()[-1]
    unknown = [name for name in row["objectives"] or () if name not in OBJECTIVES]
    if unknown:
        allowed = ", ".join(OBJECTIVES)
        raise QueryError(f"objectives of {chosen} must be of {allowed}, got {unknown[0]!r}: upgrade the package")
    trials = _load_trials(ledger, chosen)
    planned = ledger.sql("SELECT max(epochs) AS epochs FROM plans WHERE sweep_id = $sweep", {"sweep": chosen}).to_pylist()
    return Search(
        sweep_id=chosen,
        strategy=row["strategy"] or "?",
        trainable=row["trainable"] or "?",
        space=read_space(json.loads(row["space"])),
        settings=json.loads(row["settings"] or "{}"),
        objectives=tuple(row["objectives"] or ("val_qa_loss",)),
        rungs=tuple(sorted(row["rungs"] or ())),
        max_epochs=row["max_epochs"] or planned[0]["epochs"] or 0,
        trials=tuple(trial for trial in trials if trial.number >= 0),
        warm=tuple(trial for trial in reversed(trials) if trial.number < 0),
        known=() if sweep_id else tuple(known),
    )


_DECISIONS = "SELECT * FROM decisions WHERE sweep_id = $sweep AND number IS NOT NULL ORDER BY sequence"
_KEYS = "(SELECT trial_key FROM decisions WHERE sweep_id = $sweep)"
_MEASURED = f"""
    SELECT trial_key, n_layers, learning_rate, train_seconds, params_active FROM trials WHERE trial_key IN {_KEYS}
"""
_REPORTS = f"""
    SELECT trial_key, epoch, train_qa_loss, val_qa_loss FROM reports
    WHERE trial_key IN {_KEYS} AND epoch IS NOT NULL ORDER BY trial_key, step
"""


def _load_trials(ledger: Ledger, sweep_id: str) -> list[SearchTrial]:
    sweep = {"sweep": sweep_id}
    by_number: dict[int, list[dict[str, Any]]] = {}
    for row in ledger.sql(_DECISIONS, sweep).to_pylist():
        by_number.setdefault(row["number"], []).append(row)
    measured = {row["trial_key"]: row for row in ledger.sql(_MEASURED, sweep).to_pylist()}
    reports: dict[str, list[Losses]] = {}
    for row in ledger.sql(_REPORTS, sweep).to_pylist():
        losses = Losses(row["epoch"], _finite(row["train_qa_loss"]), _finite(row["val_qa_loss"]))
        reports.setdefault(row["trial_key"], []).append(losses)
    return [_trial(number, rows, measured, reports) for number, rows in sorted(by_number.items())]


def _trial(
    number: int, rows: Sequence[dict[str, Any]], measured: Mapping[str, dict[str, Any]], reports: Mapping[str, list[Losses]]
) -> SearchTrial:
    # A trial without its first row lost a part: what is left of it is shown all the same.
    first = next((row for row in reversed(rows) if row["parameters"]), rows[0])
    key = first["trial_key"] or "?"
    known = measured.get(key, {})
    names = ("sequence", "happened_at", "kind", "epoch", "value", "action", "rung", "reason")
    return SearchTrial(
        number=number,
        trial_key=key,
        parameters=json.loads(first["parameters"] or "{}"),
        stage=first["stage"],
        decisions=tuple(Decision(**{name: row[name] for name in names}) for row in rows),
        reports=tuple(reports.get(key, ())),
        **{name: known.get(name) for name in ("n_layers", "learning_rate", "train_seconds", "params_active")},
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _standing(trial: SearchTrial) -> tuple[int, float, float, int]:
    loss = math.inf if trial.value is None else trial.value
    if trial.state == "completed":
        return 0, 0.0, loss, trial.number
    return (2 if trial.state == "failed" else 1), -trial.epochs, loss, trial.number


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return list(one) != list(other) and all(mine <= its for mine, its in zip(one, other, strict=True))
