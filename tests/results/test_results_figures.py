"""Figures: the right marks, real images, no network, and any ledger can be drawn."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from synthetic_ledger import synthetic_ledger

from results.charts import encode_chart
from results.figures import GRID_FIGURES
from results.grid import Grid, load_grid
from results.grid_figures import fig3, fig6
from results.ledger import Ledger

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
    ledger = Ledger(tmp_path)
    for draw in GRID_FIGURES.values():
        assert encode_chart(draw(load_grid(ledger)), "svg").startswith(b"<svg")
