"""Running a plan: what the ledger lacks is prepared, run on a backend, and recorded as it happens."""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.backend import Backend, Listener
from orchestrator.errors import SweepError
from orchestrator.lock import sweep_lock
from orchestrator.plan import Plan
from orchestrator.preset import Preset
from orchestrator.record import EventLog, record_plan
from orchestrator.trial import Trial
from orchestrator.worker import RunSettings
from results.ledger import Ledger
from trainables.data.sources import data_fingerprint
from trainables.registry import settings_of

__all__ = [
    "Outcome",
    "Recorder",
    "check_current",
    "load_plan",
    "remaining",
    "run_sweep",
    "statuses",
    "sweep_dir",
    "sweep_ids",
    "unfinished",
    "write_plan",
]


@dataclass
class Outcome:
    """How a sweep's trials stand when its driver is done."""

    planned: int
    already_done: int
    completed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # trial key -> traceback


class Recorder:
    """Writes what a backend tells as events, and passes it on to whoever shows progress."""

    def __init__(self, storage: Path, events: EventLog, attempts: Counter[str], outcome: Outcome, watcher: Listener) -> None:
        self._storage = storage
        self._events = events
        self._attempts = attempts
        self._outcome = outcome
        self._watcher = watcher
        self._running: set[str] = set()

    def lose_running(self, reason: str) -> None:
        """Marks what was running as lost: its workers end with the driver."""
        for trial_key in sorted(self._running):
            self._add(trial_key, "lost", reason=reason)

    def started(self, trial_key: str) -> None:
        self._attempts[trial_key] += 1
        self._running.add(trial_key)
        self._add(trial_key, "running")
        self._watcher.started(trial_key)

    def reported(self, trial_key: str, shown: dict[str, Any]) -> None:
        self._watcher.reported(trial_key, shown)

    def retrying(self, trial_key: str, error_type: str, error: str) -> None:
        error_type, error, lost = self._cause(trial_key, error_type, error)
        self._add(trial_key, "lost" if lost else "failed", reason="retrying", error_type=error_type, error=error)
        self._watcher.retrying(trial_key, error_type, error)

    def completed(self, trial_key: str) -> None:
        self._outcome.completed.append(trial_key)
        self._add(trial_key, "completed")
        self._watcher.completed(trial_key)

    def failed(self, trial_key: str, error_type: str, error: str) -> None:
        self._outcome.failed[trial_key] = error
        error_type, error, lost = self._cause(trial_key, error_type, error)
        self._outcome.failed[trial_key] = error
        self._add(trial_key, "lost" if lost else "failed", error_type=error_type, error=error)
        self._watcher.failed(trial_key, error_type, error)

    def _cause(self, trial_key: str, error_type: str, error: str) -> tuple[str, str, bool]:
        """The error as the worker recorded it; else as the backend tells it, and then the worker was lost."""
        newest = "SELECT status, error_type, error FROM attempts WHERE trial_key = $key ORDER BY attempt DESC LIMIT 1"
        rows = Ledger(self._storage).sql(newest, {"key": trial_key}).to_pylist()
        if rows and rows[0]["status"] == "failed":
            return rows[0]["error_type"], rows[0]["error"], False
        return error_type, error, True

    def _add(self, trial_key: str, status: str, **details: str | None) -> None:
        if status != "running":
            self._running.discard(trial_key)
        self._events.add(trial_key, status, attempt=self._attempts[trial_key], **details)


def run_sweep(
    plan: Plan,
    storage: Path,
    *,
    session: Callable[[], AbstractContextManager[Backend]],
    watch: Callable[[list[Trial], Backend], AbstractContextManager[Listener]],
    prepare: Callable[[list[Trial]], None],
) -> Outcome:
    """Runs the trials of `plan` that the ledger lacks; without any, neither prepares data nor opens the `session`.

    `session` gives a backend for as long as it is open; `watch` shows progress; `prepare` builds the data that all trials read,
    and complains about bad input before anything is spent.

    Raises:
        SweepLockedError: another driver is running this sweep.
        DataError, InfeasibleError, KeyboardInterrupt: from preparing and running; the ledger says how far the sweep came.
    """
    with sweep_lock(sweep_dir(storage, plan.sweep_id), plan.sweep_id):
        todo = remaining(plan, storage)
        if todo:
            prepare(todo)
        write_plan(storage, plan, _now())
        outcome = Outcome(planned=len(plan.trials), already_done=len(plan.trials) - len(todo))
        if not todo:
            return outcome
        events = EventLog(storage, plan.sweep_id, f"{_now():%Y%m%dT%H%M%S}-{os.getpid()}", socket.gethostname(), _now)
        attempts = _mark_lost(todo, storage, events)
        with session() as backend, watch(todo, backend) as watcher:
            settings = RunSettings(
                storage=storage,
                sweep_id=plan.sweep_id,
                cpus=plan.preset.resources.cpus_per_trial,
                gpus=backend.gpus_per_trial,
                checkpoint_seconds=plan.preset.recovery.checkpoint_seconds,
            )
            recorder = Recorder(storage, events, attempts, outcome, watcher)
            try:
                backend.run(todo, settings, recorder, max_retries=plan.preset.recovery.max_retries)
            except BaseException as error:
                recorder.lose_running("interrupted" if isinstance(error, KeyboardInterrupt) else str(error))
                raise
        return outcome


