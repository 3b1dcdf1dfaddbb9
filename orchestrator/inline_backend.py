"""Runs trials one after the other in this process: the readable reference, and the debugger's friend."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch

from orchestrator.backend import Listener
from orchestrator.errors import TrialTimeoutError
from orchestrator.preset import Resources
from orchestrator.trial import Trial
from orchestrator.work import Work
from orchestrator.worker import Attempt, Ended, RunSettings

__all__ = ["InlineBackend"]


class InlineBackend:
    """A `for` loop over trials and reports, on the first GPU unless `resources.gpus_per_trial` is 0 or there is none.

    A trial has that GPU for itself, however many were to share it.
    """

    gpu_use = None

    def __init__(self, resources: Resources) -> None:
        asked = resources.gpus_per_trial
        self.gpus_per_trial = float(torch.cuda.is_available()) if asked == "auto" else float(asked)
        self.slots = 1
        self._in_trial = False

    def run(self, work: Work, settings: RunSettings, listener: Listener, stop_requested: Callable[[], bool]) -> None:
        """See `orchestrator.backend.Backend.run`."""
        former = signal.signal(signal.SIGUSR1, self._on_signal)
        try:
            while not stop_requested() and (trial := work.next()) is not None:
                while self._run_once(trial, settings, listener):
                    pass
        finally:
            signal.signal(signal.SIGUSR1, former)

    def kill(self, trial_key: str) -> None:
        """See `orchestrator.backend.Backend.kill`: interrupts the trial wherever Python code runs or waits."""
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._in_trial:  # else the trial has ended meanwhile
            raise TrialTimeoutError("no report for recovery.timeout_seconds")

    def _run_once(self, trial: Trial, settings: RunSettings, listener: Listener) -> bool:
        """One attempt; True when there should be another."""
        listener.started(trial.key)
        attempt = None
        try:
            attempt = Attempt(trial, settings, launched_at=time.monotonic())
            while not isinstance(result := self._advance(attempt), Ended):
                if not listener.reported(trial.key, result):
                    return False
        except Exception as error:
            return listener.errored(trial.key, type(error).__name__, "".join(traceback.format_exception(error)))
        finally:
            if attempt is not None:
                attempt.close()
        listener.ended(trial.key, result)
        return False

    def _advance(self, attempt: Attempt) -> dict[str, Any] | Ended:
        self._in_trial = True
        try:
            return attempt.advance()
        finally:
            self._in_trial = False
