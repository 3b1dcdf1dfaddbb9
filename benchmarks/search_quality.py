"""Search quality: what each contender has found for the same epochs, or the same time, on the same curves."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.table import Table as Shown
from search_clock import Moment, replay
from search_contenders import Contender
from search_table import Table

BUDGETS = (15, 25, 50, 75, 100)
"""Epochs in all; 3 to 20 configurations trained to the end."""

_NUM_RESAMPLES = 2000

_GRID = np.arange(1, 4 * max(BUDGETS) + 1) / 2

_SAME = 1e-9

Regrets = NDArray[np.float64]
Statistic = Callable[..., Regrets]
Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Found:
    """All searches of one contender, one for each seed."""

    name: str
    searches: Sequence[Sequence[Moment]]

    def regrets(self, at: float, what: Callable[[Moment], float]) -> Regrets:
        """For each seed the regret when `what` (epochs or seconds) had come to `at`, infinite before anything was known."""
        found = []
        for moments in self.searches:
            place = bisect.bisect_right(moments, at + 1e-9, key=what)
            found.append(moments[place - 1].regret if place else math.inf)
        return np.array(found)


def search_all(table: Table, grace: int, contenders: Sequence[Contender], repeats: int) -> list[Found]:
    """Every contender with the seeds 0 to `repeats` - 1, for twice the largest budget or until the table is used up."""
    epochs = 2.0 * max(BUDGETS)
    return [
        Found(each.name, [replay(table, each.make(table, grace, seed), each.workers, epochs) for seed in range(repeats)])
        for each in contenders
    ]


def quality_tables(table: Table, found: Sequence[Found]) -> list[Shown]:
    """Regret at equal epochs and at equal time, differences seed by seed, and epochs saved."""
    epoch_seconds = float(np.mean([trial.seconds_per_epoch for trial in table.trials]))
    times = [budget * epoch_seconds / 2 for budget in BUDGETS]  # what two workers need for them
    by_epochs = _regret_table("Regret by epochs trained: median of the seeds (90% interval of it)", found, BUDGETS, _epochs)
    by_time = _regret_table("Regret by simulated seconds", found, times, _seconds)
    ratios = [_ratio_table(found, np.median, "median"), _ratio_table(found, np.mean, "mean")]
    return [by_epochs, by_time, _difference_table(found), *ratios]


def _epochs(moment: Moment) -> float:
    return moment.epochs


def _seconds(moment: Moment) -> float:
    return moment.seconds


def _regret_table(title: str, found: Sequence[Found], places: Sequence[float], what: Callable[[Moment], float]) -> Shown:
    shown = Shown("contender", *(f"{place:.0f}" for place in places), title=title)
    for each in found:
        shown.add_row(each.name, *(_text(_interval(each.regrets(place, what), np.median)) for place in places))
    return shown


def _difference_table(found: Sequence[Found]) -> Shown:
    """Ours less theirs with the same seed: below 0 is better. `worse` where the whole interval is above 0."""
    title = "Mean difference of regrets by epochs, ours less theirs (90% interval)"
    shown = Shown("ours", "theirs", *map(str, BUDGETS), title=title)
    for ours in found[:2]:
        for theirs in found[2:]:
            cells = []
            for budget in BUDGETS:
                interval = _interval(ours.regrets(budget, _epochs) - theirs.regrets(budget, _epochs), np.mean)
                verdict = "worse" if interval[1] > 0 else "better" if interval[2] < 0 else ""
                cells.append(f"{_text(interval)} {verdict}".strip())
            shown.add_row(ours.name, theirs.name, *cells)
    return shown


def _ratio_table(found: Sequence[Found], statistic: Statistic, called: str) -> Shown:
    """How many times the epochs random search needs until its regret is what it is at each budget."""
    shown = Shown("contender", *map(str, BUDGETS), title=f"Epochs of random search ÷ epochs to the same {called} regret")
    courses = {each.name: _courses(each, statistic) for each in found}
    random = courses.pop(found[2].name)
    for name, course in courses.items():
        shown.add_row(name, *(_ratio_text(random, course, budget) for budget in BUDGETS))
    return shown


def _courses(found: Found, statistic: Statistic) -> Regrets:
    """The statistic at each epoch of the grid: first of all seeds, then of seeds drawn again, the same for all contenders."""
    regrets = np.array([found.regrets(epoch, _epochs) for epoch in _GRID])
    picks = np.random.default_rng(0).integers(regrets.shape[1], size=(_NUM_RESAMPLES // 4, regrets.shape[1]))
    return np.array([statistic(regrets, axis=1), *(statistic(regrets[:, seeds], axis=1) for seeds in picks)])


def _ratio_text(random: Regrets, course: Regrets, budget: float) -> str:
    ratios = [_ratio(one, other, budget) for one, other in zip(random, course, strict=True)]
    low, high = np.quantile(ratios[1:], [0.05, 0.95])
    shown = [f"{ratio:.1f}" if ratio else "never" for ratio in (ratios[0], low, high)]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"


def _ratio(random: Regrets, course: Regrets, budget: float) -> float:
    """0 where the course never comes to the regret of random search at `budget`. Random search may have had it earlier."""
    wanted = random[np.searchsorted(_GRID, budget)] + _SAME
    there = np.flatnonzero(course <= wanted)
    return float(_GRID[np.flatnonzero(random <= wanted)[0]] / _GRID[there[0]]) if there.size else 0.0


def _interval(values: Regrets, statistic: Statistic) -> Interval:
    """The statistic, and 5 % and 95 % of it over resampled seeds."""
    picks = np.random.default_rng(0).integers(len(values), size=(_NUM_RESAMPLES, len(values)))
    with np.errstate(invalid="ignore"):
        low, high = np.quantile(statistic(values[picks], axis=1), [0.05, 0.95])
    return float(statistic(values)), float(low), float(high)


def _text(interval: Interval) -> str:
    middle, low, high = interval
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"
