"""One attempt at a trial, from claim to last row, whoever drives it."""

from __future__ import annotations

import gc
import logging
import resource
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psutil

from orchestrator import provenance
from orchestrator.asha import has_reached
from orchestrator.errors import StorageError
from orchestrator.failures import class_of_error, decide, signature_of
from orchestrator.lease import Holder, Lease, take_lease
from orchestrator.location import Location, location
from orchestrator.node_files import TrialCheckpoints, node_files
from orchestrator.preset import Recovery
from orchestrator.record import AttemptRecorder, LedgerWriter, close_attempt
from orchestrator.stop import PAUSED, PREEMPTED, StopWatch
from orchestrator.trial import Trial
from results.parts import read_attempts, torn_parts
from results.storage import StorageLike
from trainables.contract import Interrupted, Parent, Report, TrialContext
from trainables.data.spec import DataSpec
from trainables.registry import train_function

__all__ = ["Attempt", "Ended", "RunSettings", "trial_lease"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What all attempts of a run have in common; none of it changes a result but `cpus`, which fixes torch's threads."""

    storage: StorageLike
    sweep_id: str
    run_id: str
    cpus: int
    gpus: float
    memory_bytes: int | None
    recovery: Recovery
    forgiven: Mapping[str, int] = field(default_factory=dict)  # trial key -> attempt before which failures do not count
    micro_batches: int = 1  # parts of a batch, before any trial is out of memory
    pause_at: tuple[float, ...] = ()  # epochs at which trials make a checkpoint and end, to be taken up again if they are good

    @property
    def device(self) -> str:
        """Where torch computes."""
        return "cuda" if self.gpus else "cpu"

    @property
    def stop_file(self) -> Location:
        """By which the driver asks the run's trials to stop; says why."""
        return location(self.storage, f"sweeps/{self.sweep_id}/stop-{self.run_id}")


def trial_lease(storage: StorageLike, trial_key: str) -> Location:
    """The name of the lease on a trial."""
    return location(storage, f"leases/{trial_key}")


@dataclass(frozen=True)
class Ended:
    """How an attempt ended, but for failures, which raise.

    `not_run`: nothing was begun, because the run is stopping; `gave_up`: because the policies allow no further attempt.
    """

    status: Literal["completed", "stopped", "not_run", "gave_up"]
    reason: str = ""


class Attempt:
    """Drives a trainable's generator and records what it reports.

    A trial is one process's at a time, also when two sweeps have it in common: another's attempt waits until the trial is free,
    and has nothing left to do if it is complete by then. A lease that nobody renews passes on.
    """

    def __init__(self, trial: Trial, settings: RunSettings, launched_at: float, node_id: str | None = None) -> None:
        """Takes the trial and the next attempt number.

        `launched_at`: `time.monotonic()` of this process when the driver asked for the attempt; `node_id`: as Ray calls the
        node, where there is a Ray.

        Raises:
            StorageError: the storage cannot be read or written.
        """
        self.trial = trial
        self._settings = settings
        self._node_id = node_id
        self._stop = StopWatch(settings.stop_file)
        self._files = node_files(settings.storage)
        self._checkpoints: TrialCheckpoints | None = None  # once the trial is ours
        self._lease: Lease | None = None
        self._notes: list[str] = []
        self._pause: str | None = None  # why to end after the report that was made last
        self._reports: Iterator[Report] | None = None
        self._recorder: AttemptRecorder | None = None
        self._writer = LedgerWriter(settings.storage, settings.recovery.storage_patience_seconds, self._say)
        try:
            self._ended = self._take()
            if self._ended is None:
                self._cpu_before = time.process_time()
                self._train_seconds = 0.0
                self._launched_at = launched_at
                self._startup_seconds = time.monotonic() - launched_at
                self._recorder = AttemptRecorder(self._writer, self._first_row())
        except BaseException:
            self.close()
            raise
        if self._ended is not None:
            self.close()

    def _take(self) -> Ended | None:
        """Waits for the trial and looks at what became of it; None when there is something to run."""
        if not self._stop.reason:
            taken = self._writer.patiently(self._take_lease)  # which also looks whether the storage is there at all
            self._lease = taken if isinstance(taken, Lease) else None
        if self._lease is None:
            return Ended("not_run", self._stop.reason or "")
        earlier = self._writer.patiently(lambda: read_attempts(self._settings.storage, self.trial.key))
        if any(row["status"] == "completed" for row in earlier):
            return Ended("completed")
        # The lease is ours, so whoever wrote these is gone.
        earlier = [close_attempt(self._writer, row, held=None) if row["status"] == "running" else row for row in earlier]
        self._number = max((row["attempt"] for row in earlier), default=0) + 1
        decision = decide(
            earlier, self._settings.recovery.max_retries, self._settings.run_id, self._settings.forgiven.get(self.trial.key, 1)
        )
        self._micro_batches = self._settings.micro_batches * decision.micro_batches
        if not decision.go_on:
            return Ended("gave_up", decision.why)
        self._checkpoints = self._files.checkpoints(self.trial.key)
        if earlier:
            self._writer.patiently(lambda: self._kept.fetch(lambda: bool(_checkpoints().newest_step(self._kept.folder))))
            self._start_over_if_torn()
        return None

    @property
    def _kept(self) -> TrialCheckpoints:
        assert self._checkpoints is not None
        return self._checkpoints

    def _take_lease(self) -> Lease | Holder:
        path = trial_lease(self._settings.storage, self.trial.key)
        return take_lease(path, wait=lambda: not self._stop.reason, owner=self._settings.run_id)

    def _say(self, note: str) -> None:
        if self._lease is not None:
            self._lease.say(note)

    def _start_over_if_torn(self) -> None:
        """Resumed behind rows that are no longer readable, the trial would never report them again."""
        folder = self._kept.folder
        torn = self._writer.patiently(lambda: torn_parts(self._settings.storage, self.trial.key))
        if torn and _checkpoints().newest_step(folder):
            self._warn(f"{torn[0]} cannot be read, so the trial starts over; `python -m results verify --repair` puts it away")
            self._remove_steps()

    def _remove_steps(self) -> None:
        """Removes the trial's checkpoints but for its final weights, here and in the storage."""
        _checkpoints().remove_steps(self._kept.folder)
        self._writer.patiently(self._kept.forget_steps)

    def advance(self) -> dict[str, Any] | Ended:
        """Records the next report and returns what the driver shows of it; at the end, how it ended.

        Raises:
            LeaseLostError: another process has taken the trial over; nothing more was recorded.
            Exception: whatever the trainable raised; it is recorded.
        """
        if self._ended is not None:
            return self._ended
        assert self._recorder is not None
        assert self._lease is not None
        try:
            reports = self._begun()
            began = time.perf_counter()
            try:
                report = next(reports, None)
            finally:
                self._train_seconds += time.perf_counter() - began
            self._lease.check()
            if report is None:
                return self._finish("completed")
            self._recorder.add(report, self._train_seconds)
            # Also now: an attempt that is killed has no later chance to say what it spent.
            sizes = {name: getattr(report, name) for name in ("params_total", "params_active", "params_trainable")}
            self._recorder.update_attempt(**sizes, **self._spent())
            self._pause = self._rung_reached(report.epoch)
            return self._shown(report)
        except Interrupted:
            self._lease.check()
            return self._finish("stopped", self._pause or self._stop.reason or PREEMPTED)
        except Exception as error:
            self._fail(error)
            raise

    def close(self) -> None:
        """Ends the attempt where it is; nothing half-written stays."""
        if self._reports is not None:
            self._reports.close()  # type: ignore[attr-defined]
            self._reports = None
        if self._lease is not None:
            self._lease.release()
            self._lease = None
        if self._checkpoints is not None:
            self._checkpoints.close()
        _limit_memory(None)

    def _finish(self, status: Literal["completed", "stopped"], reason: str = "") -> Ended:
        assert self._recorder is not None
        final = self._kept.folder / _checkpoints().FINAL_WEIGHTS
        now = datetime.now(UTC)
        failure_class = PREEMPTED if reason == PREEMPTED else None
        self._recorder.update_attempt(
            status=status,
            failure_class=failure_class,
            stop_reason=reason or None,
            finished_at=now,
            checkpoint=self._checkpoint(final if status == "completed" else None),
            **self._spent(),
        )
        if status == "completed":
            self._remove_steps()
        self.close()
        self._ended = Ended(status, reason)
        return self._ended

    def _fail(self, error: Exception) -> None:
        """Records the failure. Where even that fails, the driver will find the attempt without an end."""
        assert self._recorder is not None
        trace = "".join(traceback.format_exception(error))
        name = type(error).__name__
        told = {"error_type": name, "error": trace, "error_signature": signature_of(name, trace)}
        traceback.clear_frames(error.__traceback__)  # they hold the model, which may be what left no memory to go on
        gc.collect()
        _limit_memory(None)
        try:
            assert self._lease is not None
            self._lease.check()
            if isinstance(error, StorageError):  # it has been waited for; the driver will find the attempt without an end
                return
            self._recorder.update_attempt(
                status="failed",
                failure_class=class_of_error(error).value,
                finished_at=datetime.now(UTC),
                checkpoint=self._checkpoint(),
                **told,
                **self._spent(),
            )
        finally:
            self.close()

    def _begun(self) -> Iterator[Report]:
        if self._reports is None:
            train = train_function(self.trial.trainable)  # the first in a process imports torch: that is start-up
            data = self._data()
            self._startup_seconds = time.monotonic() - self._launched_at
            _limit_memory(self._settings.memory_bytes)
            context = TrialContext(
                seed=self.trial.seed,
                data=data,
                device=self._settings.device,
                num_threads=self._settings.cpus,
                checkpoint_dir=self._kept.folder,
                prepared_dir=self._files.prepared_dir,
                parents=tuple(self._parent(parent) for parent in self.trial.parents),
                checkpoint_seconds=self._settings.recovery.checkpoint_seconds,
                resume_step=self._resumed_step,
                micro_batches=self._micro_batches,
                stop_requested=lambda: (self._pause or self._stop.reason) is not None,
                persist=self._persist,
                warn=self._warn,
            )
            self._reports = train(self.trial.config, context)
        return self._reports

    def _data(self) -> DataSpec:
        """The trial's data on this node, and its prepared features with it."""

        def fetched() -> DataSpec:
            data = self._files.local(self.trial.data)
            self._files.fetch_prepared(self.trial.config, data)
            return data

        return self._writer.patiently(fetched)

    def _parent(self, trial: Trial) -> Parent:
        """A trial that this one begins from, its weights on this node."""
        weights = self._writer.patiently(lambda: self._files.final_weights(trial.key))
        return Parent(key=trial.key, trainable=trial.trainable, config=trial.config, weights=weights)

    def _first_row(self) -> dict[str, Any]:
        self._resumed_step: int = _checkpoints().newest_step(self._kept.folder)
        return {
            "trial_key": self.trial.key,
            "attempt": self._number,
            "sweep_id": self._settings.sweep_id,
            "run_id": self._settings.run_id,
            "status": "running",
            "resumed_step": self._resumed_step,
            "micro_batches": self._micro_batches,
            "checkpoint": self._checkpoint(),
            "started_at": datetime.now(UTC),
            "startup_seconds": self._startup_seconds,
            "host": socket.gethostname(),
            "node_id": self._node_id,
            "num_threads": self._settings.cpus,
            "code_hash": provenance.code_hash(),
            "git_commit": provenance.git_commit(),
            "versions": provenance.versions(),
        }

    def _spent(self) -> dict[str, Any]:
        wall_seconds = self._startup_seconds + self._train_seconds
        return {
            "train_seconds": self._train_seconds,
            "startup_seconds": self._startup_seconds,
            "gpu_seconds": self._settings.gpus * wall_seconds,
            "cpu_seconds": time.process_time() - self._cpu_before,
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "device": _device_name(self._settings.device),
        }

    def _rung_reached(self, epoch: float) -> str | None:
        """The pause that is due at this report, the first one at or after its rung."""
        before = epoch - 1 / self.trial.config.evaluation.reports_per_epoch
        for rung in self._settings.pause_at:
            if has_reached(epoch, rung) and not has_reached(before, rung):
                return f"{PAUSED} at {rung:g})"
        return None

    def _checkpoint(self, path: Path | None = None) -> str | None:
        """The newest checkpoint, or `path`, as the ledger names it."""
        path = path or _checkpoints().newest(self._kept.folder)
        return None if path is None else f"checkpoints/{self.trial.key}/{path.name}"

    def _persist(self, write: Callable[[], Path]) -> Path:
        """A checkpoint's write, also to a storage that is full or away for a while; never over another process's."""

        def write_if_ours() -> Path:
            assert self._lease is not None
            self._lease.check()
            return write()

        path = self._writer.patiently(write_if_ours)
        self._writer.patiently(lambda: self._publish(path))
        return path

    def _publish(self, path: Path) -> None:
        assert self._lease is not None
        self._lease.check()
        self._kept.publish(path)

    def _warn(self, message: str) -> None:
        _log.warning(message)
        self._notes.append(message)

    def _shown(self, report: Report) -> dict[str, Any]:
        """What a person may want to see of the report."""
        em = {f"em_{part.domain}": part.em for part in report.evaluations if part.split == "val"}
        notes, self._notes = self._notes, []
        return {"epoch": report.epoch, "val_qa_loss": report.metrics.get("val_qa_loss"), "notes": notes, **em}


def _checkpoints() -> Any:
    from trainables.training import checkpoints

    return checkpoints


def _limit_memory(memory_bytes: int | None) -> None:
    """From now on allocations fail once this process would hold more than that, by its resident size now; None: no limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = hard
    if memory_bytes is not None:
        now = psutil.Process().memory_info()
        limit = now.data + max(0, memory_bytes - now.rss)
    if (limit, hard) != resource.getrlimit(resource.RLIMIT_DATA):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _device_name(device: str) -> str:
    if device == "cpu":
        return "cpu"
    import torch

    return torch.cuda.get_device_name(device)
