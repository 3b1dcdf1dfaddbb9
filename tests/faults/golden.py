"""The ledger of a sweep that nobody disturbed, and what another ledger of the same sweep has that differs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.ledger import Ledger

__all__ = ["Golden", "litter"]

TABLES = ("reports", "evaluations", "predictions", "routing", "decisions")
NOT_MEASURED = ("attempt", "wall_seconds", "run_id", "happened_at")
"""Columns that tell of the way to a result instead of the result."""

Rows = dict[str, Counter[str]]


@dataclass(frozen=True)
class Golden:
    """Every measured row of the undisturbed sweep, by table, and how its trials ended."""

    rows: Rows
    statuses: dict[str, str]

    @classmethod
    def of(cls, storage: Path) -> Golden:
        """The rows in `storage`; refuses a ledger that proves nothing."""
        golden = cls(_measured(storage), _statuses(storage))
        empty = [table for table, rows in golden.rows.items() if not rows and table != "decisions"]
        unfinished = {key: status for key, status in golden.statuses.items() if status not in ("completed", "stopped")}
        if empty or unfinished:
            raise ValueError(f"a golden ledger has rows in every table and only ended trials: {empty=}, {unfinished=}")
        return golden

    @property
    def num_trials(self) -> int:
        """Trials of the sweep."""
        return len(self.statuses)

    def differences_of_part(self, storage: Path) -> list[str]:
        """What an interrupted ledger says that the undisturbed one does not; it may say less, never anything else."""
        if not (storage / "ledger").is_dir():
            return []
        found = _measured(storage)
        return [f"{table}: {row}" for table in TABLES for row in found[table] - self.rows[table]]

    def differences(self, storage: Path) -> list[str]:
        """What is missing in a finished ledger, too much, or ended otherwise; a trial completes once."""
        found, statuses = _measured(storage), _statuses(storage)
        differences = [f"{table}: too much: {row}" for table in TABLES for row in found[table] - self.rows[table]]
        differences += [f"{table}: missing: {row}" for table in TABLES for row in self.rows[table] - found[table]]
        for key in self.statuses | statuses:
            if self.statuses.get(key) != statuses.get(key):
                differences.append(f"trials: {key} is {statuses.get(key)}, not {self.statuses.get(key)}")
        for key, times in _completions(storage):
            if times != (statuses[key] == "completed"):
                differences.append(f"attempts: {key} was completed {times} times")
        return differences + [f"attempts: {key}-{attempt} is running" for key, attempt in _still_running(storage)]


def litter(storage: Path) -> list[str]:
    """What a finished sweep does not need: temporaries, leases, checkpoints beside final weights."""
    unneeded = ("*.tmp", "*.lease.*", "step-*.safetensors", ".*.building*")
    return sorted({str(path.relative_to(storage)) for pattern in unneeded for path in storage.rglob(pattern)})


def _measured(storage: Path) -> Rows:
    ledger = Ledger(storage, must_exist=False)
    return {table: _counted(ledger.sql(f"SELECT * FROM {table}").to_pylist()) for table in TABLES}


def _counted(rows: list[dict[str, Any]]) -> Counter[str]:
    return Counter(repr({name: row[name] for name in sorted(row) if name not in NOT_MEASURED}) for row in rows)


def _statuses(storage: Path) -> dict[str, str]:
    return {
        row["trial_key"]: row["status"]
        for row in Ledger(storage, must_exist=False).sql("SELECT trial_key, status FROM trials").to_pylist()
    }


def _completions(storage: Path) -> list[tuple[str, int]]:
    query = "SELECT trial_key, count_if(status = 'completed') AS times FROM attempts GROUP BY 1"
    return [(row["trial_key"], row["times"]) for row in Ledger(storage, must_exist=False).sql(query).to_pylist()]


def _still_running(storage: Path) -> list[tuple[str, int]]:
    query = "SELECT trial_key, attempt FROM attempts WHERE status = 'running'"
    return [(row["trial_key"], row["attempt"]) for row in Ledger(storage, must_exist=False).sql(query).to_pylist()]
