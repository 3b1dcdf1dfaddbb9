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
    "LevelCheck",
    "NoiseFloor",
    "check_levels",
    "is_of_two_domains",
    "noise_floor",
    "order_differences",
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
        return (
            f"noise floor: mean {self.mean:.2f}, max {self.max:.2f} points over {len(self.pairs)} pairs at 0:100 and 100:0, "
            "where shuffled and concatenated are the same examples"
        )


@dataclass(frozen=True)
class LevelCheck:
    """A published exact match beside ours; `ours` is None where the grid has no such trial."""

    published: paper.PublishedLevel
    domain: str
    ours: Cell | None


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


def is_of_two_domains(grid: Grid) -> bool:
    """As the paper's grid: a share of 0 or 100 is one domain, and its numbers can stand beside ours."""
    return grid.num_mixed <= len(paper.DOMAIN_TITLES)


def noise_floor(grid: Grid, *, metric: str = "em") -> NoiseFloor:
    """The order-equivalent pairs of the single-domain shares, whatever trainable, domain and seed."""
    pairs = [
        (trainable, domain, share, seed, abs(shuffled - concatenated))
        for trainable in grid.trainables
        for domain in grid.domains
        for share in (_SINGLE_DOMAIN_SHARES if is_of_two_domains(grid) else ())
        for seed, concatenated, shuffled in _paired(
            grid, metric, domain, share, ((trainable, _CONCATENATED), (trainable, _SHUFFLED))
        )
    ]
    return NoiseFloor(tuple(pairs))


def check_levels(grid: Grid) -> list[LevelCheck]:
    """Each published exact match with ours: over both orders where the paper gives one number for both."""
    checks = []
    for level in paper.LEVELS if is_of_two_domains(grid) else ():
        domain = _role(grid, level.domain_index)
        if domain is None:
            continue
        orders = [level.order] if level.order else list(grid.orders)
        values = [v for order in orders for v in grid.scores(level.trainable, order, domain, level.share).values()]
        checks.append(LevelCheck(level, domain, summarise(values)))
    return checks


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


def _role(grid: Grid, index: int) -> str | None:
    return grid.domains[index] if index < len(grid.domains) else None
