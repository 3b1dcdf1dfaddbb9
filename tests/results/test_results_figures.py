"""Figures: the right marks, real images, no network, and any ledger can be drawn."""

from __future__ import annotations

import statistics
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from synthetic_ledger import START, exact_match, plan_row, synthetic_ledger

from results.charts import encode_chart
from results.figures import GRID_FIGURES
from results.grid import Grid, load_grid
from results.grid_figures import fig2, fig3, fig6
from results.ledger import Ledger
from results.parts import write_part

SIGNATURES = {"png": b"\x89PNG\r\n\x1a\n", "svg": b"<svg", "pdf": b"%PDF-", "html": b"<!DOCTYPE html>"}


def _grid(storage: Path) -> Grid:
    return load_grid(Ledger(storage))


def _layers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    inner = spec.get("spec", spec)
    return list(inner["layer"])


def _rows(spec: dict[str, Any], source: str) -> list[dict[str, Any]]:
    data = spec["data"]
    values = data["values"] if "values" in data else spec["datasets"][data["name"]]
    return [row for row in values if row["source"] == source]


def test_fig3_has_grouped_bars_by_ratio_for_each_order(complete: Path) -> None:
    spec = fig3(_grid(complete)).to_dict()
    assert [layer["mark"]["type"] for layer in _layers(spec)] == ["bar", "rule", "point"]
    assert spec["facet"]["column"]["field"] == "order"
    encoding = _layers(spec)[0]["encoding"]
    assert encoding["x"]["sort"] == ["0:100", "20:80", "40:60", "60:40", "80:20", "100:0"]
    assert encoding["x"]["title"] == "SQuAD:BioASQ ratio"
    assert (encoding["xOffset"]["field"], encoding["color"]["field"]) == ("domain", "domain")
    assert len(_rows(spec, "ours")) == 2 * 6 * 2
    assert {row["model"] for row in _rows(spec, "ours")} == {"V-DB (DistilBERT)"}
    assert [(row["ratio"], row["em"], row["section"]) for row in _rows(spec, "paper")] == [("100:0", 52.0, "§3.2, Fig. 3")] * 2


def test_fig6_draws_all_models_of_a_comparison_of_searches(tmp_path: Path) -> None:
    compared = ("distilbert", "distilbert:searched", "exbert:searched")
    synthetic_ledger(tmp_path, trainables=compared, orders=("shuffled",))
    scale = _layers(fig6(_grid(tmp_path)).to_dict())[0]["encoding"]["strokeDash"]["scale"]
    assert scale["domain"] == ["exbert:searched", "distilbert:searched", "V-DB (DistilBERT)"]
    assert scale["range"] == [[1, 0], [7, 4], [2, 4]]


def test_fig6_draws_the_tuned_variant_solid_and_the_baseline_dotted(seeded: Path) -> None:
    spec = fig6(_grid(seeded)).to_dict()
    assert [layer["mark"]["type"] for layer in _layers(spec)] == ["line", "point", "rule", "point"]
    scale = _layers(spec)[0]["encoding"]["strokeDash"]["scale"]
    assert scale == {"domain": ["ExBERT, tuned", "V-DB (DistilBERT)"], "range": [[1, 0], [2, 4]]}
    assert {row["order"] for row in _rows(spec, "ours")} == {"shuffled"}
    assert {(row["ratio"], row["em"]) for row in _rows(spec, "paper")} == {("100:0", 52.0), ("40:60", 50.0)}
    assert all(row["high"] > row["em"] > row["low"] and row["seeds"] == 2 for row in _rows(spec, "ours"))


def test_fig6_falls_back_to_untuned_exbert(complete: Path) -> None:
    assert {row["model"] for row in _rows(fig6(_grid(complete)).to_dict(), "ours")} == {"ExBERT", "V-DB (DistilBERT)"}


def test_fig2_has_two_models_and_two_domains_for_each_domain_trained_on_alone(complete: Path) -> None:
    spec = fig2(_grid(complete), Ledger(complete)).to_dict()
    assert spec["facet"]["column"]["field"] == "trained on"
    ours = _rows(spec, "ours")
    assert {row["trained on"] for row in ours} == {f"trained on {name} alone, 4,000 examples" for name in ("SQuAD", "BioASQ")}
    assert len(ours) == 2 * 2 * 2
    on_squad = next(row for row in ours if row["trained on"].startswith("trained on SQuAD") and row["domain"] == "BioASQ")
    both_orders = [exact_match("distilbert", 100, order, 0, "bioasq") for order in ("concatenated", "shuffled")]
    assert on_squad["em"] == pytest.approx(sum(both_orders) / 2)
    # Both models bear the paper's marks, which are of the full sets: 77 and 40 from SQuAD, 5 from BioASQ.
    assert sorted(row["em"] for row in _rows(spec, "paper")) == [5, 5, 40, 40, 77, 77]
    assert "drawn from the grid's trials at 100:0 and 0:100" in spec["title"]["subtitle"]


