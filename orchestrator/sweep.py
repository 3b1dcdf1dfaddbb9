"""Running a plan: what the ledger lacks is prepared, run on a backend, and recorded as it happens."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from orchestrator.backend import Backend
from orchestrator.budget import Budget, Spent, goal_reached, spent_so_far
from orchestrator.decisions import DecisionLog, next_sequence, with_suggested
from orchestrator.errors import StorageError, SweepError, SweepLockedError
from orchestrator.estimate import expected_seconds
from orchestrator.frozen import sweep_dir, write_plan
from orchestrator.lease import Holder, Lease, take_lease
from orchestrator.location import location
from orchestrator.patience import unwritable
from orchestrator.plan import Plan
from orchestrator.preparation import Prepared, preparation
from orchestrator.record import EventLog, LedgerWriter, RunLog
from orchestrator.recorder import INTERRUPTED, Outcome, Recorder, Watcher
from orchestrator.signals import stop_on_signals
from orchestrator.standing import RETRY, close_lost_attempts, forgiven, mark_lost, newest_event, statuses, unfinished
from orchestrator.supervise import Supervisor
from orchestrator.tidy import tidy_checkpoints, tidy_leftovers
from orchestrator.work import FixedWork, Work
from orchestrator.worker import RunSettings
from results.storage import StorageLike

__all__ = ["Request", "check_writable", "run_sweep", "sweep_lease", "work_of"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of one run, beyond its plan."""

    budget: Budget = field(default_factory=Budget)
    retry: frozenset[str] = frozenset()  # keys of failed trials to try again


def run_sweep(
    plan: Plan,
    storage: StorageLike,
    request: Request,
    *,
    session: Callable[[Prepared], AbstractContextManager[Backend]],
    watch: Callable[[Work, Backend], AbstractContextManager[Watcher]],
    confirm: Callable[[Work], bool],
    say: Callable[[str], None],
) -> Outcome | None:
    """Runs the trials of `plan` that the ledger lacks; without any, neither prepares data nor opens the `session`.

    `session` is given the `preparation` of the trials and, once their data is there, gives a backend for as long as it is open;
    `watch` shows progress; `confirm` sees what is to do before anything is spent, and may say no: then nothing is run, and None
    returned; `say` hears what a person should know.

    Raises:
        SweepLockedError: another driver is running this sweep.
        StorageError: the storage cannot be written.
        DataError, InfeasibleError, KeyboardInterrupt: from preparing and running; the ledger says how far the sweep came.
    """
    check_writable(storage)
    with sweep_lease(storage, plan.sweep_id, say) as lease:
        patience = plan.preset.recovery.storage_patience_seconds
        close_lost_attempts(plan, storage, LedgerWriter(storage, patience, say))  # what they have cost counts
        spent = spent_so_far(storage, plan.sweep_id)
        found = work_of(plan, storage, request.retry)
        if not confirm(found):
            return None
        work, outcome = _within_budget(found, plan, storage, request, spent)
        if work is None:
            write_plan(storage, plan, _now())
        else:
            tidy_leftovers(storage, time.time())
            todo = plan.search.corners() if plan.search else list(work.known or ())
            frozen = partial(write_plan, storage, plan, _now())
            with session(partial(preparation, todo, storage, say, frozen)) as backend, watch(work, backend) as watcher:
                settings = _settings(plan, storage, request, backend)
                run = _Run(plan, settings, request.budget, request.retry, spent, lease, backend, watcher, outcome)
                run.carry_out(work)
            outcome.done, outcome.planned, outcome.stopped_early = work.num_done, work.total, work.num_stopped_early
        tidy_checkpoints(with_suggested(plan, storage), storage)
        return outcome


def work_of(plan: Plan, storage: StorageLike, retry: Collection[str] = ()) -> Work:
    """What the ledger lacks of the plan; `retry`: keys of failed trials to try again."""
    if plan.search is not None:
        from orchestrator.search import Search  # brings Optuna

        return Search(plan, storage, retry)
    known = statuses(storage, (trial.key for trial in plan.trials))
    done = sum(each.is_done for each in known.values())
    todo = unfinished(plan, known, retry)
    return FixedWork(todo, done, plan.num_trials, expected_seconds(todo, storage))


def _within_budget(work: Work, plan: Plan, storage: StorageLike, request: Request, spent: Spent) -> tuple[Work | None, Outcome]:
    """What of the work may be run, if anything, and how the sweep stands."""
    known = statuses(storage, (trial.key for trial in plan.trials))
    outcome = Outcome(planned=work.total, done=work.num_done)
    outcome.failed_before = [key for key, how in known.items() if how.is_failed and key not in request.retry]
    goal, most = request.budget.stop_at, request.budget.trials
    reached = request.budget.goal if goal and goal_reached(storage, goal, known) else request.budget.reached(spent)
    if work.num_left and reached:
        outcome.stop_reason = reached
        return None, outcome
    if most is not None and (room := max(0, most - spent.trials)) < work.num_left:
        outcome.stop_reason = f"budget (--max-trials {most})"
        work.limit(room)
    return (work if work.num_left else None), outcome


