"""Statistics against a second implementation or a published example, and how often they are wrong where nothing is there."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from results.statistics import (
    estimate,
    holm,
    mcnemar,
    relative_improvement,
    resampled_means,
    sign_flip_p,
    t_interval,
)

Groups = np.ndarray


def _grouped(num_groups: int, seed: int) -> tuple[np.ndarray, Groups]:
    """Scores in points (N, 3) that groups share, groups of one to six examples."""
    generator = np.random.default_rng(seed)
    groups = np.repeat(np.arange(num_groups), generator.integers(1, 7, num_groups))
    shared = generator.normal(0, 1, (num_groups, 3))[groups]
    return 100.0 * (shared + generator.normal(0, 1, (len(groups), 3)) > 0.3), groups.astype(np.int64)


def test_bootstrap_over_groups_agrees_with_scipys() -> None:
    values, groups = _grouped(120, seed=1)
    draws = resampled_means(values, groups)
    sizes = np.bincount(groups).astype(float)
    for column in range(values.shape[1]):
        sums = np.bincount(groups, weights=values[:, column])
        scipys = stats.bootstrap(
            (sums, sizes),
            lambda s, n, axis: s.sum(axis) / n.sum(axis),
            paired=True,
            vectorized=True,
            method="percentile",
            n_resamples=10_000,
            rng=np.random.default_rng(2),
        )
        found = estimate(draws[:, column])
        assert found is not None and found.low is not None and found.high is not None
        assert found.value == pytest.approx(values[:, column].mean())
        assert draws[1:, column].std(ddof=1) == pytest.approx(scipys.standard_error, rel=0.04)
        assert (found.low, found.high) == pytest.approx(tuple(scipys.confidence_interval), abs=0.5)


def test_examples_of_a_group_do_not_count_twice() -> None:
    """Every example written down three times: the interval over groups stays, the one over rows would shrink."""
    values, _ = _grouped(150, seed=3)
    once = resampled_means(values, np.arange(len(values)))
    thrice = resampled_means(np.repeat(values, 3, axis=0), np.repeat(np.arange(len(values)), 3))
    np.testing.assert_allclose(once, thrice)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.floats(-50, 50))
def test_resamples_are_paired_seeded_and_move_with_the_values(seed: int, num_groups: int, shift: float) -> None:
    values, groups = _grouped(num_groups, seed)
    draws = resampled_means(values, groups, resamples=50)
    assert draws.shape == (51, 3)
    np.testing.assert_array_equal(draws, resampled_means(values, groups, resamples=50))
    np.testing.assert_allclose(resampled_means(values + shift, groups, resamples=50), draws + shift, atol=1e-9)
    difference = resampled_means(values[:, :1] - values[:, 1:2], groups, resamples=50)
    np.testing.assert_allclose(difference[:, 0], draws[:, 0] - draws[:, 1], atol=1e-9)
    assert draws.min() >= 0 and draws.max() <= 100


def test_chunks_of_resamples_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values, groups = _grouped(40, seed=4)
    whole, p_values = resampled_means(values, groups, resamples=200), sign_flip_p(values - 50, groups, resamples=200)
    monkeypatch.setattr("results.statistics._CHUNK", 40 * 7)
    np.testing.assert_array_equal(whole, resampled_means(values, groups, resamples=200))
    assert p_values == sign_flip_p(values - 50, groups, resamples=200)


def test_statistic_that_never_changes_has_no_interval() -> None:
    found = estimate(np.full(101, 3.0))
    assert found is not None
    assert (found.value, found.low, found.high, found.p) == (3.0, None, None, None)
    assert estimate(np.full(101, math.nan)) is None


def test_sign_flips_agree_with_scipys_exact_permutations() -> None:
    generator = np.random.default_rng(5)
    differences = generator.normal(0.5, 1, (12, 4))
    ours = sign_flip_p(differences, np.arange(12), resamples=20_000)
    for column, p in enumerate(ours):
        exact = stats.permutation_test(
            (differences[:, column],), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
        )
        assert p == pytest.approx(exact.pvalue, abs=0.012)


def test_no_difference_at_all_has_p_one() -> None:
    assert sign_flip_p(np.zeros((9, 2)), np.arange(9), resamples=100) == [1.0, 1.0]


def test_mcnemar_on_the_approval_ratings() -> None:
    """Agresti, "Categorical Data Analysis" (2nd ed., 2002), Table 10.1: 150 and 86 of 1600 changed their mind."""
    found = mcnemar(150, 86)
    assert found.chi2 == pytest.approx((150 - 86 - 1) ** 2 / 236)
    assert found.chi2_p == pytest.approx(stats.chi2.sf((150 - 86 - 1) ** 2 / 236, 1))
    assert found.exact_p == pytest.approx(stats.binomtest(86, 236).pvalue)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_exact_mcnemar_is_the_binomial_test(base_only: int, other_only: int) -> None:
    found = mcnemar(base_only, other_only)
    total = base_only + other_only
    assert found.exact_p == pytest.approx(stats.binomtest(base_only, total).pvalue if total else 1.0)
    assert (found.chi2 is None) == (total == 0)
    assert mcnemar(other_only, base_only) == found


def test_holm_on_the_textbook_example() -> None:
    """Four p of the example in Wikipedia's "Holm–Bonferroni method": the fourth and the first are rejected at 0.05."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def _step_down(p_values: list[float]) -> list[float]:
    """Holm, "A simple sequentially rejective multiple test procedure" (1979), as it is written."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, reached = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        reached = max(reached, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, reached)
    return adjusted


@settings(max_examples=6, deadline=None)  # statsmodels collects garbage at each call
@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12))
def test_holm_is_the_step_down_and_leaves_unknown_p_out(p_values: list[float | None]) -> None:
    adjusted = holm(p_values)
    known = [p for p in p_values if p is not None]
    assert [p for p in adjusted if p is not None] == pytest.approx(_step_down(known))
    assert [p is None for p in adjusted] == [p is None for p in p_values]
    for p, after in zip(p_values, adjusted, strict=True):
        assert p is None or (after is not None and p - 1e-12 <= after <= min(1.0, len(known) * p) + 1e-12)


def test_interval_over_seeds_on_students_sleep_data() -> None:
    """Student (1908), hours of sleep gained; R's t.test(paired = TRUE) on `sleep` prints 0.7001142 2.4598858."""
    gained = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    assert t_interval(gained) == pytest.approx((0.7001142, 2.4598858), abs=1e-7)
    assert t_interval([1.0]) is None