def test_fig2_takes_larger_trials_on_one_domain_and_says_so(tmp_path: Path) -> None:
    synthetic_ledger(tmp_path, orders=("shuffled",))
    grid = _grid(tmp_path)
    larger = {**plan_row("distilbert", 100, "shuffled", 7, "grid-0", START), "mixture_size": 80_000}
    write_part(tmp_path, "plans", "grid-0", [larger])
    key = larger["trial_key"]
    attempt = {"trial_key": key, "attempt": 1, "sweep_id": "grid-0", "status": "completed", "resumed_step": 0}
    write_part(tmp_path, "attempts", "larger", [attempt])
    scores = {"trial_key": key, "attempt": 1, "step": 9, "split": "test", "domain": "squad", "em": 77.0, "f1": 85.0}
    write_part(tmp_path, "evaluations", "larger", [scores])
    spec = fig2(grid, Ledger(tmp_path)).to_dict()
    rows = [row for row in _rows(spec, "ours") if row["domain"] == "SQuAD" and row["model"] == "V-DB (DistilBERT)"]
    assert [(row["trained on"], row["em"]) for row in rows] == [
        ("trained on SQuAD alone, 80,000 examples", 77.0),
        ("trained on BioASQ alone, 4,000 examples", exact_match("distilbert", 0, "shuffled", 0, "squad")),
    ]
    assert "the largest single-domain trials of the ledger, grid-0's" in spec["title"]["subtitle"]


@pytest.mark.parametrize("name", ["fig3", "fig6"])
def test_error_bars_are_intervals_where_the_ledger_is_at_hand(complete: Path, name: str) -> None:
    alone = GRID_FIGURES[name](_grid(complete)).to_dict()
    assert all(row["low"] is None for row in _rows(alone, "ours"))
    drawn = GRID_FIGURES[name](_grid(complete), Ledger(complete)).to_dict()
    # The synthetic predictions are right in 8 of 12 cases, whatever the trial.
    assert all(25 < row["low"] < 100 * 8 / 12 < row["high"] < 100 for row in _rows(drawn, "ours"))
    assert "over groups of test examples" in drawn["title"]["subtitle"]


def test_error_bars_of_three_seeds_are_students_interval(tmp_path: Path) -> None:
    synthetic_ledger(tmp_path, orders=("shuffled",), shares=(40,), seeds=(0, 1, 2))
    [row] = [
        row
        for row in _rows(fig6(_grid(tmp_path), Ledger(tmp_path)).to_dict(), "ours")
        if row["model"] == "ExBERT" and row["domain"] == "SQuAD"
    ]
    values = [exact_match("exbert", 40, "shuffled", seed, "squad") for seed in (0, 1, 2)]
    half = 4.302653 * statistics.stdev(values) / 3**0.5  # t of two degrees of freedom
    mean = statistics.fmean(values)
    assert (row["low"], row["high"]) == (pytest.approx(mean - half, rel=1e-6), pytest.approx(mean + half, rel=1e-6))


def test_domains_keep_their_colours_everywhere(complete: Path) -> None:
    scales = [_layers(draw(_grid(complete)).to_dict())[0]["encoding"]["color"]["scale"] for draw in GRID_FIGURES.values()]
    assert scales[0] == scales[1] == {"domain": ["SQuAD", "BioASQ"], "range": ["#0072B2", "#E69F00"]}


def test_line_breaks_where_a_trial_is_missing(partial: Path) -> None:
    spec = fig6(_grid(partial)).to_dict()
    gaps = {row["ratio"] for row in _rows(spec, "ours") if row["em"] is None}
    assert gaps == {"60:40", "80:20"}
    assert "2 of 24 trials have no test scores yet" in spec["title"]["subtitle"]


@pytest.mark.parametrize("format_name", SIGNATURES)
@pytest.mark.parametrize("name", GRID_FIGURES)
def test_figure_renders_in_every_format(seeded: Path, name: str, format_name: str) -> None:
    content = encode_chart(GRID_FIGURES[name](_grid(seeded)), format_name)
    assert content.startswith(SIGNATURES[format_name])
    assert len(content) > 10_000


def test_unknown_figure_format_is_refused(complete: Path) -> None:
    with pytest.raises(ValueError, match="figure format must be one of html, png, svg, pdf, got 'gif'"):
        encode_chart(fig3(_grid(complete)), "gif")


class _References(HTMLParser):
    """Collects what a page would load; text inside <script> is not markup and does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "data")]


def _assert_self_contained(page: str) -> None:
    references = _References()
    references.feed(page)
    assert references.found == []
    assert "@import" not in page.split("</style>")[0]
    assert "vegaEmbed" in page


def test_figure_html_needs_no_network(complete: Path) -> None:
    _assert_self_contained(encode_chart(fig3(_grid(complete)), "html").decode())


@pytest.mark.parametrize("state", ["empty", "one order", "one trainable", "nothing completed"])
def test_any_ledger_can_be_drawn(tmp_path: Path, state: str) -> None:
    trials = [("distilbert", share, "shuffled", 0) for share in (0, 20, 40, 60, 80, 100)]
    if state == "one order":
        synthetic_ledger(tmp_path, orders=("concatenated",))
    elif state == "one trainable":
        synthetic_ledger(tmp_path, trainables=("exbert",))
    elif state == "nothing completed":
        synthetic_ledger(tmp_path, trainables=("distilbert",), orders=("shuffled",), failed=trials[:3], planned=trials[3:])
    ledger = Ledger(tmp_path, must_exist=False)
    for draw in GRID_FIGURES.values():
        assert encode_chart(draw(load_grid(ledger)), "svg").startswith(b"<svg")
