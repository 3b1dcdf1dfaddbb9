"""The driver's ear: what a backend tells becomes events in the ledger, and decisions by the policies of `failures`."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from orchestrator.budget import Budget
from orchestrator.errors import StorageError
from orchestrator.failures import FREE, Decision, FailureClass, class_of_death, decide, signature_of
from orchestrator.record import EventLog, LedgerWriter, close_attempt
from orchestrator.stop import PAUSED, PREEMPTED, StopRequest
from orchestrator.trial import Trial
from orchestrator.work import Work
from orchestrator.worker import Ended, RunSettings
from results.parts import read_attempts

__all__ = ["INTERRUPTED", "SAME_ERROR", "Failure", "Outcome", "Recorder", "Running", "Watcher", "error_line"]

_MAX_UNCLAIMED = 3
"""Workers of a trial that may end before they begin: code that cannot be imported on some node, say."""

INTERRUPTED = "interrupted"
SAME_ERROR = "same error"


class Watcher(Protocol):
    """Shows a person what happens."""

    def say(self, line: str) -> None: ...
    def planned(self, trial: Trial) -> None: ...
    def started(self, trial_key: str) -> None: ...
    def reported(self, trial_key: str, shown: dict[str, Any]) -> None: ...
    def retrying(self, trial_key: str, what: str) -> None: ...
    def ended(self, trial_key: str, status: str, what: str) -> None: ...


@dataclass(frozen=True)
class Failure:
    """Why a trial has failed for good."""

    failure_class: str
    signature: str
    error_type: str
    error: str

    @property
    def line(self) -> str:
        """It in a line, for a person."""
        return f"{self.failure_class}: {error_line(self.error_type, self.error)}"


@dataclass
class Outcome:
    """How a sweep's trials stand when its driver is done."""

    planned: int
    done: int  # of the whole sweep
    completed: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)  # to be gone on with
    stopped_early: int = 0  # of the whole sweep, by what they reported
    failed: dict[str, Failure] = field(default_factory=dict)  # by trial key
    failed_before: list[str] = field(default_factory=list)  # not run again: that takes `retry`
    stop_reason: str | None = None  # of the whole run


@dataclass
class Running:
    """A trial that a worker holds: when it began and when it was last heard of, monotonic seconds."""

    began: float
    heard: float


