"""Analysis of variance: a published experiment, known effects found again, what is analysed where trials are missing."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from synthetic_ledger import synthetic_ledger

from results.effects import analyse_variance, balanced_part, effects_table
from results.grid import Grid, GridTrial, load_grid
from results.ledger import Ledger


def test_two_factors_with_repetitions_as_published() -> None:
    """Tippett's warp breaks; R prints this table for `summary(aov(breaks ~ wool * tension, warpbreaks))`."""
    breaks = {
        ("A", "L"): "26 30 54 25 70 52 51 26 67", ("A", "M"): "18 21 29 17 12 18 35 30 36",
        ("A", "H"): "36 21 24 18 10 43 28 15 26", ("B", "L"): "27 14 29 19 29 31 41 20 44",
        ("B", "M"): "42 26 19 16 39 28 21 39 29", ("B", "H"): "20 21 24 17 13 15 15 16 28",
    }  # fmt: skip
    scores = [(levels, float(count)) for levels, counts in breaks.items() for count in counts.split()]
    terms = analyse_variance(scores, ["wool", "tension"])
    assert [(term.name, term.degrees) for term in terms] == [
        ("wool", 1),
        ("tension", 2),
        ("wool × tension", 2),
        ("residual", 48),
    ]
    assert [term.sum_of_squares for term in terms] == pytest.approx([450.7, 2034.3, 1002.8, 5745.1], abs=0.06)
    assert [term.f for term in terms[:3]] == pytest.approx([3.765, 8.498, 4.189], abs=6e-4)
    assert [term.p for term in terms[:3]] == pytest.approx([0.058213, 0.000693, 0.021044], abs=1e-6)


def test_blocks_of_two_are_the_paired_t_test() -> None:
    """Student's sleep data (1908): t = -4.0621 of 9 degrees, p = 0.002833, as R's t.test(paired = TRUE) prints."""
    drugs = ("0.7 -1.6 -0.2 -1.2 -0.1 3.4 3.7 0.8 0.0 2.0", "1.9 0.8 1.1 0.1 -0.1 4.4 5.5 1.6 4.6 3.4")
    hours = [((drug, patient), float(gain)) for drug, gains in enumerate(drugs) for patient, gain in enumerate(gains.split())]
    terms = {term.name: term for term in analyse_variance(hours, ["drug"], "patient")}
    assert terms["residual"].degrees == 9
    assert terms["drug"].f == pytest.approx(4.0621**2, rel=1e-4)
    assert terms["drug"].p == pytest.approx(0.002833, abs=1e-6)


def _grid(em: dict[tuple[str, int, str, int], float]) -> Grid:
    trials = tuple(
        GridTrial(f"{index:016x}", "grid-1", name, order, share, seed, "completed", None, {"squad": value}, {"squad": value})
        for index, ((name, share, order, seed), value) in enumerate(em.items())
    )
    return Grid(trials, ("squad",), "synthetic", 4000)


_CELLS = list(product(("distilbert", "exbert"), (0, 20, 40, 60, 80, 100), ("concatenated", "shuffled"), (0, 1, 2)))


def test_effects_that_were_put_in_are_found_and_others_are_not() -> None:
    generator = np.random.default_rng(0)
    em = {
        cell: 30
        + 0.3 * cell[1]
        + 4 * (cell[0] == "exbert")
        + 0.05 * cell[1] * (cell[2] == "shuffled")
        + generator.normal(0, 0.8)
        for cell in _CELLS
    }
    table, notes = effects_table(_grid(em))
    rows = {row["term"]: row for row in table.to_pylist()}
    assert {name for name, row in rows.items() if row["holm p"] is not None and row["holm p"] < 0.01} == {
        "trainable", "share", "order", "share × order",
    }  # fmt: skip
    assert rows["trainable"]["effect"] == "exbert − distilbert"
    assert rows["trainable"]["low"] < 4 < rows["trainable"]["high"]
    assert rows["share"]["effect"] == "100:0 − 0:100"
    assert rows["residual"]["p"] is None
    assert sum(row["df"] for row in rows.values()) == len(em) - 1
    assert "72 trials (2 of trainable, 6 of share, 2 of order, 3 of seed)" in notes[0]


