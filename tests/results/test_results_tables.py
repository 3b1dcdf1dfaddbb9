"""Numbers: which trials form the grid, differences, the noise floor, the paper's values, the answers shown."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from synthetic_ledger import EXAMPLES, START, exact_match, plan_row, synthetic_ledger, trial_key

from results import paper
from results.comparisons import check_levels, noise_floor, order_differences, trainable_differences
from results.errors import QueryError
from results.grid import Cell, load_grid, summarise
from results.ledger import Ledger
from results.parts import write_part
from results.predictions import predictions_table
from results.tables import grid_table, trials_table


def test_grid_holds_the_test_scores_of_every_trial(complete: Path) -> None:
    grid = load_grid(Ledger(complete))
    assert (grid.trainables, grid.orders) == (("distilbert", "exbert"), ("concatenated", "shuffled"))
    assert (grid.domains, grid.shares, grid.mixture_size) == (("squad", "bioasq"), (0, 20, 40, 60, 80, 100), 4000)
    for trial in grid.trials:
        for domain in grid.domains:
            cell = grid.cell(trial.trainable, trial.order, domain, trial.share)
            assert cell == Cell(exact_match(trial.trainable, trial.share, trial.order, 0, domain), None, 1)
    assert grid.missing() == []


def test_mean_and_deviation_are_over_seeds(seeded: Path) -> None:
    cell = load_grid(Ledger(seeded)).cell("exbert", "shuffled", "bioasq", 40)
    values = [exact_match("exbert", 40, "shuffled", seed, "bioasq") for seed in (0, 1)]
    assert cell is not None
    assert (cell.mean, cell.num) == (pytest.approx(sum(values) / 2), 2)
    assert cell.sd == pytest.approx(abs(values[0] - values[1]) / 2**0.5)


def test_differences_are_paired_and_relative_to_the_first_trainable(complete: Path) -> None:
    [found] = [d for d in trainable_differences(load_grid(Ledger(complete))) if (d.order, d.domain) == ("shuffled", "squad")]
    base, other = (exact_match(name, 60, "shuffled", 0, "squad") for name in ("distilbert", "exbert"))
    assert found.what == "exbert − distilbert"
    assert found.points[60].mean == pytest.approx(other - base)
    assert found.percent[60] == pytest.approx(100 * (other - base) / base)


def test_seeds_that_only_one_side_has_are_left_out_of_a_difference(tmp_path: Path) -> None:
    synthetic_ledger(tmp_path, seeds=(0, 1), failed=[("exbert", 60, "shuffled", 1)])
    [found] = [d for d in trainable_differences(load_grid(Ledger(tmp_path))) if (d.order, d.domain) == ("shuffled", "squad")]
    assert (found.points[60].num, found.points[80].num) == (1, 2)


def test_noise_floor_is_the_order_effect_at_single_domain_shares(complete: Path) -> None:
    floor = noise_floor(load_grid(Ledger(complete)))
    expected = [
        abs(exact_match(name, share, "shuffled", 0, domain) - exact_match(name, share, "concatenated", 0, domain))
        for name in ("distilbert", "exbert")
        for domain in ("squad", "bioasq")
        for share in (0, 100)
    ]
    assert [pair[-1] for pair in floor.pairs] == pytest.approx(expected)
    assert (floor.mean, floor.max) == (pytest.approx(sum(expected) / 8), pytest.approx(max(expected)))
    assert "over 8 pairs at 0:100 and 100:0" in floor.describe()


def test_paper_levels_stand_beside_ours(complete: Path) -> None:
    checks = {(c.published.em, c.published.full_set): c for c in check_levels(load_grid(Ledger(complete)))}
    ours = [exact_match("distilbert", 100, order, 0, "squad") for order in ("concatenated", "shuffled")]
    level = checks[52.0, False].ours
    assert level is not None
    assert level.mean == pytest.approx(sum(ours) / 2)
    assert checks[50.0, False].ours is None


def test_every_published_number_names_its_section() -> None:
    for published in (*paper.LEVELS, *paper.GAINS):
        assert published.section.startswith(("§", "Abstract"))
        assert published.quote


def test_newest_grid_is_taken_and_a_missing_trainable_comes_from_the_newest_that_has_it(tmp_path: Path) -> None:
    synthetic_ledger(tmp_path)
    tuned = [plan_row("exbert:tuned", s, "shuffled", 0, "grid-2", START + timedelta(days=1)) for s in (0, 80)]
    write_part(tmp_path, "plans", "grid-2", tuned)
    search = plan_row("exbert", 80, "shuffled", 7, "search-1", START + timedelta(days=2))
    write_part(tmp_path, "plans", "search-1", [{**search, "sweep_kind": "search"}])
    ledger = Ledger(tmp_path)
    sweeps = {trial.trainable: trial.sweep_id for trial in load_grid(ledger).trials}
    assert sweeps == {"distilbert": "grid-1", "exbert": "grid-1", "exbert:tuned": "grid-2"}
    assert len(load_grid(ledger).trials) == 26
    assert len(load_grid(ledger, "grid-2").trials) == 2
    of = "grid-2, with models that it lacks from grid-1: 26 trials, 4,000 training examples"
    assert load_grid(ledger).described == [f"{of}; the newest of 2 grids, --sweep grid-1 for another"]
    with pytest.raises(QueryError, match=r"no sweep 'grid-3' in the ledger, the nearest is 'grid-[12]'"):
        load_grid(ledger, "grid-3")


def test_grid_over_other_data_is_not_mixed_in(tmp_path: Path) -> None:
    synthetic_ledger(tmp_path)
    row = plan_row("distilbert", 0, "shuffled", 9, "grid-2", START + timedelta(days=1))
    write_part(tmp_path, "plans", "grid-2", [{**row, "data_fingerprint": "e" * 64}])
    assert [trial.sweep_id for trial in load_grid(Ledger(tmp_path)).trials] == ["grid-2"]


def test_partial_grid_says_what_is_missing(partial: Path) -> None:
    grid = load_grid(Ledger(partial))
    lines = grid.missing()
    assert lines[0] == "2 of 24 trials have no test scores"
    assert any("exbert 60:40 shuffled seed 0): failed (RuntimeError)" in line for line in lines)
    assert any("exbert 80:20 shuffled seed 0): planned" in line for line in lines)
    text = grid_table(grid).to_text()
    row = next(r for r in text.to_pylist() if (r["section"], r["trainable"], r["order"]) == ("scores", "exbert", "shuffled"))
    assert (row["60:40"], row["80:20"]) == ("", "")


def test_one_order_only_has_no_order_differences_and_an_unknown_floor(tmp_path: Path) -> None:
    grid = load_grid(Ledger(synthetic_ledger(tmp_path, orders=("shuffled",))))
    assert order_differences(grid) == []
    assert noise_floor(grid).describe().startswith("noise floor unknown")
    assert grid_table(grid).rows


@pytest.mark.parametrize("metric", ["em", "f1"])
def test_empty_ledger_gives_empty_tables(tmp_path: Path, metric: str) -> None:
    ledger = Ledger(tmp_path, must_exist=False)
    grid = load_grid(ledger)
    table = grid_table(grid, metric=metric)
    assert (table.rows, table.to_arrow().num_rows, table.to_text().num_rows) == ((), 0, 0)
    assert "no grid was planned" in table.notes[0]
    assert trials_table(ledger).num_rows == 0
    assert predictions_table(ledger, grid).rows.num_rows == 0


def test_unknown_metric_is_refused(complete: Path) -> None:
    with pytest.raises(ValueError, match="metric must be em or f1, got 'bleu'"):
        grid_table(load_grid(Ledger(complete)), metric="bleu")


def test_answers_come_from_the_nearest_available_share_and_differ(partial: Path) -> None:
    ledger = Ledger(partial)
    table = predictions_table(ledger, load_grid(ledger))
    # 80:20 was not run and 60:40 failed for ExBERT.
    assert table.share == 100
    rows = table.rows.to_pylist()
    assert [row["domain"] for row in rows] == ["squad"] * 4 + ["bioasq"] * 4
    assert all(row["V-DB (DistilBERT)"] != row["ExBERT"] for row in rows)
    assert table.rows == predictions_table(Ledger(partial), load_grid(ledger)).rows


def test_answers_take_turns_between_the_models(complete: Path) -> None:
    ledger = Ledger(complete)
    rows = predictions_table(ledger, load_grid(ledger), limit=4, domain="squad").rows.to_pylist()
    winners = [row["ExBERT"] in row["ground truth"].split(" | ") for row in rows]
    assert winners == [True, False, True, False]


def test_agreement_counts_every_example_once(complete: Path) -> None:
    ledger = Ledger(complete)
    table = predictions_table(ledger, load_grid(ledger))
    assert table.share == 80
    assert f"SQuAD: of {EXAMPLES} examples both are right on 4, only V-DB (DistilBERT) on 4, only ExBERT on 4" in table.notes


def test_one_model_alone_still_shows_its_answers(tmp_path: Path) -> None:
    ledger = Ledger(synthetic_ledger(tmp_path, trainables=("exbert",)))
    table = predictions_table(ledger, load_grid(ledger))
    assert table.rows.column_names == ["domain", "question", "ground truth", "ExBERT"]
    assert table.rows.num_rows == 8


def test_unknown_domain_is_refused(complete: Path) -> None:
    ledger = Ledger(complete)
    with pytest.raises(ValueError, match="domain must be one of squad, bioasq, got 'law'"):
        predictions_table(ledger, load_grid(ledger), domain="law")


def test_trials_table_shows_scores_and_reasons(partial: Path) -> None:
    rows = {row["trial_key"]: row for row in trials_table(Ledger(partial), "grid-1").to_pylist()}
    done, failed = (rows[trial_key(name, 60, "shuffled", 0)] for name in ("distilbert", "exbert"))
    assert done["em squad"] == exact_match("distilbert", 60, "shuffled", 0, "squad")
    assert (failed["em squad"], failed["status"], failed["why"]) == (None, "failed", "RuntimeError")


def test_summarise_of_nothing_is_nothing() -> None:
    assert summarise([]) is None
    assert summarise([3.0]) == Cell(3.0, None, 1)