def _settings(plan: Plan, storage: StorageLike, request: Request, backend: Backend) -> RunSettings:
    if request.budget.gpu_hours is not None and not backend.gpus_per_trial:
        raise SweepError("--max-gpu-hours was given, but trials hold no GPU here; limit --max-hours instead")
    search = plan.search.settings if plan.search else None
    pause_at = tuple(search.rungs) if search and search.variant == "promotion" else ()
    return RunSettings(
        storage=storage,
        sweep_id=plan.sweep_id,
        run_id=f"{plan.sweep_id}-{_now():%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}",
        cpus=plan.preset.resources.cpus_per_trial,
        gpus=backend.gpus_per_trial,
        memory_bytes=plan.preset.resources.memory_bytes,
        recovery=plan.preset.recovery,
        pause_at=pause_at,
        forgiven=forgiven(storage, request.retry),
    )


@dataclass(frozen=True)
class _Run:
    """One driver's run on an open backend."""

    plan: Plan
    settings: RunSettings
    budget: Budget
    retry: frozenset[str]
    spent: Spent
    lease: Lease
    backend: Backend
    watcher: Watcher
    outcome: Outcome

    def carry_out(self, work: Work) -> None:
        """Runs the trials, records what happens, and says in the ledger how the run ended."""
        storage, run_id = self.settings.storage, self.settings.run_id
        writer = LedgerWriter(storage, self.settings.recovery.storage_patience_seconds, self._say_of_storage)
        events = EventLog(writer, self.plan.sweep_id, run_id, socket.gethostname(), _now, newest_event(storage))
        mark_lost(self.plan, storage, events)
        for trial_key in self.retry:
            events.add(trial_key, "planned", attempt=self.settings.forgiven[trial_key] - 1, reason=RETRY)
        run_log = RunLog(writer, _run_row(self.settings, self.backend), _now)
        recorder = Recorder(self.settings, writer, events, self.budget, work, self.watcher, self.outcome)
        supervisor = Supervisor(
            recorder, self.backend, lease=self.lease, run_log=run_log, spent=self.spent, say=self.watcher.say
        )
        decisions = DecisionLog(writer, self.plan, run_id, _now, next_sequence(storage, self.plan.sweep_id))
        stop, how = recorder.stop, "error"
        try:
            with stop_on_signals(stop, self.watcher.say), supervisor:
                for trial_key, reason in work.begin(decisions, self.watcher.planned):
                    recorder.stop_early(trial_key, reason)
                self._run_rounds(work, recorder)
            self.outcome.stop_reason = stop.reason or self.outcome.stop_reason
            how = (self.outcome.stop_reason or "finished").partition(" (")[0]
        except BaseException as error:
            how = INTERRUPTED if isinstance(error, KeyboardInterrupt) else "error"
            recorder.lose_running(how if isinstance(error, KeyboardInterrupt) else str(error))
            raise
        finally:
            stop.withdraw()
            run_log.end(how)

    def _say_of_storage(self, trouble: str) -> None:
        self.watcher.say(trouble or "the storage is back; everything goes on")

    def _run_rounds(self, work: Work, recorder: Recorder) -> None:
        """Runs what the backend could not even begin once more, as long as that gets on."""
        stop = recorder.stop
        while work.num_left and stop.reason is None:
            before = work.num_left
            self.backend.run(work, self.settings, recorder, lambda: stop.reason is not None)
            work.hand_out_again()
            if work.num_left == before and stop.reason is None:
                raise SweepError(f"{before} trials could not be begun; run the same command again")


def _run_row(settings: RunSettings, backend: Backend) -> dict[str, object]:
    return {
        "run_id": settings.run_id,
        "sweep_id": settings.sweep_id,
        "started_at": _now(),
        "slots": backend.slots,
        "gpus_per_trial": settings.gpus,
        **(backend.gpu_use.columns if backend.gpu_use else {}),
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }


def _now() -> datetime:
    return datetime.now(UTC)


def check_writable(storage: StorageLike) -> None:
    """Makes the storage's folder, writes to it, and looks whether a lease in it would hold.

    Raises:
        StorageError: it cannot be written, or lets two processes create the same file.
    """
    probe = location(storage, f"sweeps/.probe-{uuid.uuid4().hex}")
    try:
        is_exclusive = probe.create(b"0" * 4096) and not probe.create(b"1")
        probe.remove()
    except OSError as error:
        raise unwritable(storage, error) from error
    if not is_exclusive:
        raise StorageError(
            f"{storage} lets a file be created twice, so two drivers could run the same sweep; a server that speaks S3 has to "
            "obey If-None-Match: take a newer one, or name another storage with --storage"
        )


@contextmanager
def sweep_lease(storage: StorageLike, sweep_id: str, say: Callable[[str], None]) -> Iterator[Lease]:
    """Holds the sweep for this process; whoever finds that this process is gone may take it over.

    Raises:
        SweepLockedError: another process holds it; the message names that process.
    """

    def watching(holder: Holder) -> None:
        say(f"sweep {sweep_id} was being run by {holder.described}; looking whether it still is")

    taken = take_lease(sweep_dir(storage, sweep_id) / "driver", wait=lambda: False, on_unknown=watching)
    if isinstance(taken, Holder):
        raise SweepLockedError(
            f"sweep {sweep_id} is being run by {taken.described}; "
            f"watch it with `python -m orchestrator.run status {sweep_id} --watch --storage {storage}`, or end that process"
        )
    try:
        yield taken
    finally:
        taken.release()