def test_main_effect_is_the_mean_of_paired_differences_with_the_residuals_interval() -> None:
    generator = np.random.default_rng(1)
    em = {cell: generator.normal(50, 3) for cell in _CELLS if cell[3] == 0}
    row = next(row for row in effects_table(_grid(em))[0].to_pylist() if row["term"] == "order")
    differences = [em[(t, s, "shuffled", 0)] - em[(t, s, "concatenated", 0)] for t, s, order, _ in em if order == "shuffled"]
    assert row["points"] == pytest.approx(np.mean(differences))
    # F of one degree of freedom is the square of t, so that the interval holds zero exactly where p is above 0.05.
    t = row["points"] / ((row["high"] - row["points"]) / 2.570582)
    assert t**2 == pytest.approx(row["F"], rel=1e-5)


def test_false_positives_over_the_terms_of_a_grid_are_rare() -> None:
    generator, found = np.random.default_rng(2), 0
    for _ in range(10):
        em = {cell: generator.normal(50, 2) for cell in _CELLS if cell[3] == 0}
        found += any((row["holm p"] or 1) < 0.05 for row in effects_table(_grid(em))[0].to_pylist())
    assert found <= 3  # of 10 at 5 %, more than 3 come in 1 of 1000 runs


def test_a_missing_trial_costs_its_share_and_no_more(partial: Path) -> None:
    grid = load_grid(Ledger(partial))
    part = balanced_part(grid, "squad")
    assert part is not None
    assert part.levels["share"] == (0, 20, 40, 100)
    assert part.size == 16
    _, notes = effects_table(grid)
    assert "6 others would leave it unbalanced" in notes[0]


def test_model_without_one_order_is_analysed_with_the_others_where_that_is_larger(tmp_path: Path) -> None:
    grid = load_grid(Ledger(synthetic_ledger(tmp_path, trainables=("distilbert", "exbert", "exbert:tuned"))))
    shuffled_alone = [t for t in grid.trials if t.trainable != "exbert:tuned" or t.order == "shuffled"]
    part = balanced_part(replace(grid, trials=tuple(shuffled_alone)), "squad")
    assert part is not None
    assert (part.levels["trainable"], part.size) == (("distilbert", "exbert"), 24)


def test_a_grid_of_many_models_is_analysed_as_fast_as_one_of_few(complete: Path) -> None:
    """2 to the power of 40 sets of models would not be gone through before the test's time is up."""
    grid = load_grid(Ledger(complete))
    baseline = [trial for trial in grid.trials if trial.trainable == "distilbert"]
    many = [replace(trial, trainable=f"model {number}") for number in range(40) for trial in baseline]
    lacking = [trial for trial in many if trial.trainable != "model 7" or trial.share > 20]
    part = balanced_part(replace(grid, trials=tuple(lacking)), "squad")
    assert part is not None
    assert len(part.levels["trainable"]) == 39
    assert part.levels["share"] == (0, 20, 40, 60, 80, 100)


def test_grid_of_one_trial_says_that_it_is_too_small(tmp_path: Path) -> None:
    synthetic_ledger(tmp_path, trainables=("exbert",), orders=("shuffled",), shares=(40,))
    table, notes = effects_table(load_grid(Ledger(tmp_path)))
    assert table.num_rows == 0
    assert notes[0] == "squad: too few completed trials for an analysis of variance: it needs two levels of two factors"


def test_equal_scores_are_not_analysed() -> None:
    table, notes = effects_table(_grid({cell: 50.0 for cell in _CELLS if cell[3] == 0}))
    assert table.num_rows == 0
    assert notes == ["squad: all 24 trials have the same score, so that nothing varies"]
