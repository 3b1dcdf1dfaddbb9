"""The mixture grid: trainables x shares x orders x seeds (papers: document A, section 2.2.2; 2 x 6 x 2 = 24 models)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

__all__ = ["GridPoint", "mixture_grid"]

Order = Literal["concatenated", "shuffled"]


@dataclass(frozen=True, kw_only=True)
class GridPoint:
    """One cell of the grid with one seed."""

    trainable: str  # with its variant, e.g. exbert:tuned
    share: int  # percent of the first domain
    order: Order
    seed: int


def mixture_grid(
    *, trainables: Sequence[str], shares: Sequence[int], orders: Sequence[Order], seeds: Sequence[int]
) -> Iterator[GridPoint]:
    """Every combination, seeds outermost, so that a sweep cut short has whole grids of the first seeds."""
    for seed, trainable, order, share in product(seeds, trainables, orders, shares):
        yield GridPoint(trainable=trainable, share=share, order=order, seed=seed)