@settings(deadline=None)
@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=20))
def test_random_configurations_improve_on_their_own_mean_by_nothing(losses: list[float]) -> None:
    mean = math.fsum(losses) / len(losses)
    improvements = [relative_improvement(loss, mean) for loss in losses]
    assert math.fsum(improvements) / len(improvements) == pytest.approx(0, abs=1e-9)


def test_false_positives_are_as_rare_as_stated_over_groups_and_not_over_rows() -> None:
    """800 comparisons of two equal models whose answers agree within a question: each column is one comparison."""
    generator, num_groups, num_columns = np.random.default_rng(6), 80, 800
    groups = np.repeat(np.arange(num_groups), generator.integers(1, 9, num_groups)).astype(np.int64)
    shape = (num_groups, num_columns)
    sides = [
        100.0 * (generator.normal(0, 2, shape)[groups] + generator.normal(0, 1, (len(groups), num_columns)) > 0)
        for _ in range(2)
    ]
    differences = sides[1] - sides[0]
    flips = np.array(sign_flip_p(differences, groups, resamples=400)) < 0.05
    draws = resampled_means(differences, groups, resamples=400)
    low, high = np.quantile(draws[1:], [0.025, 0.975], axis=0)
    missed = (low > 0) | (high < 0)
    rows = [mcnemar(int((column < 0).sum()), int((column > 0).sum())).exact_p < 0.05 for column in differences[:, :200].T]
    # Two standard errors of 800 draws at 5 % are 1.5 percentage points; percentile intervals of few groups are a little short.
    assert 0.03 <= flips.mean() <= 0.07
    assert 0.03 <= missed.mean() <= 0.09
    assert np.mean(rows) > 0.15
