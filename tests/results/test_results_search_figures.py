"""Figures of a search: the right rows in the right marks, real images, and any search can be drawn."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from synthetic_search import DIVERGED, FAILED, MAX_EPOCHS, NUM_TRIALS, RUNGS, RUNNING, SEARCH_ID, SPACE, synthetic_search
from typer.testing import CliRunner

from results.__main__ import app
from results.charts import encode_chart
from results.curve_figures import fig4, fig5, intermediate, rungs
from results.errors import OptunaMissingError
from results.figures import SEARCH_FIGURES, draw_figure
from results.ledger import Ledger
from results.parts import write_part
from results.search import Search, load_search
from results.search_figures import contour, history, importance, parallel, slices

SIGNATURES = {"png": b"\x89PNG\r\n\x1a\n", "svg": b"<svg", "html": b"<!DOCTYPE html>"}


@pytest.fixture(scope="module")
def search(searched: Path) -> Search:
    return load_search(Ledger(searched), SEARCH_ID)


@pytest.fixture(scope="module")
def narrowing(searched: Path) -> Search:
    return load_search(Ledger(searched))


def _tables(spec: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The rows of every data set in a chart, in the order of its parts."""
    return list(_datasets(spec, spec.get("datasets", {})))


def _datasets(part: dict[str, Any], named: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    if "data" in part:
        yield part["data"]["values"] if "values" in part["data"] else named[part["data"]["name"]]
    for inner in (*part.get("layer", ()), *part.get("concat", ())):
        yield from _datasets(inner, named)


def _rows(chart: Any, field: str) -> list[dict[str, Any]]:
    """The rows of the first data set that has the field."""
    return next(rows for rows in _tables(chart.to_dict()) if rows and field in rows[0])


def _marks(chart: Any) -> list[str]:
    return [layer["mark"]["type"] for layer in chart.to_dict()["layer"]]


@pytest.mark.parametrize("name", SEARCH_FIGURES)
def test_figure_of_a_search_renders(search: Search, narrowing: Search, name: str) -> None:
    for format_name, signature in SIGNATURES.items():
        content = encode_chart(SEARCH_FIGURES[name](search), format_name)
        assert content.startswith(signature)
        assert len(content) > 3_000
    assert encode_chart(SEARCH_FIGURES[name](narrowing), "svg").startswith(b"<svg")


@pytest.mark.parametrize("name", SEARCH_FIGURES)
@pytest.mark.parametrize("num_trials", [0, 1, 2])
def test_young_search_can_be_drawn(tmp_path: Path, name: str, num_trials: int) -> None:
    young = load_search(Ledger(synthetic_search(tmp_path, num_trials=num_trials)))
    assert encode_chart(SEARCH_FIGURES[name](young), "svg").startswith(b"<svg")


def test_history_has_every_trial_and_the_best_so_far(search: Search) -> None:
    rows = _rows(history(search), "best")
    assert [row["number"] for row in rows] == list(range(NUM_TRIALS))
    assert (rows[FAILED]["state"], rows[DIVERGED]["loss"], rows[RUNNING]["state"]) == ("failed", None, "running")
    best = [row["best"] for row in rows if row["best"] is not None]
    assert best == sorted(best, reverse=True)
    assert search.best is not None
    assert best[-1] == search.best.value


def test_intermediate_draws_trials_stopped_early_apart(search: Search) -> None:
    chart = intermediate(search)
    assert _marks(chart) == ["rule", "line", "line", "text"]
    _, partial, whole, _ = chart.to_dict()["layer"]
    assert (partial["mark"].get("strokeDash"), whole["mark"].get("strokeDash")) == ([4, 3], None)
    assert partial["transform"] == [{"filter": "!(datum.state === 'completed')"}]
    assert [row["rung"] for row in _rows(chart, "rung")] == list(RUNGS)
    rows = _rows(chart, "at")
    assert {(row["number"], row["epoch"], row["at"]) for row in rows} == {
        (trial.number, epoch, value) for trial in search.trials for epoch, value in trial.curve if value is not None
    }
    ended = {row["number"]: row["fate"] for row in rows if row["fate"]}
    assert (ended[RUNNING], ended[FAILED]) == ("→", "!")
    # Its last report was not finite, so that its line just ends.
    assert set(ended) == set(range(NUM_TRIALS)) - {DIVERGED}


def test_rungs_show_where_each_trial_was_judged_and_its_fate(search: Search) -> None:
    chart = rungs(search)
    judged = [row for rows in _tables(chart.to_dict()) for row in rows if "rung" in row]
    expected = {(t.number, f"{d.rung:g}", d.action) for t in search.trials for d in t.decisions if d.rung is not None}
    assert {(row["number"], row["rung"], row["action"]) for row in judged} == expected
    fates = {row["number"]: row["fate"] for rows in _tables(chart.to_dict()) for row in rows if row.get("fate")}
    assert len(fates) == NUM_TRIALS
    assert (fates[DIVERGED], fates[FAILED]) == ("×", "!")


def test_rungs_go_by_sequence_where_a_time_is_missing(tmp_path: Path) -> None:
    row = {"sweep_id": "s1", "number": 0, "trial_key": "0" * 16}
    rows = [
        {**row, "sequence": 3, "kind": "suggested", "parameters": "{}"},
        {**row, "sequence": 8, "kind": "judged", "epoch": 1.0, "rung": 1.0, "value": 2.0, "action": "pause"},
    ]
    write_part(tmp_path, "decisions", "s1", rows)
    write_part(tmp_path, "searches", "s1", [{"sweep_id": "s1", "space": json.dumps(SPACE), "rungs": [1.0]}])
    chart = rungs(load_search(Ledger(tmp_path)))
    assert [(row["at"], row["fate"]) for row in _tables(chart.to_dict())[0]] == [(3, ""), (8, "‖")]


def test_importance_is_a_bar_per_setting(search: Search) -> None:
    rows = _rows(importance(search), "importance")
    assert {row["parameter"] for row in rows} == set(search.space.dimensions)
    assert rows[0]["importance"] == max(row["importance"] for row in rows)


def test_importance_needs_optuna_and_contour_does_not(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(OptunaMissingError, match=r"needs Optuna.*pip install 'expert-sweeps\[export\]'"):
        importance(search)
    assert "the first two numeric settings" in contour(search).to_dict()["title"]["subtitle"]


def test_parallel_has_a_line_per_trial_through_the_settings_that_apply(search: Search) -> None:
    ticks, lines = sorted(_tables(parallel(search).to_dict()), key=len)[-2:]
    for trial in search.trials:
        axes = [row["axis"] for row in lines if row["number"] == trial.number]
        expected = [name.rpartition(".")[2] for name in search.space.dimensions if name in trial.parameters]
        assert axes == ([] if trial.number == DIVERGED else [*expected, "validation loss"])
    assert all(0 <= row["position"] <= 1 for row in (*ticks, *lines))
    assert {row["text"] for row in ticks if row["axis"] == "dropout_placement"} == {"none", "before", "after"}


def test_slice_has_a_panel_per_setting_with_its_own_axis(search: Search) -> None:
    spec = slices(search).to_dict()
    panels = spec["concat"]
    axes = {panel["encoding"]["x"]["title"]: panel["encoding"]["x"]["scale"] for panel in panels}
    assert list(axes) == ["n_layers", "learning_rate", "dropout_placement", "moe_dropout"]
    assert (axes["learning_rate"]["type"], axes["n_layers"]["domain"]) == ("log", [3, 6])
    assert axes["dropout_placement"]["domain"] == ["none", "before", "after"]
    counts = [len(rows) for rows in _tables(spec)]
    assert counts[0] == NUM_TRIALS - 2  # neither the failed one nor the diverged one
    assert 0 < counts[3] < counts[0]


def test_contour_is_over_the_two_settings_that_matter_most(search: Search) -> None:
    spec = contour(search).to_dict()
    encoding = spec["layer"][1]["encoding"]
    assert (encoding["x"]["title"], encoding["y"]["title"]) == ("learning_rate", "n_layers")
    cells, points = _tables(spec)
    losses = [row["loss"] for row in points]
    assert all(min(losses) <= cell["loss"] <= max(losses) for cell in cells)


def test_fig4_has_a_pair_of_curves_per_number_of_blocks(narrowing: Search) -> None:
    spec = fig4(narrowing).to_dict()
    [rows] = _tables(spec)
    assert spec["facet"]["sort"] == ["3 blocks", "4 blocks", "5 blocks", "6 blocks"]
    assert {row["number"] for row in rows} == {0, 1, 2, 3}
    for trial in narrowing.trials[:4]:
        pair = [row for row in rows if row["number"] == trial.number]
        assert [row["epoch"] for row in pair if row["kind"] == "validation"] == list(range(1, MAX_EPOCHS + 1))
        assert len([row for row in pair if row["kind"] == "training"]) == 2 * MAX_EPOCHS
    assert spec["spec"]["encoding"]["color"]["scale"]["domain"] == ["training", "validation"]
    assert "stage blocks" in spec["title"]["subtitle"]


def test_fig5_has_a_pair_of_curves_per_learning_rate(narrowing: Search) -> None:
    spec = fig5(narrowing).to_dict()
    assert spec["facet"]["sort"] == ["rate 1e-05", "rate 2e-05", "rate 4e-05", "rate 0.0001"]
    assert {row["number"] for row in _tables(spec)[0]} == {4, 5, 6, 7}


def test_fig5_of_a_search_takes_the_best_of_each_range_of_rates(search: Search) -> None:
    spec = fig5(search).to_dict()
    shown = {row["number"] for row in _tables(spec)[0]}
    assert len(shown) == 6
    assert search.best is not None
    assert search.best.number in shown


def test_command_draws_the_newest_search_or_the_named_one(searched: Path, tmp_path: Path) -> None:
    for arguments, sweep_id in (([], "narrowing-1"), (["--sweep", SEARCH_ID], SEARCH_ID)):
        target = tmp_path / f"{sweep_id}.svg"
        command = ["figure", "history", "--output", str(target), "--storage", str(searched), *arguments]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.stderr
        assert sweep_id in target.read_text(encoding="utf-8")


def test_unknown_figure_is_refused_with_those_there_are(searched: Path) -> None:
    with pytest.raises(ValueError, match=r"figure must be one of fig2, fig3, fig6, fig4, fig5, history, .*, got 'histroy'"):
        draw_figure(Ledger(searched), "histroy")
