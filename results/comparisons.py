"""What the grid says: paired differences, the noise floor they must exceed, and the paper's numbers beside ours.

Two trials that differ in one factor are paired by seed, so that what they share cancels. At the shares 0 and 100 a
concatenated and a shuffled mixture hold the same examples in another order: their differences are the noise floor.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from results import paper
from results.grid import Cell, Grid, summarise

__all__ = [
    "ROUNDING",
    "Difference",
    "GainCheck",
    "LevelCheck",
    "NoiseFloor",
    "check_gains",
    "check_levels",
    "noise_floor",
    "order_differences",
    "retained",
    "trainable_differences",
]

ROUNDING = 0.5
"""EM points or percent; the paper prints whole numbers."""

_SHUFFLED, _CONCATENATED = "shuffled", "concatenated"
_SINGLE_DOMAIN_SHARES = (0, 100)


@dataclass(frozen=True)
class Difference:
    """One model or order against another at every share: points, and percent of what it is compared with."""

    what: str
    trainable: str
    order: str
    domain: str
    points: dict[int, Cell]
    percent: dict[int, float]


@dataclass(frozen=True)
class NoiseFloor:
    """Absolute differences, in points, between trials that differ in nothing but the order of one domain's examples."""

    pairs: tuple[tuple[str, str, int, int, float], ...]
    """(trainable, domain, share, seed, points)."""

    @property
    def mean(self) -> float | None:
        """Mean over the pairs; None without any."""
        return statistics.fmean(pair[-1] for pair in self.pairs) if self.pairs else None

    @property
    def max(self) -> float | None:
        """Largest of the pairs; None without any."""
        return max((pair[-1] for pair in self.pairs), default=None)

    def margin(self, num_pairs: float) -> float | None:
        """How far the mean of `num_pairs` differences strays from zero by noise alone, 95 %, in points; None without pairs.

        The pairs' true difference is zero, so their root mean square is the deviation, with a degree of freedom each.
        """
        from results.statistics import t_quantile

        if not self.pairs:
            return None
        deviation = math.sqrt(statistics.fmean(pair[-1] ** 2 for pair in self.pairs))
        return t_quantile(len(self.pairs)) * deviation / math.sqrt(num_pairs)

    def cells(self, trainable: str, domain: str) -> dict[int, Cell]:
        """Mean over seeds by share."""
        found = {
            share: summarise(p[-1] for p in self.pairs if p[:3] == (trainable, domain, share))
            for share in _SINGLE_DOMAIN_SHARES
        }
        return {share: cell for share, cell in found.items() if cell}

    def describe(self) -> str:
        """One line for people."""
        if self.mean is None or self.max is None:
            return "noise floor unknown: it needs both orders at 0:100 or 100:0"
        return f"noise floor: mean {self.mean:.2f}, max {self.max:.2f} points over {len(self.pairs)} order-equivalent pairs"


@dataclass(frozen=True)
class LevelCheck:
    """A published exact match beside ours; `ours` is None where the grid has no such trial."""

    published: paper.PublishedLevel
    domain: str
    ours: Cell | None


@dataclass(frozen=True)
class GainCheck:
    """A published gain beside ours, one value per share and domain, read as points and as relative percent."""

    published: paper.PublishedGain
    points: tuple[float, ...]
    percent: tuple[float, ...]
    holds_points: int
    """Values inside the published range, give or take the noise floor."""
    holds_percent: int


def trainable_differences(grid: Grid, *, metric: str = "em") -> list[Difference]:
    """Every other trainable minus the first, per order and domain."""
    return [
        _difference(f"{other} − {grid.trainables[0]}", grid, metric, domain, (grid.trainables[0], order), (other, order))
        for other in grid.trainables[1:]
        for order in grid.orders
        for domain in grid.domains
    ]


def order_differences(grid: Grid, *, metric: str = "em") -> list[Difference]:
    """Shuffled minus concatenated, per trainable and domain; nothing while one order is missing."""
    if not {_SHUFFLED, _CONCATENATED} <= set(grid.orders):
        return []
    return [
        _difference("shuffled − concatenated", grid, metric, domain, (name, _CONCATENATED), (name, _SHUFFLED))
        for name in grid.trainables
        for domain in grid.domains
    ]


