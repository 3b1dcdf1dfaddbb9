"""Grouping in Python, for those that hand out trials and leave the rest to the user."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ledger_contender import Rows

__all__ = ["count_by", "hour", "mean_by", "sum_by"]


def count_by(groups: Iterable[Any]) -> Rows:
    """How often each comes, sorted."""
    return sorted(Counter(groups).items())


def sum_by(pairs: Iterable[tuple[Any, float]]) -> Rows:
    """The sum of each group's values, sorted by group."""
    sums: defaultdict[Any, float] = defaultdict(float)
    for group, value in pairs:
        sums[group] += value
    return sorted(sums.items())


def mean_by(values: Mapping[tuple[Any, ...], Sequence[float]]) -> Rows:
    """The mean of each group's values, sorted by group."""
    return sorted((*group, sum(each) / len(each)) for group, each in values.items())


def hour(stamp: float) -> datetime:
    """The hour in which this instant lies, UTC; `stamp` in seconds since 1970."""
    return datetime.fromtimestamp(stamp // 3600 * 3600, UTC)
