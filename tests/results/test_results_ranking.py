"""Models ranked: on common mixtures, with intervals, parameters and hours."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_ledger import exact_match

from results.charts import encode_chart
from results.figures import draw_figure
from results.grid import Grid, load_grid
from results.ledger import Ledger
from results.ranking import ranking_table, ranking_text
from results.report_frame import Subject
from results.report_ranking import ranking_section
from results.report_summary import summary_section


def grid_of(storage: Path) -> Grid:
    return load_grid(Ledger(storage))


def test_models_stand_by_their_mean_over_all_mixtures(complete: Path) -> None:
    table, notes = ranking_table(Ledger(complete), grid_of(complete))
    first, second = table.to_pylist()
    assert (first["rank"], first["trainable"], second["trainable"]) == (1, "exbert", "distilbert")
    for row in (first, second):
        for domain in ("squad", "bioasq"):
            scores = [
                exact_match(row["trainable"], share, order, 0, domain)
                for share in (0, 20, 40, 60, 80, 100)
                for order in ("shuffled", "concatenated")
            ]
            assert row[f"em {domain}"] == pytest.approx(statistics.fmean(scores), abs=0.5)
        assert row["em"] == pytest.approx((row["em squad"] + row["em bioasq"]) / 2)
        assert row["em squad low"] < row["em squad high"]
    assert notes[0].startswith(
        "EM in percent on the test sets, trained on 12 mixtures that all have; 95 % intervals over seeds"
    )


def test_a_model_without_the_mixtures_of_the_others_is_left_out_and_named(complete: Path) -> None:
    grid = grid_of(complete)
    only = [t for t in grid.trials if t.trainable == "distilbert" and t.share == 0]
    lone = tuple(replace(trial, trainable="distilbert:reinit_k=2") for trial in only)
    mixed = tuple(
        replace(t, trainable=f"model {i}") for i in range(3) for t in grid.trials if (t.share, t.order) == (60, "shuffled")
    )
    table, notes = ranking_table(Ledger(complete), replace(grid, trials=mixed + lone))
    assert table["trainable"].to_pylist() == ["model 0", "model 1", "model 2"]
    assert notes == [
        "EM in percent on the test sets, trained on 60:40 shuffled; "
        "95 % intervals over seeds, of fewer than three seeds over groups of test examples",
        "noise floor: mean 0.18, max 0.27 points over 2 pairs at 0:100 and 100:0, where shuffled and concatenated are the same "
        "examples",
        "parameters and hours are of the model's own trial, without those that it begins from",
        "not trained on these, and left out: distilbert:reinit_k=2",
    ]


def test_a_grid_without_scores_has_no_ranking(complete: Path) -> None:
    grid = grid_of(complete)
    unscored = replace(grid, trials=tuple(replace(trial, em={}, f1={}) for trial in grid.trials))
    table, notes = ranking_table(Ledger(complete), unscored)
    assert (table.num_rows, notes) == (0, ["no trial of the grid has test scores yet"])
    assert ranking_text(table).num_rows == 0


def test_people_read_names_intervals_and_shares_of_parameters(complete: Path) -> None:
    text = ranking_text(ranking_table(Ledger(complete), grid_of(complete))[0]).to_pylist()
    assert [row["model"] for row in text] == ["ExBERT", "V-DB (DistilBERT)"]
    assert all("[" in row["EM SQuAD"] for row in text)
    assert [row["trained parameters"] for row in text] == ["66,364,418 (70.1 %)", "66,364,418 (100 %)"]


def test_the_report_of_a_grid_over_spaces_asks_which_model_is_best_and_ranks_each_family(complete: Path) -> None:
    grid = grid_of(complete)
    points = [f"moe_variants:router={name}" for name in ("soft", "random")] + ["adapters:ia3", "distilbert:reinit_k=1"]
    more = tuple(replace(trial, trainable=name) for name in points for trial in grid.trials if trial.trainable == "exbert")
    subject = Subject(ledger=Ledger(complete), grid=replace(grid, trials=grid.trials + more), search=None)
    section = ranking_section(subject)
    assert section is not None
    [table] = section.values["tables"]  # of the only family with several
    assert table["caption"] == "Mixture-of-experts variants"
    assert sorted(row["cells"][1] for row in table["rows"]) == sorted(
        ["moe_variants:router=soft", "moe_variants:router=random", "ExBERT", "V-DB (DistilBERT)", "adapters:ia3", points[3]]
    )
    summary = summary_section(subject).values
    assert summary["question"] == "Which of 6 models answers best across SQuAD and BioASQ, trained on the same mixture?"
    assert summary["answers"][0].startswith("Best of 6: ")
    assert "; V-DB (DistilBERT) has 46.8 %" in summary["answers"][0]
    assert summary["answers"][1].startswith("ExBERT minus V-DB (DistilBERT): ")
    assert subject.grid.plain.trainables == ("distilbert", "adapters:ia3", "exbert")


def test_a_grid_of_two_models_needs_no_ranking(complete: Path) -> None:
    assert ranking_section(Subject(ledger=Ledger(complete), grid=grid_of(complete), search=None)) is None


def test_models_are_drawn_by_what_they_train_and_take(complete: Path) -> None:
    spec = draw_figure(Ledger(complete), "ranking")[0].to_dict()
    rows = next(iter(spec["datasets"].values()))
    drawn = {row["model"]: (row["params_trainable"], round(row["hours"], 4)) for row in rows}
    assert drawn == {"ExBERT": (66_364_418, round(50 / 3600, 4)), "V-DB (DistilBERT)": (66_364_418, round(50 / 3600, 4))}
    assert [panel["encoding"]["x"]["field"] for panel in spec["hconcat"]] == ["params_trainable", "hours"]
    assert encode_chart(draw_figure(Ledger(complete), "ranking")[0], "svg").startswith(b"<svg")