def _now() -> datetime:
    return datetime.now(UTC)


def statuses(storage: Path, keys: Iterable[str]) -> dict[str, str]:
    """The status of each trial that the ledger knows."""
    table = Ledger(storage).sql("SELECT trial_key, status FROM trials")
    wanted = set(keys)
    return {row["trial_key"]: row["status"] for row in table.to_pylist() if row["trial_key"] in wanted}


def remaining(plan: Plan, storage: Path) -> list[Trial]:
    """The trials that the ledger does not call completed or stopped, in the plan's order."""
    return unfinished(plan, statuses(storage, (trial.key for trial in plan.trials)))


def unfinished(plan: Plan, known: Mapping[str, str]) -> list[Trial]:
    """The trials that `known` statuses do not call completed or stopped, in the plan's order."""
    return [trial for trial in plan.trials if known.get(trial.key) not in ("completed", "stopped")]


def _mark_lost(todo: list[Trial], storage: Path, events: EventLog) -> Counter[str]:
    """Trials still called running have no driver any more: we hold the lock. Returns the attempts so far."""
    table = Ledger(storage).sql("SELECT trial_key, status, attempts FROM trials").to_pylist()
    rows = {row["trial_key"]: row for row in table}
    attempts: Counter[str] = Counter()
    for trial in todo:
        row = rows.get(trial.key)
        if row:
            attempts[trial.key] = row["attempts"] or 0
            if row["status"] == "running":
                events.add(trial.key, "lost", attempt=attempts[trial.key], reason="its driver ended")
    return attempts


def sweep_dir(storage: Path, sweep_id: str) -> Path:
    """The folder of a sweep's own files."""
    return storage / "sweeps" / sweep_id


def write_plan(storage: Path, plan: Plan, planned_at: datetime) -> None:
    """Freezes the plan in `sweep.json`, once, and puts its trials into the ledger."""
    path = sweep_dir(storage, plan.sweep_id) / "sweep.json"
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    frozen = {
        "sweep_id": plan.sweep_id,
        "kind": plan.kind,
        "planned_at": planned_at.isoformat(),
        "preset": plan.preset.model_dump(mode="json"),
        "trials": [trial.to_json() for trial in plan.trials],
    }
    record_plan(storage, plan, planned_at)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(frozen, indent=1), encoding="utf-8")
    os.replace(unfinished, path)


def load_plan(storage: Path, sweep_id: str) -> Plan:
    """The plan that `write_plan` froze.

    Raises:
        FileNotFoundError: there is no such sweep.
        ValueError: another version of the program wrote it.
    """
    frozen = json.loads((sweep_dir(storage, sweep_id) / "sweep.json").read_text(encoding="utf-8"))
    trials = tuple(Trial.from_json(trial) for trial in frozen["trials"])
    return Plan(kind=frozen["kind"], preset=Preset.model_validate(frozen["preset"]), trials=trials)


def check_current(plan: Plan) -> None:
    """Makes sure that a frozen plan would still run what its keys say.

    Raises:
        SweepError: a trainable's version or the content of the data is another than when it was planned.
    """
    locations = {trial.data.model_dump_json(): trial.data for trial in plan.trials}
    fingerprints = {location: data_fingerprint(data) for location, data in locations.items()}
    for trial in plan.trials:
        version = settings_of(trial.trainable).version
        if version != trial.version:
            raise SweepError(
                f"{plan.sweep_id} was planned with {trial.trainable} version {trial.version}, and this is version {version}; "
                "plan it anew with `grid`: what is still valid is not run again"
            )
        if fingerprints[trial.data.model_dump_json()] != trial.data_fingerprint:
            raise SweepError(
                f"the data of {plan.sweep_id} has changed since it was planned; put it back, or plan anew with `grid`"
            )


def sweep_ids(storage: Path) -> list[str]:
    """All sweeps of the storage, the newest first."""
    paths = sorted((storage / "sweeps").glob("*/sweep.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [path.parent.name for path in paths]
