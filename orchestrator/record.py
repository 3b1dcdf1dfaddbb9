"""Ledger rows: from trials, attempts, reports and events to parts.

A worker writes its own reports before it hands them on; one attempt has one part in each table, rewritten whole as it grows.
Only the driver writes plans, runs and events; whoever finds an attempt whose worker is gone closes its row.
"""

from __future__ import annotations

import hashlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.errors import StorageError
from orchestrator.patience import describe_trouble, patiently
from orchestrator.plan import Plan
from orchestrator.trial import Trial, canonical_json
from results.parts import attempt_part, write_part
from results.schema import TABLES
from results.storage import StorageLike
from trainables.contract import Report

__all__ = ["AttemptRecorder", "EventLog", "LedgerWriter", "RowLog", "RunLog", "close_attempt", "plan_row", "record_plan"]

T = TypeVar("T")

_REPORT_COLUMNS = {column.name for column in TABLES["reports"]}
_ROWS_PER_PART = 1000


def record_plan(storage: StorageLike, plan: Plan, planned_at: datetime) -> None:
    """Writes what the sweep is about to run, one row a trial."""
    rows = [plan_row(plan, trial, planned_at) for trial in plan.trials]
    write_part(storage, "plans", plan.sweep_id, rows)


def plan_row(plan: Plan, trial: Trial, planned_at: datetime) -> dict[str, Any]:
    """The row of `plans` that says what a trial is."""
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
        "domain_examples": [*config.mixture.counts, *[0] * (len(trial.data.domains) - len(config.mixture.counts))],
        "data_order": config.mixture.order,
        "mixture_size": config.mixture.size,
        "n_layers": model.get("n_layers"),
        "num_experts": model.get("num_experts"),
        "learning_rate": config.training.learning_rate,
        "dropout_placement": model.get("dropout_placement"),
        "moe_dropout": model.get("moe_dropout"),
        "epochs": config.training.epochs,
        "batch_size": config.training.batch_size,
        "stage": trial.stage,
        "parent_keys": list(trial.parent_keys),
    }


class LedgerWriter:
    """Writes parts, waiting while the storage is full or away; at last into a spool folder, so that no row is lost."""

    def __init__(self, storage: StorageLike, patience_seconds: float, say: Callable[[str], None]) -> None:
        self.storage = storage
        self._patience_seconds = patience_seconds
        self._say = say
        self._said = ""

    def write(self, table: str, part: str, rows: list[dict[str, Any]]) -> None:
        """Replaces a part.

        Raises:
            StorageError: the storage failed for too long; the rows are then in a folder that the message names.
        """
        try:
            self.patiently(lambda: write_part(self.storage, table, part, rows))
        except OSError as error:
            spool = (
                Path(tempfile.gettempdir()) / f"sweep-ledger-spool-{hashlib.sha256(str(self.storage).encode()).hexdigest()[:8]}"
            )
            write_part(spool, table, part, rows)
            raise StorageError(f"{error}; the rows are safe in {spool}: copy its ledger/ to {self.storage}") from error

    def try_to_write(self, table: str, part: str, rows: list[dict[str, Any]]) -> str:
        """Replaces a part; where the storage fails, leaves the former one and returns what is wrong."""
        try:
            patiently(lambda: write_part(self.storage, table, part, rows), self.storage, patience_seconds=0, say=self._say)
        except OSError as error:
            return describe_trouble(self.storage, error)
        return ""

    def patiently(self, write: Callable[[], T]) -> T:
        """The result of any write to the storage, called again until the storage takes it. Raises StorageError."""
        return patiently(write, self.storage, patience_seconds=self._patience_seconds, say=self._say_once)

    def give_up(self) -> None:
        """From now on writes are tried once: whoever asks has waited long enough."""
        self._patience_seconds = 0

    def _say_once(self, what: str) -> None:
        if what != self._said:
            self._said = what
            self._say(what)


class RowLog:
    """Rows that one run appends to a table of the driver's, in parts that roll over at a bound."""

    def __init__(self, writer: LedgerWriter, table: str, run_id: str) -> None:
        self._writer = writer
        self._table = table
        self._part_names = (f"{run_id}-{number:04d}" for number in itertools.count())
        self._part = next(self._part_names)
        self._rows: list[dict[str, Any]] = []

    def append(self, row: dict[str, Any]) -> None:
        """Appends one row and writes it. Raises StorageError."""
        if len(self._rows) == _ROWS_PER_PART:
            self._part, self._rows = next(self._part_names), []
        self._rows.append(row)
        self._writer.write(self._table, self._part, self._rows)


