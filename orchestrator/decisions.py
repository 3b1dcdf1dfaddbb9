"""The ledger's account of a search: what it is, what it decided and in which order."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from orchestrator.plan import Plan
from orchestrator.record import LedgerWriter, RowLog, plan_row
from orchestrator.search_spec import SearchSpec
from orchestrator.trial import Trial, canonical_json
from results.ledger import Ledger
from results.parts import write_part
from results.storage import StorageLike
from search_spaces.space import Value

__all__ = ["DecisionLog", "load_decisions", "next_sequence", "record_search", "suggested_trials", "with_suggested"]


def load_decisions(storage: StorageLike, sweep_id: str) -> list[dict[str, Any]]:
    """All rows of a search in the order in which it decided."""
    query = "SELECT * FROM decisions WHERE sweep_id = $sweep ORDER BY sequence"
    rows: list[dict[str, Any]] = Ledger(storage, must_exist=False).sql(query, {"sweep": sweep_id}).to_pylist()
    return rows


def next_sequence(storage: StorageLike, sweep_id: str) -> int:
    """The number of the search's next decision."""
    query = "SELECT coalesce(max(sequence) + 1, 0) AS next FROM decisions WHERE sweep_id = $sweep"
    return int(Ledger(storage, must_exist=False).sql(query, {"sweep": sweep_id}).to_pylist()[0]["next"])


def suggested_trials(spec: SearchSpec, rows: list[dict[str, Any]]) -> dict[int, Trial]:
    """The trials that were suggested so far, by number."""
    return {
        row["number"]: spec.trial_at(json.loads(row["parameters"]), row["number"]) for row in rows if row["kind"] == "suggested"
    }


def with_suggested(plan: Plan, storage: StorageLike) -> Plan:
    """The plan with all trials that are known now: a search adds to its own as it goes."""
    if plan.search is None:
        return plan
    suggested = suggested_trials(plan.search, load_decisions(storage, plan.sweep_id))
    return replace(plan, trials=tuple(suggested.values()))


def record_search(storage: StorageLike, sweep_id: str, spec: SearchSpec, created_at: datetime) -> None:
    """Writes what is searched and how."""
    settings = spec.settings
    row = {
        "sweep_id": sweep_id,
        "strategy": settings.strategy,
        "trainable": spec.base.trainable,
        "space": canonical_json(spec.space.to_json()),
        "settings": canonical_json(settings.model_dump(mode="json")),
        "objectives": list(settings.objectives),
        "rungs": settings.rungs,
        "max_epochs": settings.max_epochs,
        "max_trials": spec.num_trials,
        "created_at": created_at,
    }
    write_part(storage, "searches", sweep_id, [row])


class DecisionLog:
    """Appends to the account. A row is written before anything follows from it."""

    def __init__(self, writer: LedgerWriter, plan: Plan, run_id: str, now: Callable[[], datetime], sequence: int) -> None:
        """`sequence`: of the first row to come."""
        self._writer = writer
        self._plan = plan
        self._run_id = run_id
        self._now = now
        self._sequence = sequence
        self._log = RowLog(writer, "decisions", run_id)

    def add(self, kind: str, number: int, trial_key: str, **columns: Any) -> None:
        """Appends one decision."""
        row = {
            "sweep_id": self._plan.sweep_id,
            "sequence": self._sequence,
            "run_id": self._run_id,
            "happened_at": self._now(),
            "kind": kind,
            "number": number,
            "trial_key": trial_key,
        }
        self._sequence += 1
        self._log.append({**row, **columns})

    def suggest(self, number: int, trial: Trial, values: Mapping[str, Value], stage: str | None, parent: str | None) -> None:
        """Appends a suggestion, and plans its trial."""
        self.add("suggested", number, trial.key, parameters=json.dumps(dict(values)), stage=stage, parent_key=parent)
        self.plan_trial(number, trial)

    def plan_trial(self, number: int, trial: Trial) -> None:
        """Puts a suggested trial into `plans`."""
        row = plan_row(self._plan, trial, self._now())
        self._writer.write("plans", f"{self._plan.sweep_id}-{number:05d}", [row])
