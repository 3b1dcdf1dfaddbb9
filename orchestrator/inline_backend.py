"""Runs trials one after the other in this process: the readable reference, and the debugger's friend."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence

import torch

from orchestrator.backend import Listener
from orchestrator.preset import Resources
from orchestrator.trial import Trial
from orchestrator.worker import Attempt, RunSettings

__all__ = ["InlineBackend"]


class InlineBackend:
    """A `for` loop over trials and reports, on the first GPU unless `resources.gpus_per_trial` is 0 or there is none."""

    def __init__(self, resources: Resources) -> None:
        asked = resources.gpus_per_trial
        self.gpus_per_trial = float(torch.cuda.is_available()) if asked == "auto" else float(asked)
        self.slots = 1

    def run(self, trials: Sequence[Trial], settings: RunSettings, listener: Listener, *, max_retries: int) -> None:
        """See `orchestrator.backend.Backend.run`."""
        for trial in trials:
            for retries_left in range(max_retries, -1, -1):
                try:
                    _run_once(trial, settings, listener)
                except Exception as error:
                    trace = "".join(traceback.format_exception(error))
                    tell = listener.retrying if retries_left else listener.failed
                    tell(trial.key, type(error).__name__, trace)
                else:
                    listener.completed(trial.key)
                    break


def _run_once(trial: Trial, settings: RunSettings, listener: Listener) -> None:
    attempt = Attempt(trial, settings, launched_at=time.time())
    listener.started(trial.key)
    try:
        while (shown := attempt.advance()) is not None:
            listener.reported(trial.key, shown)
    finally:
        attempt.close()