class Recorder:
    """Listens to a backend for one run."""

    def __init__(
        self,
        settings: RunSettings,
        writer: LedgerWriter,
        events: EventLog,
        budget: Budget,
        work: Work,
        watcher: Watcher,
        outcome: Outcome,
    ) -> None:
        self.running: dict[str, Running] = {}
        self.overdue: set[str] = set()  # killed because they no longer reported
        self.gpu_seconds = 0.0  # of ended attempts of this run
        self.settings = settings
        self._writer = writer
        self._events = events
        self.stop = StopRequest(settings.stop_file)
        self.budget = budget
        self._work = work
        self._watcher = watcher
        self._outcome = outcome
        self._given_up: set[str] = set()
        self._judged: dict[str, int] = {}  # trial key -> newest attempt whose end was dealt with
        self._unclaimed: Counter[str] = Counter()  # workers that ended before they claimed an attempt

    def started(self, trial_key: str) -> None:
        if self.stop.reason is not None or trial_key in self._given_up:  # the worker that gets it now gives it back at once
            return
        now = time.monotonic()
        self.running[trial_key] = Running(now, now)
        self._events.add(trial_key, "running")
        self._watcher.started(trial_key)

    def reported(self, trial_key: str, shown: dict[str, Any]) -> bool:
        if trial_key in self.running:
            self.running[trial_key].heard = time.monotonic()
        self._watcher.reported(trial_key, shown)
        goal = self.budget.stop_at
        if goal is not None and goal.is_reached(shown):
            self.stop.request(self.budget.goal)
        reason = self._work.reported(trial_key, shown)
        if reason is not None:
            self.stop_early(trial_key, reason)
        return reason is None

    def stop_early(self, trial_key: str, reason: str) -> None:
        """Ends a trial for good whose worker waits for the answer to its report, or is gone."""
        held = self._release(trial_key)
        row = self._writer.patiently(lambda: read_attempts(self.settings.storage, trial_key))[-1]
        ended = {"status": "stopped", "failure_class": None, "stop_reason": reason, "finished_at": datetime.now(UTC)}
        close_attempt(self._writer, row, held=(held, self.settings.gpus), **ended)
        self._end(trial_key, "stopped", attempt=row["attempt"], reason=reason, shown=reason)

    def ended(self, trial_key: str, how: Ended) -> None:
        was_running = trial_key in self.running
        self._release(trial_key)
        if trial_key in self._given_up:  # a trial that was given up ends once more when its next worker sees that
            return
        if how.status == "gave_up":
            self._give_up(trial_key, read_attempts(self.settings.storage, trial_key), how.reason)
        elif how.status == "completed":
            self._outcome.completed.append(trial_key)
            self._end(trial_key, "completed")
        elif how.status == "stopped":
            if not how.reason.startswith(PAUSED):
                self._outcome.stopped.append(trial_key)
            self._end(trial_key, "stopped", reason=how.reason, shown=how.reason)
        elif was_running:  # the stop came between its start and its first look
            self._end(trial_key, "planned", reason=how.reason)

    def errored(self, trial_key: str, error_type: str, error: str) -> bool:
        held, overdue = self._release(trial_key), trial_key in self.overdue
        self.overdue.discard(trial_key)
        if error_type == StorageError.__name__:  # the worker has waited; there is no use in waiting as long again
            self._writer.give_up()
        rows = self._writer.patiently(lambda: read_attempts(self.settings.storage, trial_key))
        newest = rows[-1] if rows and rows[-1]["run_id"] == self.settings.run_id else None
        if newest is None or newest["attempt"] <= self._judged.get(trial_key, 0):
            return self._errored_unclaimed(trial_key, error_type, error)
        self._judged[trial_key] = newest["attempt"]
        if newest["status"] == "running":
            rows[-1] = newest = self._close(newest, held, overdue, error_type, error)
        decision = self._decision(trial_key, rows)
        if not decision.go_on:
            self._give_up(trial_key, rows, decision.why)
            return False
        lost = newest["failure_class"] in FREE
        self._events.add(
            trial_key,
            "lost" if lost else "planned",
            attempt=newest["attempt"],
            reason=PREEMPTED if newest["failure_class"] == PREEMPTED else "retrying",
            **_told(newest),
        )
        self._watcher.retrying(trial_key, _what_happened(newest, decision))
        return True

    def _errored_unclaimed(self, trial_key: str, error_type: str, error: str) -> bool:
        """Its worker ended before it claimed an attempt, or another process has taken the trial over."""
        self._unclaimed[trial_key] += 1
        if self._unclaimed[trial_key] < _MAX_UNCLAIMED:
            self._events.add(trial_key, "lost", reason="retrying", error_type=error_type, error=error)
            self._watcher.retrying(trial_key, error_line(error_type, error))
            return True
        self._outcome.failed[trial_key] = Failure("lost", signature_of(error_type, error), error_type, error)
        told: dict[str, Any] = {"failure_class": "lost", "error_type": error_type, "error": error}
        why = f"{_MAX_UNCLAIMED} workers ended before they could begin"
        self._end(trial_key, "lost", reason=why, shown=f"{error_line(error_type, error)} ({why})", **told)
        self._stop_if_all_alike(self._outcome.failed[trial_key])
        return False

    def lose_running(self, reason: str) -> None:
        """Marks what is running as lost, as its workers end with the driver; without waiting for the storage."""
        self._writer.give_up()
        with contextlib.suppress(StorageError):
            for trial_key in sorted(self.running):
                self._events.add(trial_key, "lost", reason=reason)
        self.running.clear()

    def _release(self, trial_key: str) -> float:
        """For how long the trial held its slot, seconds."""
        running = self.running.pop(trial_key, None)
        seconds = 0.0 if running is None else time.monotonic() - running.began
        self.gpu_seconds += seconds * self.settings.gpus
        return seconds

    def _close(self, row: dict[str, Any], held: float, overdue: bool, error_type: str, error: str) -> dict[str, Any]:
        """The attempt's worker is gone without having said why."""
        if overdue:
            error_type = "TrialTimeoutError"
            error = (
                f"no report for {self.settings.recovery.timeout_seconds:g} s (recovery.timeout_seconds); the worker was ended"
            )
        failure_class = FailureClass.timeout if overdue else class_of_death(error_type)
        return close_attempt(
            self._writer,
            row,
            held=(held, self.settings.gpus),
            status="failed" if failure_class not in FREE else "lost",
            failure_class=failure_class.value,
            error_type=error_type,
            error=error,
            error_signature=signature_of(error_type, error),
            finished_at=datetime.now(UTC),
        )

    def _decision(self, trial_key: str, rows: list[dict[str, Any]]) -> Decision:
        forgiven = self.settings.forgiven.get(trial_key, 1)
        return decide(rows, self.settings.recovery.max_retries, self.settings.run_id, forgiven)

    def _give_up(self, trial_key: str, rows: list[dict[str, Any]], why: str) -> None:
        row = next(row for row in reversed(rows) if row["failure_class"])
        failure = Failure(row["failure_class"], row["error_signature"] or "", row["error_type"] or "", row["error"] or why)
        self._outcome.failed[trial_key] = failure
        status = "lost" if row["failure_class"] in FREE else "failed"
        shown = f"{failure.line} ({why})"
        self._end(trial_key, status, attempt=row["attempt"], reason=why, shown=shown, **_told(row))
        self._stop_if_all_alike(failure)

    def _stop_if_all_alike(self, failure: Failure) -> None:
        if failure.failure_class == FailureClass.diverged:  # of its own settings, which says nothing about other trials
            return
        same = sum(other.signature == failure.signature for other in self._outcome.failed.values())
        if same >= self.settings.recovery.max_same_failures:
            self.stop.request(f"{SAME_ERROR} ({same} trials failed with {failure.error_type}, signature {failure.signature})")

    def _end(
        self,
        trial_key: str,
        status: str,
        *,
        attempt: int | None = None,
        reason: str | None = None,
        shown: str = "",
        **told: Any,
    ) -> None:
        if status in ("failed", "lost"):
            self._given_up.add(trial_key)
        self._events.add(trial_key, status, attempt=attempt, reason=reason, **told)
        self._watcher.ended(trial_key, status, shown)
        self._work.ended(trial_key, status, reason, told.get("failure_class"))


def _told(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("failure_class", "error_type", "error")}


def _what_happened(row: dict[str, Any], decision: Decision) -> str:
    if row["failure_class"] == FailureClass.lost:
        what = "its worker died"
    elif row["failure_class"] == FailureClass.preempted:
        what = "its worker was told to end"
    else:
        what = f"{row['failure_class']}: {error_line(row['error_type'] or '', row['error'] or '')}"
    return what + (" (half the batch at a time)" if decision.micro_batches > 1 else "")


def error_line(error_type: str, error: str) -> str:
    """An error in a line: its class and its traceback's last line, which mostly begins with the class already."""
    last = (error.strip().splitlines() or [""])[-1]
    return last if error_type in last.partition(":")[0] else f"{error_type}: {last}"
