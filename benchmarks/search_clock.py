"""Any searcher on recorded curves, workers and a clock: what it has found after each report."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from search_table import REPORTS_PER_EPOCH, Table

from search_spaces.space import Value

Verdict = Literal["go on", "stop", "pause"]


class Searcher(Protocol):
    """One search of a contender, begun when it is made."""

    def next(self, number: int) -> Mapping[str, Value] | int:
        """For a free worker: the point of the new trial `number`, or the number of a paused trial to take up again."""

    def report(self, number: int, epoch: float, loss: float) -> Verdict:
        """What becomes of a trial; at the last epoch it ends whatever the answer is."""


class Moment(NamedTuple):
    """After a report. `regret` is that of the trial that would be chosen now, trained to the end."""

    epochs: float  # trained so far, all trials together
    seconds: float
    regret: float


@dataclass(slots=True)
class _Trial:
    row: int
    num_reports: int = 0
    loss: float = math.inf


class _Replay:
    """A search under way: a worker trains one trial, from report to report."""

    def __init__(self, table: Table, searcher: Searcher) -> None:
        self.table = table
        self.searcher = searcher
        self.trials: dict[int, _Trial] = {}
        self.queue: list[tuple[float, int, int]] = []  # when it reports, tie-breaker, number
        self.now = 0.0
        self._turn = 0

    def start(self) -> bool:
        """Gives a free worker something to train; False when every recorded trial was tried."""
        taken = {trial.row for trial in self.trials.values()}
        if len(taken) == len(self.table.trials):
            return False
        number = len(self.trials)
        given = self.searcher.next(number)
        if not isinstance(given, int):
            row = self.table.nearest(given, taken)
            assert row is not None
            self.trials[number] = _Trial(row)
            given = number
        self.train(given)
        return True

    def train(self, number: int) -> None:
        """Until the trial's next report."""
        seconds = self.table.trials[self.trials[number].row].seconds_per_epoch / REPORTS_PER_EPOCH
        self._turn += 1
        heapq.heappush(self.queue, (self.now + seconds, self._turn, number))

    def advance(self) -> bool:
        """To the next report; True when it frees the worker."""
        self.now, _, number = heapq.heappop(self.queue)
        trial = self.trials[number]
        recorded = self.table.trials[trial.row]
        trial.loss = recorded.losses[trial.num_reports]
        trial.num_reports += 1
        verdict = self.searcher.report(number, trial.num_reports / REPORTS_PER_EPOCH, trial.loss)
        if verdict != "go on" or trial.num_reports == len(recorded.losses):
            return True
        self.train(number)
        return False

    def regret(self) -> float:
        """Of the best among the trials that were trained longest: one rule for all contenders."""
        chosen = min(self.trials.values(), key=lambda trial: (-trial.num_reports, trial.loss))
        return self.table.trials[chosen.row].final - self.table.best


def replay(table: Table, searcher: Searcher, workers: int, max_epochs: float) -> list[Moment]:
    """The search until `max_epochs` were trained in all, or every recorded trial was tried."""
    state = _Replay(table, searcher)
    free = workers
    moments: list[Moment] = []
    while not moments or moments[-1].epochs < max_epochs:
        while free and state.start():
            free -= 1
        if not state.queue:
            break
        free += state.advance()
        moments.append(Moment((len(moments) + 1) / REPORTS_PER_EPOCH, state.now, state.regret()))
    return moments
