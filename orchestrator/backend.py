"""What a backend does and tells: it runs attempts at trials, and a listener hears of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from orchestrator.gpu_memory import GpuUse
from orchestrator.work import Work
from orchestrator.worker import Ended, RunSettings

__all__ = ["Backend", "Listener"]


class Listener(Protocol):
    """Hears, in the driver's main thread, what happens to trials."""

    def started(self, trial_key: str) -> None:
        """A worker is about to take the trial."""

    def reported(self, trial_key: str, shown: dict[str, Any]) -> bool:
        """The trial has a new report, already in the ledger; `shown` is what a person may want to see of it.

        False: the attempt is recorded as ended, and its worker is to let go of it.
        """

    def ended(self, trial_key: str, how: Ended) -> None:
        """The trial needs no further attempt in this run."""

    def errored(self, trial_key: str, error_type: str, error: str) -> bool:
        """An attempt raised or its worker is gone: an exception's class name and its text. True: it should be tried again."""


class Backend(Protocol):
    """Runs trials; returns when each has ended."""

    @property
    def gpus_per_trial(self) -> float:
        """GPUs that one trial holds.

        Raises:
            InfeasibleError: no node has what one trial asks for.
        """

    @property
    def gpu_use(self) -> GpuUse | None:
        """What was measured to find how many trials share a GPU; None where nothing was to be measured."""

    @property
    def slots(self) -> int:
        """Trials that run at a time, as of now; may be asked from any thread."""

    def run(self, work: Work, settings: RunSettings, listener: Listener, stop_requested: Callable[[], bool]) -> None:
        """Runs what `work` hands out, again after errors as the listener says; nothing further once a stop is requested.

        A trial that could not even be begun may be left without an end.

        Raises:
            KeyboardInterrupt: the user interrupted at once; running attempts are closed, what they recorded stays.
        """

    def kill(self, trial_key: str) -> None:
        """Ends the running attempt of a trial that does not answer any more; may be called from any thread."""
