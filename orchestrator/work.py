"""What a run has to do: trials to hand out, what becomes of them after each report, and what is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Any, Protocol

from orchestrator.decisions import DecisionLog
from orchestrator.estimate import Expected, longest_first
from orchestrator.trial import Trial

__all__ = ["FixedWork", "Work"]


class Work(Protocol):
    """Used in the driver's main thread alone."""

    @property
    def known(self) -> Sequence[Trial] | None:
        """All trials that are left, in the order in which they should start, where no report can add one.

        None where trials follow from what others report.
        """

    @property
    def waits(self) -> bool:
        """Whether a trial that is left has to wait for another one that is left."""

    @property
    def num_left(self) -> int:
        """Trials that have not ended, as far as this run can end them."""

    @property
    def num_done(self) -> int:
        """Trials that are done, those of earlier runs included."""

    @property
    def num_stopped_early(self) -> int:
        """Of these, the trials that were not trained to their end, for what they reported."""

    @property
    def total(self) -> int:
        """Trials of the whole sweep, as far as is known."""

    def limit(self, num_trials: int) -> None:
        """Ends at most so many trials in this run."""

    def begin(self, log: DecisionLog, show: Callable[[Trial], None]) -> list[tuple[str, str]]:
        """Before the first trial: from now on decisions go to `log`, and `show` hears of trials that nobody knew before.

        Returns the keys of trials that are to be ended, and why: their drivers died before they could do so.
        """

    def next(self) -> Trial | None:
        """The next trial to run; None when there is none, or none yet. A backend asks only when it has a slot for it."""

    def reported(self, trial_key: str, shown: dict[str, Any]) -> str | None:
        """Hears a report that is in the ledger, as `Listener.reported`; returns why the trial is to end now, None to go on."""

    def ended(self, trial_key: str, status: str, reason: str | None, failure_class: str | None) -> None:
        """Hears that a trial needs no further attempt in this run."""

    def hand_out_again(self) -> None:
        """Hands out once more what was handed out and has not ended: the backend could not even begin it."""


class FixedWork:
    """A list of trials, each to be run to its end once its parents are; those that are expected to take longest start first.

    What begins from a trial that failed cannot be run: it is blocked, until that trial is retried.
    """

    num_stopped_early = 0

    def __init__(
        self,
        trials: Sequence[Trial],
        num_done: int,
        total: int,
        expected: Mapping[str, Expected] = MappingProxyType({}),
    ) -> None:
        """`num_done`, `total`: of the whole sweep, `trials` being what is to be run of it now, in the order of the plan.

        `expected`: how long trials will take, by key, as far as that is known.
        """
        self.num_done = num_done
        self.total = total
        self._left = {trial.key: trial for trial in trials}
        self._expected = expected
        self._waiting: list[Trial] = []
        self.hand_out_again()

    @property
    def waits(self) -> bool:
        """See `Work.waits`."""
        return any(key in self._left for trial in self._left.values() for key in trial.parent_keys)

    @property
    def known(self) -> Sequence[Trial]:
        """See `Work.known`."""
        return longest_first(list(self._left.values()), self._expected)

    @property
    def num_left(self) -> int:
        """See `Work.num_left`."""
        return len(self._left)

    def limit(self, num_trials: int) -> None:
        """See `Work.limit`: the first of the plan."""
        self._left = dict(islice(self._left.items(), num_trials))
        self.hand_out_again()

    def begin(self, log: DecisionLog, show: Callable[[Trial], None]) -> list[tuple[str, str]]:
        """See `Work.begin`: there is nothing to decide."""
        return []

    def next(self) -> Trial | None:
        """See `Work.next`."""
        ready = (trial for trial in self._waiting if not any(key in self._left for key in trial.parent_keys))
        chosen = next(ready, None)
        if chosen is not None:
            self._waiting.remove(chosen)
        return chosen

    def reported(self, trial_key: str, shown: dict[str, Any]) -> str | None:
        """See `Work.reported`."""
        return None

    def ended(self, trial_key: str, status: str, reason: str | None, failure_class: str | None) -> None:
        """See `Work.ended`."""
        self._left.pop(trial_key, None)
        self.num_done += status == "completed"
        if status != "completed":
            self._block(trial_key)

    def _block(self, trial_key: str) -> None:
        """Nothing that begins from the trial can be run any more."""
        for child in [trial for trial in self._left.values() if trial_key in trial.parent_keys]:
            self._left.pop(child.key, None)  # gone already where it begins from several that are blocked
            self._block(child.key)
        self._waiting = [trial for trial in self._waiting if trial.key in self._left]

    def hand_out_again(self) -> None:
        """See `Work.hand_out_again`."""
        self._waiting = list(self.known)
