"""The paper's Figs. 3 and 6 from a grid, as Vega-Lite charts."""

from __future__ import annotations

from typing import Any

import altair as alt

from results import comparisons, paper
from results.charts import Chart, empty_chart, inline
from results.grid import Cell, Grid, ratio

__all__ = ["fig3", "fig6"]

_DOMAIN_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""By position in the mixture, so SQuAD is blue and BioASQ orange as in the paper. Source: Okabe and Ito, "Color
Universal Design" (2008), which is safe for colour-blind readers."""

_PUBLISHED_COLOUR = "#8C2D04"
_EM_TITLE = "Exact match on the test set (%)"

_PUBLISHED_SHAPES = ("diamond", "square", "triangle-up")

_Row = dict[str, Any]


def fig3(grid: Grid) -> Chart:
    """Bars: the baseline's EM on each domain by mixture, concatenated and shuffled side by side (paper, Fig. 3)."""
    trainable = grid.trainables[0] if grid.trainables else paper.BASELINE
    rows = [row for order in grid.orders for row in _measured(grid, trainable, order)]
    rows += [row for order in grid.orders for row in _published(grid, [trainable], order, trainable)]
    title = _title(f"{paper.model_title(trainable)}: EM by share of the training mixture", grid, rows)
    if not _any_score(rows):
        return empty_chart(title, "no completed trials to draw")
    base = alt.Chart().encode(x=_x_ratio(grid), xOffset=_offset(grid), color=_domain_colour(grid))
    ours = base.transform_filter("datum.source === 'ours'")
    bars = ours.mark_bar(cornerRadiusEnd=2).encode(y=_y(), tooltip=_OUR_TOOLTIP)
    header = alt.Header(labelFontSize=13, labelFontWeight="bold")
    layers = alt.layer(bars, _error_bars(ours, rows), _published_marks(base, rows))
    return (
        layers.properties(width=330, height=260)
        .facet(column=alt.Column("order:N", title=None, header=header), data=inline(rows))
        .properties(title=title)
        .resolve_scale(y="shared")
    )


def fig6(grid: Grid) -> Chart:
    """Lines: EM on each domain by mixture, ExBERT solid and the baseline dotted, shuffled (paper, Fig. 6).

    A comparison of what searches found has all its models, the one with experts solid.
    """
    models = [name for name in (grid.contender, *grid.trainables[:1]) if name]
    searched = [name for name in grid.trainables if name.endswith(":searched")]
    if searched:
        models = [*sorted(searched, key=lambda name: name.startswith("distilbert")), *grid.trainables[:1]]
    rows = [row for name in models for row in _measured(grid, name, "shuffled")]
    rows += _published(grid, [paper.TUNED, paper.BASELINE], "shuffled", models[0] if models else "")
    names = " and ".join(paper.model_title(name) for name in models) or "ExBERT and V-DB"
    title = _title(f"{names}: EM by share of the shuffled mixture", grid, rows)
    if not _any_score(rows):
        return empty_chart(title, "no completed trials to draw")
    base = alt.Chart().encode(x=_x_ratio(grid), color=_domain_colour(grid))
    ours = base.transform_filter("datum.source === 'ours'")
    titles = [paper.model_title(name) for name in models]
    dash = alt.StrokeDash(
        "model:N",
        title="Model",
        sort=titles,
        scale=alt.Scale(domain=titles, range=[[1, 0], *[[7, 4]] * (len(titles) - 2), [2, 4]][-len(titles) :]),
        legend=alt.Legend(symbolType="stroke", symbolStrokeColor="#777", symbolStrokeWidth=2.5, symbolSize=400),
    )
    lines = ours.mark_line(strokeWidth=2.5).encode(y=_y(), strokeDash=dash)
    points = ours.mark_point(filled=True, size=55, opacity=1).encode(y=_y(), tooltip=_OUR_TOOLTIP)
    return alt.layer(lines, points, _error_bars(ours, rows), _published_marks(base, rows)).properties(
        width=520, height=320, title=title, data=inline(rows)
    )


def _measured(grid: Grid, trainable: str, order: str) -> list[_Row]:
    """A row for every domain and share: where nothing was measured its em is null, so that a line breaks there."""
    return [
        _our_row(trainable, order, domain, share, grid.cell(trainable, order, domain, share))
        for domain in grid.domains
        for share in grid.shares
    ]


def _our_row(trainable: str, order: str, domain: str, share: int, cell: Cell | None) -> _Row:
    spread = cell.sd or 0.0 if cell else 0.0
    return {
        "source": "ours",
        "model": paper.model_title(trainable),
        "order": order,
        "domain": paper.domain_title(domain),
        "ratio": ratio(share),
        "em": cell.mean if cell else None,
        "low": cell.mean - spread if cell else None,
        "high": cell.mean + spread if cell else None,
        "seeds": cell.num if cell else 0,
    }


