"""Ledger rows: from trials, attempts, reports and events to parts.

A worker writes its own reports before it hands them on; one attempt has one part in each table, rewritten whole as it grows.
Only the driver writes plans and events.
"""

from __future__ import annotations

import itertools
import logging
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestrator.plan import Plan
from orchestrator.trial import Trial, canonical_json
from results.parts import attempt_part, write_part
from results.schema import TABLES
from trainables.contract import Report

__all__ = ["AttemptRecorder", "EventLog", "record_plan"]

_log = logging.getLogger(__name__)
_REPORT_COLUMNS = {column.name for column in TABLES["reports"]}
_EVENTS_PER_PART = 1000


def record_plan(storage: Path, plan: Plan, planned_at: datetime) -> None:
    """Writes what the sweep is about to run, one row a trial."""
    rows = [_plan_row(plan, trial, planned_at) for trial in plan.trials]
    write_part(storage, "plans", plan.sweep_id, rows)


def _plan_row(plan: Plan, trial: Trial, planned_at: datetime) -> dict[str, Any]:
    config = trial.config
    model = config.model.model_dump(mode="json")
    return {
        "trial_key": trial.key,
        "sweep_id": plan.sweep_id,
        "sweep_kind": plan.kind,
        "preset": plan.preset.name,
        "planned_at": planned_at,
        "trainable": trial.label,
        "trainable_version": trial.version,
        "architecture": trial.trainable,
        "variant": trial.variant,
        "seed": trial.seed,
        "config": canonical_json(config.resolved()),
        "data": canonical_json(trial.data.model_dump(mode="json")),
        "data_fingerprint": trial.data_fingerprint,
        "domains": list(trial.data.domains),
        "squad_share": config.mixture.share,
        "data_order": config.mixture.order,
        "mixture_size": config.mixture.size,
        "n_layers": model.get("n_layers"),
        "num_experts": model.get("num_experts"),
        "learning_rate": config.training.learning_rate,
        "dropout_placement": model.get("dropout_placement"),
        "moe_dropout": model.get("moe_dropout"),
        "epochs": config.training.epochs,
        "batch_size": config.training.batch_size,
        "stage": 2 if trial.parents else 1,
        "parent_keys": list(trial.parents),
    }


class EventLog:
    """The driver's append-only history of a sweep, in parts that roll over at a bound."""

    def __init__(self, storage: Path, sweep_id: str, driver_id: str, host: str, now: Callable[[], datetime]) -> None:
        self._storage = storage
        self._sweep_id = sweep_id
        self._host = host
        self._now = now
        self._part_names = (f"{sweep_id}-{driver_id}-{number:04d}" for number in itertools.count())
        self._part = next(self._part_names)
        self._rows: list[dict[str, Any]] = []

    def add(self, trial_key: str, status: str, *, attempt: int | None = None, **details: str | None) -> None:
        """Appends one event and writes it; `details` are the columns reason, error_type and error."""
        if len(self._rows) == _EVENTS_PER_PART:
            self._part, self._rows = next(self._part_names), []
        event = {"trial_key": trial_key, "attempt": attempt, "status": status, "happened_at": self._now(), **details}
        self._rows.append({**event, "sweep_id": self._sweep_id, "host": self._host})
        _write_patiently(self._storage, "events", self._part, self._rows)


class AttemptRecorder:
    """The rows of one attempt at a trial. Creating it claims the attempt: its row appears in `attempts`."""

    def __init__(self, storage: Path, attempt_row: dict[str, Any]) -> None:
        self._storage = storage
        self._attempt_row = attempt_row
        self._ids = {name: attempt_row[name] for name in ("trial_key", "attempt")}
        self._part = attempt_part(attempt_row["trial_key"], attempt_row["attempt"])
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._unwritten: set[str] = set()
        self.update_attempt()

    def update_attempt(self, **columns: Any) -> None:
        """Sets columns of the attempt's own row."""
        self._attempt_row.update(columns)
        self._rows["attempts"] = [self._attempt_row]
        self._write(["attempts"])

    def add(self, report: Report, wall_seconds: float) -> None:
        """Records one report in all tables that it has rows for."""
        ids = {**self._ids, "step": report.step}
        self._extend("reports", [_report_row(report, ids, wall_seconds)])
        self._extend("evaluations", ({**ids, **asdict(evaluation)} for evaluation in report.evaluations))
        self._extend("routing", ({**ids, **asdict(load)} for load in report.expert_loads))
        self._extend("predictions", ({**self._ids, **asdict(prediction)} for prediction in report.predictions))
        self._write(["reports", "evaluations", "routing", "predictions"])

    def finish(self, **columns: Any) -> None:
        """Makes sure that every row is written, then sets the attempt's last columns.

        Raises:
            OSError: the storage still fails; all rows are then in a spool folder that the message names.
        """
        for table in sorted(self._unwritten):
            _write_patiently(self._storage, table, self._part, self._rows[table])
        self._unwritten.clear()
        self._attempt_row.update(columns)
        _write_patiently(self._storage, "attempts", self._part, [self._attempt_row])

    def _extend(self, table: str, rows: Iterable[dict[str, Any]]) -> None:
        new = list(rows)
        if new:
            self._rows.setdefault(table, []).extend(new)
            self._unwritten.add(table)

    def _write(self, tables: list[str]) -> None:
        """A part that cannot be written now is written with the next report: it holds all rows so far."""
        for table in tables:
            if table == "attempts" or table in self._unwritten:
                try:
                    write_part(self._storage, table, self._part, self._rows[table])
                    self._unwritten.discard(table)
                except OSError as error:
                    self._unwritten.add(table)
                    _log.warning("could not write %s of %s, will try again: %s", table, self._part, error)


def _report_row(report: Report, ids: dict[str, Any], wall_seconds: float) -> dict[str, Any]:
    columns = {name: value for name, value in report.metrics.items() if name in _REPORT_COLUMNS}
    extra = {name: value for name, value in report.metrics.items() if name not in _REPORT_COLUMNS and value is not None}
    measured = {"epoch": report.epoch, "samples_seen": report.samples_seen, "wall_seconds": wall_seconds, "extra": extra}
    return {**ids, **measured, **columns}


def _write_patiently(
    storage: Path, table: str, part: str, rows: list[dict[str, Any]], pauses: tuple[float, ...] = (0.1, 1, 5)
) -> None:
    """Writes a part, trying again after each pause; at last into a spool folder, so that no row is lost."""
    for pause in pauses:
        try:
            write_part(storage, table, part, rows)
            return
        except OSError as error:
            _log.warning("could not write %s/%s, trying again in %s s: %s", table, part, pause, error)
            time.sleep(pause)
    try:
        write_part(storage, table, part, rows)
    except OSError as error:
        spool = Path(tempfile.gettempdir()) / "sweep-ledger-spool"
        write_part(spool, table, part, rows)
        raise OSError(f"{storage} cannot be written ({error}); the rows are safe in {spool}: copy its ledger/ there") from error
