"""Statistics of scores: bootstrap and randomisation over groups of examples, McNemar, Holm, intervals over seeds.

Arrays in, numbers out; nothing here knows the ledger. Everything random is seeded: the same scores give the same numbers.

Legend of shapes: N = examples, G = groups, C = columns (trials or comparisons), R = resamples.
Sources: bootstrap over groups: Davison and Hinkley, "Bootstrap Methods and their Application" (1997), §3.8; percentile
intervals: §5.3; p as (1 + count) / (R + 1): §4.2. Sign flips: Good, "Permutation, Parametric and Bootstrap Tests of
Hypotheses" (2005), §3.2. McNemar and Holm: statsmodels. t: scipy.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "ALPHA",
    "RESAMPLES",
    "Estimate",
    "McNemar",
    "estimate",
    "holm",
    "mcnemar",
    "relative_improvement",
    "resampled_means",
    "sign_flip_p",
    "t_interval",
    "t_quantile",
]

ALPHA = 0.05
"""Of tests; intervals are at 95 %."""

RESAMPLES = 10_000

_CHUNK = 2_000_000
"""Random numbers held at a time, so that memory does not grow with the test set."""

Reals = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval and the two-sided p of the value being zero; None where there is too little."""

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of two models on the same examples."""

    exact_p: float
    """Two-sided binomial."""
    chi2: float | None
    """With continuity correction; None where the models never differ."""
    chi2_p: float | None


def resampled_means(values: Reals, groups: Integers, *, resamples: int = RESAMPLES, seed: int = 0) -> Reals:
    """Means of the columns of `values` (N, C) as measured, then over `resamples` draws of whole groups: (1 + R, C).

    `groups` (N,) holds 0 … G − 1. All columns see the same draws, so that differences of columns stay paired.
    """
    sums, sizes = _group_sums(values, groups), np.bincount(groups).astype(np.float64)
    rows = [sums.sum(axis=0, keepdims=True) / sizes.sum()]
    generator, num_groups = np.random.default_rng(seed), len(sizes)
    for count in _chunks(resamples, num_groups):
        drawn = generator.integers(0, num_groups, size=(count, num_groups)) + num_groups * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * num_groups).reshape(count, num_groups).astype(np.float64)
        rows.append((weights @ sums) / (weights @ sizes)[:, None])
    return np.concatenate(rows)


def estimate(draws: Reals) -> Estimate | None:
    """The value, percentile interval and p of a statistic computed on every row of `resampled_means`: `draws` (1 + R,).

    None where the statistic has no value. A statistic that never changes has no interval.
    """
    value, resampled = float(draws[0]), draws[1:][np.isfinite(draws[1:])]
    if not math.isfinite(value):
        return None
    if len(resampled) < 0.5 * (len(draws) - 1) or np.ptp(resampled) == 0:
        return Estimate(value)
    low, high = np.quantile(resampled, [ALPHA / 2, 1 - ALPHA / 2])
    tail = min(np.count_nonzero(resampled <= 0), np.count_nonzero(resampled >= 0))
    return Estimate(value, float(low), float(high), min(1.0, 2 * (1 + tail) / (len(resampled) + 1)))


def sign_flip_p(differences: Reals, groups: Integers, *, resamples: int = RESAMPLES, seed: int = 0) -> list[float]:
    """Two-sided p of each column of paired `differences` (N, C) having no side, by swapping the pair in whole groups."""
    sums = _group_sums(differences, groups)
    # Rounding must not make an equal sum look smaller than the measured one.
    measured = np.abs(sums.sum(axis=0)) * (1 - 1e-12)
    generator, reached = np.random.default_rng(seed), np.zeros(sums.shape[1])
    for count in _chunks(resamples, len(sums)):
        signs = generator.integers(0, 2, size=(count, len(sums))) * 2.0 - 1.0
        reached += (np.abs(signs @ sums) >= measured).sum(axis=0)
    return [float(p) for p in (1 + reached) / (1 + resamples)]


def mcnemar(base_only: int, other_only: int) -> McNemar:
    """The test from the numbers of examples that one of the two models alone has right."""
    from statsmodels.stats.contingency_tables import mcnemar as test

    # The examples on which both agree do not enter the test.
    table = [[0, base_only], [other_only, 0]]
    if not base_only + other_only:
        return McNemar(1.0, None, None)
    exact, corrected = test(table, exact=True), test(table, exact=False, correction=True)
    return McNemar(float(exact.pvalue), float(corrected.statistic), float(corrected.pvalue))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p of one family, in the order given; None stays None and does not count."""
    from statsmodels.stats.multitest import multipletests

    known = [p for p in p_values if p is not None]
    gc.freeze()  # multipletests collects garbage at each call, which takes longer the more objects there are
    try:
        adjusted = iter(multipletests(known, method="holm")[1].tolist() if known else ())
    finally:
        gc.unfreeze()
    return [None if p is None else next(adjusted) for p in p_values]


def t_quantile(degrees: int) -> float:
    """The two-sided 95 % quantile of Student's t."""
    from scipy.special import stdtrit  # in a tenth of the time that scipy.stats takes to import

    return float(stdtrit(degrees, 1 - ALPHA / 2))


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    seen: Any = np.asarray(values)
    half = t_quantile(len(values) - 1) * float(seen.std(ddof=1)) / math.sqrt(len(values))
    return float(seen.mean()) - half, float(seen.mean()) + half


def relative_improvement(value: float, random_mean: float) -> float:
    """RI in percent of a loss: how far `value` lies below the mean of random configurations.

    Source: Yang et al., "NAS evaluation is frustratingly hard" (2020), eq. 1, with the sign turned since a loss is
    better when lower.
    """
    return 100 * (random_mean - value) / random_mean


def _group_sums(values: Reals, groups: Integers) -> Reals:
    """Sums over each group: (G, C)."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    return np.add.reduceat(values[order], starts, axis=0)


def _chunks(resamples: int, num_groups: int) -> Iterator[int]:
    size = max(1, _CHUNK // num_groups)
    for start in range(0, resamples, size):
        yield min(size, resamples - start)