def _any_score(rows: list[_Row]) -> bool:
    return any(row["em"] is not None for row in rows)


def _published(grid: Grid, trainables: list[str], order: str, needs: str) -> list[_Row]:
    """The paper's points on this panel; none on a panel where we have nothing to set them beside."""
    if not any(trial.em for trial in grid.trials if trial.order == order and trial.trainable == needs):
        return []
    return [
        {
            "source": "paper",
            "model": paper.model_title(level.trainable),
            "order": order,
            "domain": paper.domain_title(check.domain),
            "ratio": ratio(level.share),
            "em": level.em,
            "published": f"{paper.model_title(level.trainable)} · {paper.domain_title(check.domain)}",
            "section": level.section,
            "quote": level.quote,
        }
        for check in comparisons.check_levels(grid)
        if not (level := check.published).full_set
        and level.trainable in trainables
        and level.order in (None, order)
        and level.share in grid.shares
    ]


_OUR_TOOLTIP = [
    alt.Tooltip("model:N", title="Model"),
    alt.Tooltip("order:N", title="Order"),
    alt.Tooltip("domain:N", title="Tested on"),
    alt.Tooltip("ratio:N", title="Mixture"),
    alt.Tooltip("em:Q", title="EM (%)", format=".1f"),
    alt.Tooltip("seeds:Q", title="Seeds"),
]


def _x_ratio(grid: Grid) -> alt.X:
    names = [paper.domain_title(domain) for domain in grid.domains[:2]]
    labels = [ratio(share) for share in grid.shares]
    axis = alt.Axis(labelAngle=0)
    return alt.X("ratio:O", title=f"{':'.join(names)} ratio", sort=labels, scale=alt.Scale(domain=labels), axis=axis)


def _y() -> alt.Y:
    return alt.Y("em:Q", title=_EM_TITLE, scale=alt.Scale(zero=True, nice=True))


def _domain_colour(grid: Grid) -> alt.Color:
    titles = [paper.domain_title(domain) for domain in grid.domains]
    colours = [_DOMAIN_COLOURS[i % len(_DOMAIN_COLOURS)] for i in range(len(titles))]
    return alt.Color("domain:N", title="Tested on", scale=alt.Scale(domain=titles, range=colours))


def _offset(grid: Grid) -> alt.XOffset:
    titles = [paper.domain_title(domain) for domain in grid.domains]
    return alt.XOffset("domain:N", sort=titles, scale=alt.Scale(domain=titles))


def _error_bars(ours: Chart, rows: list[_Row]) -> Chart:
    """One standard deviation to either side where there is more than one seed; otherwise nothing is drawn."""
    several = any(row.get("seeds", 0) > 1 for row in rows)
    mark = ours.transform_filter("datum.seeds > 1") if several else ours.transform_filter("false")
    return mark.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q", title=_EM_TITLE), y2="high:Q", color=alt.value("#444444"))


def _published_marks(base: Chart, rows: list[_Row]) -> Chart:
    """Open marks where the paper states a number; the tooltip says where."""
    labels = list(dict.fromkeys(row["published"] for row in rows if row["source"] == "paper"))
    shape = alt.Shape(
        "published:N",
        title="Published in the paper",
        scale=alt.Scale(domain=labels, range=list(_PUBLISHED_SHAPES[: len(labels)])),
        legend=alt.Legend(symbolStrokeColor=_PUBLISHED_COLOUR, symbolFillColor="transparent", symbolSize=110),
    )
    marks = base.transform_filter("datum.source === 'paper'").mark_point(size=120, filled=False, strokeWidth=2, opacity=1)
    return marks.encode(
        y=_y(),
        color=alt.value(_PUBLISHED_COLOUR),
        shape=shape if labels else alt.Undefined,
        tooltip=[
            alt.Tooltip("published:N", title="Paper"),
            alt.Tooltip("ratio:N", title="Mixture"),
            alt.Tooltip("em:Q", title="EM (%)"),
            alt.Tooltip("section:N", title="Source"),
            alt.Tooltip("quote:N", title="Quote"),
        ],
    )


def _title(text: str, grid: Grid, rows: list[_Row]) -> alt.TitleParams:
    without = sum(1 for trial in grid.trials if not trial.em)
    seeds = max((row.get("seeds", 0) for row in rows), default=0)
    parts = [f"{grid.mixture_size:,} training examples"] if grid.mixture_size else []
    parts += [f"mean of up to {seeds} seeds ± sd"] if seeds > 1 else []
    parts += [f"{without} of {len(grid.trials)} trials have no test scores yet"] if without else []
    return alt.TitleParams(text, subtitle=" · ".join(parts) or " ", anchor="start", fontSize=15, subtitleFontSize=12)