def noise_floor(grid: Grid, *, metric: str = "em") -> NoiseFloor:
    """The order-equivalent pairs of the single-domain shares, whatever trainable, domain and seed."""
    pairs = [
        (trainable, domain, share, seed, abs(shuffled - concatenated))
        for trainable in grid.trainables
        for domain in grid.domains
        for share in _SINGLE_DOMAIN_SHARES
        for seed, concatenated, shuffled in _paired(
            grid, metric, domain, share, ((trainable, _CONCATENATED), (trainable, _SHUFFLED))
        )
    ]
    return NoiseFloor(tuple(pairs))


def check_levels(grid: Grid) -> list[LevelCheck]:
    """Each published exact match with ours: over both orders where the paper gives one number for both."""
    checks = []
    for level in paper.LEVELS:
        domain = _role(grid, level.domain_index)
        if domain is None:
            continue
        orders = [level.order] if level.order else list(grid.orders)
        values = [v for order in orders for v in grid.scores(level.trainable, order, domain, level.share).values()]
        checks.append(LevelCheck(level, domain, summarise(values)))
    return checks


def check_gains(grid: Grid) -> list[GainCheck]:
    """Each published gain with ours; no values where the grid lacks the trials."""
    tolerance = max(ROUNDING, noise_floor(grid).max or 0.0)
    return [_check_gain(grid, gain, tolerance) for gain in paper.GAINS]


def retained(grid: Grid) -> Cell | None:
    """Second domain's EM of the baseline at 60:40 in percent of its EM at 0:100, over orders and seeds (paper: 90)."""
    domain = _role(grid, 1)
    if domain is None:
        return None
    values = []
    for order in grid.orders:
        part = grid.scores(paper.BASELINE, order, domain, paper.RETAINED_SHARE)
        whole = grid.scores(paper.BASELINE, order, domain, 0)
        values += [100 * part[seed] / whole[seed] for seed in part if whole.get(seed)]
    return summarise(values)


def _difference(what: str, grid: Grid, metric: str, domain: str, base: tuple[str, str], other: tuple[str, str]) -> Difference:
    points: dict[int, Cell] = {}
    percent: dict[int, float] = {}
    for share in grid.shares:
        pairs = list(_paired(grid, metric, domain, share, (base, other)))
        cell = summarise(after - before for _, before, after in pairs)
        if cell is None:
            continue
        points[share] = cell
        if before_mean := statistics.fmean(before for _, before, _ in pairs):
            percent[share] = 100 * cell.mean / before_mean
    return Difference(what, other[0], other[1], domain, points, percent)


def _paired(
    grid: Grid, metric: str, domain: str, share: int, sides: tuple[tuple[str, str], tuple[str, str]]
) -> Iterator[tuple[int, float, float]]:
    """(seed, score of the first side, score of the second) for the seeds that both sides have."""
    first, second = (grid.scores(name, order, domain, share, metric=metric) for name, order in sides)
    return ((seed, first[seed], second[seed]) for seed in first if seed in second)


def _check_gain(grid: Grid, gain: paper.PublishedGain, tolerance: float) -> GainCheck:
    points, percent, holds_points, holds_percent = [], [], 0, 0
    for difference in _claimed(grid, gain):
        for share, cell in difference.points.items():
            if share not in gain.shares:
                continue
            points.append(cell.mean)
            holds_points += gain.low - tolerance <= cell.mean <= gain.high + tolerance
            relative = difference.percent.get(share)
            if relative is not None and cell.mean:
                percent.append(relative)
                # The tolerance is in points; what it amounts to in percent follows from the same base.
                slack = tolerance * abs(relative / cell.mean)
                holds_percent += gain.low - slack <= relative <= gain.high + slack
    return GainCheck(gain, tuple(points), tuple(percent), holds_points, holds_percent)


def _claimed(grid: Grid, gain: paper.PublishedGain) -> list[Difference]:
    """The differences a claim is about; the paper compares models on shuffled mixtures only (§3.2, last sentence)."""
    if gain.trainable is None:
        found = [d for d in order_differences(grid) if d.trainable == paper.BASELINE]
    else:
        found = [d for d in trainable_differences(grid) if (d.trainable, d.order) == (gain.trainable, _SHUFFLED)]
    if gain.domain_index is None:
        return found
    return [d for d in found if d.domain == _role(grid, gain.domain_index)]


def _role(grid: Grid, index: int) -> str | None:
    return grid.domains[index] if index < len(grid.domains) else None