class EventLog:
    """The driver's append-only history of a sweep."""

    def __init__(
        self, writer: LedgerWriter, sweep_id: str, run_id: str, host: str, now: Callable[[], datetime], newest: datetime | None
    ) -> None:
        """`newest`: when the ledger's newest event happened; a clock that was set back must not make ours seem older."""
        self._log = RowLog(writer, "events", run_id)
        self._sweep_id = sweep_id
        self._host = host
        self._now = now
        self._newest = newest

    def add(self, trial_key: str, status: str, *, attempt: int | None = None, **details: str | None) -> None:
        """Appends one event and writes it; `details` are the columns reason, failure_class, error_type and error."""
        event = {"trial_key": trial_key, "attempt": attempt, "status": status, "happened_at": self._later(), **details}
        self._log.append({**event, "sweep_id": self._sweep_id, "host": self._host})

    def _later(self) -> datetime:
        """Now, or the instant after the newest event: the order of events is the order of their times."""
        now = self._now()
        if self._newest is not None and now <= self._newest:
            now = self._newest + timedelta(microseconds=1)
        self._newest = now
        return now


class RunLog:
    """The row of one driver's run, renewed as it goes on."""

    def __init__(self, writer: LedgerWriter, row: dict[str, Any], now: Callable[[], datetime]) -> None:
        self._writer = writer
        self._row = row
        self._now = now
        self._began = time.monotonic()

    @property
    def wall_seconds(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    def grow(self, slots: int) -> None:
        """On a cluster that grows, the row has the most slots there have been."""
        self._row["slots"] = max(self._row["slots"], slots)

    def beat(self) -> str:
        """Says that the run goes on. A storage that fails now is no error but the answer: there will be another beat."""
        self._row |= {"updated_at": self._now(), "wall_seconds": self.wall_seconds}
        return self._writer.try_to_write("runs", self._row["run_id"], [self._row])

    def end(self, how: str) -> None:
        """Writes how the run ended."""
        self._row |= {"finished_at": self._now(), "ended": how}
        self.beat()


def close_attempt(
    writer: LedgerWriter, row: Mapping[str, Any], *, held: tuple[float, float] | None, **columns: Any
) -> dict[str, Any]:
    """Ends the row of an attempt whose worker is gone: it was lost, unless `columns` say more.

    `held`: for how many seconds it held its slot, and how many GPUs that has; None where nobody knows.
    """
    closed = {**row, "status": "lost", "failure_class": "lost", **columns}
    if held is not None:
        seconds, gpus = held
        closed["train_seconds"] = max(row["train_seconds"] or 0.0, seconds - (row["startup_seconds"] or 0.0))
        closed["gpu_seconds"] = max(row["gpu_seconds"] or 0.0, seconds * gpus)
    writer.write("attempts", attempt_part(row["trial_key"], row["attempt"]), [closed])
    return closed


class AttemptRecorder:
    """The rows of one attempt at a trial. Creating it claims the attempt: its row appears in `attempts`."""

    def __init__(self, writer: LedgerWriter, attempt_row: dict[str, Any]) -> None:
        self._writer = writer
        self._attempt_row = attempt_row
        self._ids = {name: attempt_row[name] for name in ("trial_key", "attempt")}
        self._part = attempt_part(attempt_row["trial_key"], attempt_row["attempt"])
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self.update_attempt()

    def update_attempt(self, **columns: Any) -> None:
        """Sets columns of the attempt's own row. Raises StorageError."""
        self._attempt_row.update(columns)
        self._writer.write("attempts", self._part, [self._attempt_row])

    def add(self, report: Report, wall_seconds: float) -> None:
        """Records one report in all tables that it has rows for. Raises StorageError.

        `reports` comes last: a search that finds a report there may never run the trial again.
        """
        ids = {**self._ids, "step": report.step}
        self._extend("evaluations", ({**ids, **asdict(evaluation)} for evaluation in report.evaluations))
        self._extend("routing", ({**ids, **asdict(load)} for load in report.expert_loads))
        self._extend("predictions", ({**self._ids, **asdict(prediction)} for prediction in report.predictions))
        self._extend("reports", [_report_row(report, ids, wall_seconds)])

    def _extend(self, table: str, rows: Iterable[dict[str, Any]]) -> None:
        new = list(rows)
        if new:
            self._rows.setdefault(table, []).extend(new)
            self._writer.write(table, self._part, self._rows[table])


def _report_row(report: Report, ids: dict[str, Any], wall_seconds: float) -> dict[str, Any]:
    columns = {name: value for name, value in report.metrics.items() if name in _REPORT_COLUMNS}
    extra = {name: value for name, value in report.metrics.items() if name not in _REPORT_COLUMNS and value is not None}
    measured = {"epoch": report.epoch, "samples_seen": report.samples_seen, "wall_seconds": wall_seconds, "extra": extra}
    return {**ids, **measured, **columns}
