"""One attempt at a trial, from claim to last row, whoever drives it."""

from __future__ import annotations

import resource
import socket
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from orchestrator import provenance
from orchestrator.record import AttemptRecorder
from orchestrator.trial import Trial
from results.parts import read_attempts
from trainables.contract import Report, TrialContext
from trainables.registry import train_function

__all__ = ["Attempt", "RunSettings"]


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What all attempts of a sweep have in common; none of it changes a result but `cpus`, which fixes torch's threads."""

    storage: Path
    sweep_id: str
    cpus: int
    gpus: float
    checkpoint_seconds: float

    @property
    def device(self) -> str:
        """Where torch computes."""
        return "cuda" if self.gpus else "cpu"

    @property
    def prepared_dir(self) -> Path:
        """Root of the prepared features."""
        return self.storage / "prepared"

    def checkpoint_dir(self, trial_key: str) -> Path:
        """The trial's checkpoints."""
        return self.storage / "checkpoints" / trial_key


class Attempt:
    """Drives a trainable's generator and records what it reports.

    A trial is one process's at a time, also when two sweeps have it in common: another's attempt waits until the trial is free,
    and has nothing left to do if it is complete by then. The kernel frees a trial whose process ends, however it ends.
    """

    def __init__(self, trial: Trial, settings: RunSettings, launched_at: float) -> None:
        """Takes the trial and the next attempt number. `launched_at`: `time.time()` when the driver asked for the attempt."""
        self.trial = trial
        self._settings = settings
        self._claim = FileLock(_made(settings.storage / "checkpoints") / f".{trial.key}.lock")
        self._claim.acquire()
        self._cpu_before = time.process_time()
        self._train_seconds = 0.0
        self._startup_seconds = time.time() - launched_at
        self._reports: Iterator[Report] | None = None
        earlier = read_attempts(settings.storage, trial.key)
        self.number = max((row["attempt"] for row in earlier), default=0) + 1
        is_complete = any(row["status"] == "completed" for row in earlier)
        self._recorder = None if is_complete else AttemptRecorder(settings.storage, self._first_row())

    def advance(self) -> dict[str, Any] | None:
        """Records the next report and returns what the driver shows of it; None when the trial is complete."""
        if self._recorder is None:
            return None
        try:
            began = time.perf_counter()
            report = next(self._started(), None)
            self._train_seconds += time.perf_counter() - began
            if report is None:
                self._recorder.finish(status="completed", finished_at=datetime.now(UTC), **self._spent())
                self.close()
                return None
            self._recorder.add(report, self._train_seconds)
            sizes = {"params_total": report.params_total, "params_trainable": report.params_trainable}
            self._recorder.update_attempt(
                **sizes, **self._spent()
            )  # also of an attempt that never ends, killed between reports
            return _shown(report)
        except Exception as error:
            self._recorder.finish(status="failed", finished_at=datetime.now(UTC), **_told(error), **self._spent())
            self.close()
            raise

    def close(self) -> None:
        """Ends the attempt where it is; nothing half-written stays."""
        if self._reports is not None:
            self._reports.close()  # type: ignore[attr-defined]
            self._reports = None
        self._claim.release()

    def _started(self) -> Iterator[Report]:
        if self._reports is None:
            context = TrialContext(
                seed=self.trial.seed,
                data=self.trial.data,
                device=self._settings.device,
                num_threads=self._settings.cpus,
                checkpoint_dir=self._settings.checkpoint_dir(self.trial.key),
                prepared_dir=self._settings.prepared_dir,
                checkpoint_seconds=self._settings.checkpoint_seconds,
            )
            self._reports = train_function(self.trial.trainable)(self.trial.config, context)
        return self._reports

    def _first_row(self) -> dict[str, Any]:
        return {
            "trial_key": self.trial.key,
            "attempt": self.number,
            "sweep_id": self._settings.sweep_id,
            "status": "running",
            "resumed_step": _newest_step(self._settings.checkpoint_dir(self.trial.key)),
            "started_at": datetime.now(UTC),
            "host": socket.gethostname(),
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


def _newest_step(checkpoint_dir: Path) -> int:
    from trainables.training.checkpoints import newest_step

    return newest_step(checkpoint_dir)


def _device_name(device: str) -> str:
    if device == "cpu":
        return "cpu"
    import torch

    return torch.cuda.get_device_name(device)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _told(error: Exception) -> dict[str, str]:
    return {"error_type": type(error).__name__, "error": "".join(traceback.format_exception(error))}


def _shown(report: Report) -> dict[str, Any]:
    em = {f"em_{part.domain}": part.em for part in report.evaluations if part.split == "val"}
    val_qa_loss = report.metrics.get("val_qa_loss")
    return {"epoch": report.epoch, "val_qa_loss": val_qa_loss, **em}
