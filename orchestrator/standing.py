"""How trials stand, by the ledger alone, and what that leaves to do."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.lease import Holder, holder_of, take_lease
from orchestrator.plan import Plan
from orchestrator.record import EventLog, LedgerWriter, close_attempt
from orchestrator.trial import Trial
from orchestrator.worker import trial_lease
from results.ledger import Ledger
from results.parts import read_attempts
from results.storage import StorageLike
from results.trials_view import JUDGED

__all__ = [
    "RETRY",
    "Standing",
    "blocked",
    "close_lost_attempts",
    "forgiven",
    "mark_lost",
    "newest_event",
    "statuses",
    "superseded",
    "unfinished",
]

RETRY = "retry"
"""Reason of the event by which a failed trial is planned again; earlier failures no longer count."""


@dataclass(frozen=True)
class Standing:
    """A trial's status and why it has it."""

    status: str
    reason: str | None = None

    @property
    def is_done(self) -> bool:
        """Completed. What a search stopped early is done for that search alone; a budget's trials go on with a larger one."""
        return self.status == "completed"

    @property
    def is_failed(self) -> bool:
        """Failed for good: only `retry` runs it again."""
        return self.status == "failed"


def statuses(storage: StorageLike, keys: Iterable[str]) -> dict[str, Standing]:
    """How each trial stands that the ledger knows."""
    table = Ledger(storage, must_exist=False).sql(JUDGED)
    wanted = set(keys)
    return {
        row["trial_key"]: Standing(row["status"], row["stop_reason"]) for row in table.to_pylist() if row["trial_key"] in wanted
    }


def unfinished(plan: Plan, known: Mapping[str, Standing], retry: Iterable[str] = ()) -> list[Trial]:
    """The trials that are neither done nor failed, and those of the failed that `retry` names, in the plan's order.

    Without what is blocked.
    """
    again, waiting = set(retry), blocked(plan, known, retry)
    fresh = Standing("planned")
    standing = [(trial, known.get(trial.key, fresh)) for trial in plan.trials if trial.key not in waiting]
    return [trial for trial, how in standing if not how.is_done and (not how.is_failed or trial.key in again)]


def blocked(plan: Plan, known: Mapping[str, Standing], retry: Iterable[str] = ()) -> dict[str, str]:
    """The trials that cannot be run since one that they begin from has failed, each with the key of that one."""
    again = set(retry)
    failed = {key for key, how in known.items() if how.is_failed and key not in again}
    found: dict[str, str] = {}
    for trial in plan.trials if failed else ():  # parents come before their children
        causes = [found.get(key, key) for key in trial.parent_keys if key in failed or key in found]
        if causes and not (trial.key in known and known[trial.key].is_done):
            found[trial.key] = causes[0]
    return found


def forgiven(storage: StorageLike, retry: Iterable[str]) -> dict[str, int]:
    """For each trial that was or is to be retried, the attempt from which its failures count."""
    ledger = Ledger(storage, must_exist=False)
    earlier = ledger.sql(
        f"SELECT trial_key, max(attempt) + 1 AS next FROM events WHERE reason = '{RETRY}' AND attempt IS NOT NULL GROUP BY 1"
    )
    now = ledger.sql("SELECT trial_key, max(attempt) + 1 AS next FROM attempts GROUP BY 1")
    wanted = set(retry)
    found = {row["trial_key"]: row["next"] for row in earlier.to_pylist()}
    return found | {row["trial_key"]: row["next"] for row in now.to_pylist() if row["trial_key"] in wanted}


def newest_event(storage: StorageLike) -> datetime | None:
    """When the newest event of the ledger happened."""
    [row] = Ledger(storage, must_exist=False).sql("SELECT max(happened_at) AS newest FROM events").to_pylist()
    newest: datetime | None = row["newest"]
    return newest


_AT_A_TIME = 32

_CALLED_RUNNING = """
    SELECT trial_key, attempt, epoch(runs.updated_at - attempts.started_at) AS seconds, runs.gpus_per_trial AS gpus
    FROM attempts LEFT JOIN runs USING (run_id) WHERE attempts.status = 'running'
"""


def close_lost_attempts(plan: Plan, storage: StorageLike, writer: LedgerWriter) -> None:
    """Closes the rows of attempts that nobody runs any more: their driver has ended, for we hold its lease."""
    planned = {trial.key for trial in plan.trials}
    called = [row for row in Ledger(storage, must_exist=False).sql(_CALLED_RUNNING).to_pylist() if row["trial_key"] in planned]
    with ThreadPoolExecutor(_AT_A_TIME) as pool:  # workers of other machines have to be watched for a while
        list(pool.map(lambda row: _close_if_dead(row, storage, writer), called))


def _close_if_dead(row: dict[str, Any], storage: StorageLike, writer: LedgerWriter) -> None:
    """Under the trial's lease, since another sweep may have the trial in common, and end it right now."""
    trial_key, attempt = row["trial_key"], row["attempt"]
    lease = take_lease(trial_lease(storage, trial_key), wait=lambda: False)
    if isinstance(lease, Holder):
        return
    try:
        for now in read_attempts(storage, trial_key):
            if now["attempt"] == attempt and now["status"] == "running":
                seconds = row["seconds"]
                held = None if seconds is None else (max(0.0, seconds) + (now["startup_seconds"] or 0.0), row["gpus"] or 0.0)
                close_attempt(writer, now, held=held)
    finally:
        lease.release()


def mark_lost(plan: Plan, storage: StorageLike, events: EventLog) -> None:
    """Says what became of trials that went down with their driver: stopped, if their worker still said so, else lost."""
    planned = {trial.key for trial in plan.trials}
    query = "SELECT trial_key, status, attempts FROM trials WHERE status IN ('running', 'lost')"
    for row in Ledger(storage, must_exist=False).sql(query).to_pylist():
        trial_key = row["trial_key"]
        if trial_key not in planned or not _is_dead(storage, trial_key):
            continue
        newest = next(reversed(read_attempts(storage, trial_key)), None)
        if newest is not None and newest["status"] == "stopped":
            events.add(trial_key, "stopped", attempt=newest["attempt"], reason=newest["stop_reason"])
        elif row["status"] == "running":
            events.add(trial_key, "lost", attempt=row["attempts"], reason="its driver ended")


def _is_dead(storage: StorageLike, trial_key: str) -> bool:
    """No process holds the trial; that of another sweep may, which has it in common and runs it now."""
    return holder_of(trial_lease(storage, trial_key), time.time()) is None


def superseded(plan: Plan, storage: StorageLike) -> dict[str, tuple[int, int]]:
    """Trainables of the plan that older versions completed trials of: the newest of those versions, and how many trials."""
    versions = {trial.trainable: trial.version for trial in plan.trials}
    query = """
        SELECT architecture, trainable_version AS version, count(*) AS trials
        FROM trials WHERE status = 'completed' AND trainable_version IS NOT NULL GROUP BY ALL ORDER BY version
    """
    rows = Ledger(storage, must_exist=False).sql(query).to_pylist()
    older = [row for row in rows if row["version"] < versions.get(row["architecture"], 0)]
    return {row["architecture"]: (row["version"], row["trials"]) for row in older}
