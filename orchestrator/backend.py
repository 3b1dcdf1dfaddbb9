"""What a backend does and tells: it runs attempts at trials, and a listener hears of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from orchestrator.trial import Trial
from orchestrator.worker import RunSettings

__all__ = ["Backend", "Listener"]


class Listener(Protocol):
    """Hears, in the driver, what happens to trials. Errors are an exception's class name and its traceback."""

    def started(self, trial_key: str) -> None:
        """A worker has taken the trial."""

    def reported(self, trial_key: str, shown: dict[str, Any]) -> None:
        """The trial has a new report, already in the ledger; `shown` is what a person may want to see of it."""

    def retrying(self, trial_key: str, error_type: str, error: str) -> None:
        """An attempt failed or its worker was lost; another attempt will follow."""

    def completed(self, trial_key: str) -> None:
        """The trial is complete."""

    def failed(self, trial_key: str, error_type: str, error: str) -> None:
        """The last attempt failed too."""


class Backend(Protocol):
    """Runs trials; returns when each is completed or failed."""

    @property
    def gpus_per_trial(self) -> float:
        """GPUs that one trial holds.

        Raises:
            InfeasibleError: no node has what one trial asks for.
        """

    @property
    def slots(self) -> int:
        """Trials that run at a time."""

    def run(self, trials: Sequence[Trial], settings: RunSettings, listener: Listener, *, max_retries: int) -> None:
        """Runs every trial. A failing one does not stop the others.

        Raises:
            KeyboardInterrupt: the user interrupted; running attempts are closed, what they recorded stays.
        """
