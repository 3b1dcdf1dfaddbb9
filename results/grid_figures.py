"""The paper's Figs. 2, 3 and 6 from a grid, as Vega-Lite charts.

With a ledger the error bars are 95 % intervals; a grid alone knows one standard deviation over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import altair as alt

from results import comparisons, paper
from results.charts import Chart, empty_chart, inline
from results.grid import Cell, Grid, GridTrial, ratio, summarise
from results.ledger import Ledger
from results.single_domain import SINGLE_DOMAIN_SHARES, SingleDomain, lent_by, load_single_domain

if TYPE_CHECKING:
    from results.cell_intervals import CellIntervals

__all__ = ["fig2", "fig3", "fig6"]

_DOMAIN_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""By position in the mixture, so SQuAD is blue and BioASQ orange as in the paper. Source: Okabe and Ito, "Color
Universal Design" (2008), which is safe for colour-blind readers."""

_PUBLISHED_COLOUR = "#8C2D04"
_EM_TITLE = "Exact match on the test set (%)"

_PUBLISHED_SHAPES = ("diamond", "square", "triangle-up")

_Row = dict[str, Any]


def fig2(grid: Grid, ledger: Ledger | None = None) -> Chart:
    """Bars: EM on each domain of V-DB and untuned ExBERT trained on one domain alone (paper, Fig. 2).

    From the largest single-domain trials that the ledger has on the grid's data; without a ledger from the grid's own. A bar
    is the mean over orders, which change nothing but the order of one domain's examples, and seeds.
    """
    singles = load_single_domain(ledger, grid) if ledger else _own_singles(grid)
    names = [name for name in (*grid.trainables[:1], paper.UNTUNED) if name in grid.trainables]
    names = [*names, *([grid.contender] if len(names) < 2 and grid.contender else [])]
    rows = [row for single in singles for name in names for row in _alone(grid, single, name, ledger)]
    rows += [row for single in singles for row in _published_alone(grid, single, names)]
    title = _title_alone(grid, singles, rows)
    if not _any_score(rows):
        return empty_chart(title, "no completed trials on one domain alone to draw")
    titles = [paper.model_title(name) for name in names]
    models = alt.X("model:N", title=None, sort=titles, scale=alt.Scale(domain=titles), axis=alt.Axis(labelAngle=0))
    base = alt.Chart().encode(x=models, xOffset=_offset(grid), color=_domain_colour(grid))
    ours = base.transform_filter("datum.source === 'ours'")
    bars = ours.mark_bar(cornerRadiusEnd=2).encode(y=_y(), tooltip=_OUR_TOOLTIP)
    header = alt.Header(labelFontSize=13, labelFontWeight="bold")
    trained_on = list(dict.fromkeys(row["trained on"] for row in rows))
    return (
        alt.layer(bars, _error_bars(ours), _published_marks(base, rows))
        .properties(width=260, height=260)
        .facet(column=alt.Column("trained on:N", title=None, header=header, sort=trained_on), data=inline(rows))
        .properties(title=title)
        .resolve_scale(y="shared")
    )


def fig3(grid: Grid, ledger: Ledger | None = None) -> Chart:
    """Bars: the baseline's EM on each domain by mixture, concatenated and shuffled side by side (paper, Fig. 3)."""
    trainable = grid.trainables[0] if grid.trainables else paper.BASELINE
    intervals = _intervals(grid, ledger)
    rows = [row for order in grid.orders for row in _measured(grid, trainable, order, intervals)]
    rows += [row for order in grid.orders for row in _published(grid, [trainable], order, trainable)]
    title = _title(f"{paper.model_title(trainable)}: EM by share of the training mixture", grid, rows, intervals)
    if not _any_score(rows):
        return empty_chart(title, "no completed trials to draw")
    base = alt.Chart().encode(x=_x_ratio(grid), xOffset=_offset(grid), color=_domain_colour(grid))
    ours = base.transform_filter("datum.source === 'ours'")
    bars = ours.mark_bar(cornerRadiusEnd=2).encode(y=_y(), tooltip=_OUR_TOOLTIP)
    header = alt.Header(labelFontSize=13, labelFontWeight="bold")
    layers = alt.layer(bars, _error_bars(ours), _published_marks(base, rows))
    return (
        layers.properties(width=330, height=260)
        .facet(column=alt.Column("order:N", title=None, header=header), data=inline(rows))
        .properties(title=title)
        .resolve_scale(y="shared")
    )


def fig6(grid: Grid, ledger: Ledger | None = None) -> Chart:
    """Lines: EM on each domain by mixture, ExBERT solid and the baseline dotted, shuffled (paper, Fig. 6).

    A comparison of what searches found has all its models, the one with experts solid.
    """
    models = [name for name in (grid.contender, *grid.trainables[:1]) if name]
    searched = [name for name in grid.trainables if name.endswith(":searched")]
    if searched:
        models = [*sorted(searched, key=lambda name: name.startswith("distilbert")), *grid.trainables[:1]]
    intervals = _intervals(grid, ledger)
    rows = [row for name in models for row in _measured(grid, name, "shuffled", intervals)]
    rows += _published(grid, [paper.TUNED, paper.BASELINE], "shuffled", models[0] if models else "")
    names = " and ".join(paper.model_title(name) for name in models) or "ExBERT and V-DB"
    title = _title(f"{names}: EM by share of the shuffled mixture", grid, rows, intervals)
    if not _any_score(rows):
        return empty_chart(title, "no completed trials to draw")
    base = alt.Chart().encode(x=_x_ratio(grid, dodged=True), color=_domain_colour(grid))
    # Side by side, since intervals on one spot hide each other.
    series = [f"{row['model']} {row['domain']}" for row in rows if row["source"] == "ours"]
    aside = alt.XOffset("series:N", scale=alt.Scale(domain=list(dict.fromkeys(series))))
    ours = base.transform_filter("datum.source === 'ours'").transform_calculate(series="datum.model + ' ' + datum.domain")
    ours = ours.encode(xOffset=aside)
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
    bars = _error_bars(ours, color=_domain_colour(grid))
    return alt.layer(lines, points, bars, _published_marks(base, rows)).properties(
        width=520, height=320, title=title, data=inline(rows)
    )


def _intervals(grid: Grid, ledger: Ledger | None) -> CellIntervals | None:
    from results.cell_intervals import CellIntervals

    return CellIntervals(ledger, grid) if ledger else None


def _measured(grid: Grid, trainable: str, order: str, intervals: CellIntervals | None) -> list[_Row]:
    """A row for every domain and share: where nothing was measured its em is null, so that a line breaks there."""
    rows = []
    for domain in grid.domains:
        for share in grid.shares:
            trials = [t for t in grid.trials if (t.trainable, t.order, t.share) == (trainable, order, share)]
            cell = grid.cell(trainable, order, domain, share)
            rows.append({**_our_row(trainable, domain, cell, trials, intervals), "order": order, "ratio": ratio(share)})
    return rows


def _our_row(
    trainable: str, domain: str, cell: Cell | None, trials: Sequence[GridTrial], intervals: CellIntervals | None
) -> _Row:
    """`low` and `high` are null where nothing says how far the value may be off."""
    bounds = intervals.interval(trials, domain) if intervals else None
    if cell and intervals is None and cell.sd is not None:
        bounds = (cell.mean - cell.sd, cell.mean + cell.sd)
    return {
        "source": "ours",
        "model": paper.model_title(trainable),
        "domain": paper.domain_title(domain),
        "em": cell.mean if cell else None,
        "low": bounds[0] if bounds else None,
        "high": bounds[1] if bounds else None,
        "seeds": cell.num if cell else 0,
    }


def _own_singles(grid: Grid) -> list[SingleDomain]:
    """The grid's trials at 100:0 and 0:100."""
    found = []
    for share in SINGLE_DOMAIN_SHARES:
        trials = tuple(trial for trial in grid.trials if trial.share == share and trial.em)
        if trials:
            found.append(SingleDomain(share, grid.mixture_size or 0, replace(grid, trials=trials)))
    return found


def _alone(grid: Grid, single: SingleDomain, trainable: str, ledger: Ledger | None) -> list[_Row]:
    intervals = _intervals(single.grid, ledger)
    trials = [trial for trial in single.grid.trials if trial.trainable == trainable]
    rows = []
    for domain in grid.domains:
        cell = summarise(trial.em[domain] for trial in trials if domain in trial.em)
        row = _our_row(trainable, domain, cell, trials, intervals)
        rows.append({**row, "seeds": len({trial.seed for trial in trials}), "trained on": _trained_on(grid, single)})
    return rows


def _published_alone(grid: Grid, single: SingleDomain, names: Sequence[str]) -> list[_Row]:
    """What the paper states of the full sets; it says that both models are alike, so each gets the mark."""
    return [
        {
            "source": "paper",
            "model": paper.model_title(name),
            "domain": paper.domain_title(grid.domains[level.domain_index]),
            "trained on": _trained_on(grid, single),
            "em": level.em,
            "published": "full data set",
            "section": level.section,
            "quote": level.quote,
        }
        for level in paper.LEVELS
        if level.full_set and level.share == single.share and level.domain_index < len(grid.domains)
        for name in names
    ]


def _trained_on(grid: Grid, single: SingleDomain) -> str:
    return f"trained on {grid.sides[0 if single.share else -1]} alone, {single.mixture_size:,} examples"


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


def _x_ratio(grid: Grid, *, dodged: bool = False) -> alt.X:
    labels = [ratio(share) for share in grid.shares]
    axis = alt.Axis(labelAngle=0)
    scale = alt.Scale(domain=labels, type="band", paddingInner=0.75, paddingOuter=0.4) if dodged else alt.Scale(domain=labels)
    return alt.X("ratio:O", title=f"{':'.join(grid.sides)} ratio", sort=labels, scale=scale, axis=axis)


def _y() -> alt.Y:
    return alt.Y("em:Q", title=_EM_TITLE, scale=alt.Scale(zero=True, nice=True))


def _domain_colour(grid: Grid) -> alt.Color:
    titles = [paper.domain_title(domain) for domain in grid.domains]
    colours = [_DOMAIN_COLOURS[i % len(_DOMAIN_COLOURS)] for i in range(len(titles))]
    return alt.Color("domain:N", title="Tested on", scale=alt.Scale(domain=titles, range=colours))


def _offset(grid: Grid) -> alt.XOffset:
    titles = [paper.domain_title(domain) for domain in grid.domains]
    return alt.XOffset("domain:N", sort=titles, scale=alt.Scale(domain=titles))


def _error_bars(ours: Chart, **colour: Any) -> Chart:
    """From low to high, where a row has them; dark, so as to be seen on a bar, or in the colour given."""
    mark = ours.transform_filter("isValid(datum.low) && isValid(datum.high)").mark_rule(strokeWidth=1.5)
    return mark.encode(y=alt.Y("low:Q", title=_EM_TITLE), y2="high:Q", **(colour or {"color": alt.value("#444444")}))


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


def _title(text: str, grid: Grid, rows: list[_Row], intervals: CellIntervals | None) -> alt.TitleParams:
    without = sum(1 for trial in grid.trials if not trial.em)
    seeds = max((row.get("seeds", 0) for row in rows), default=0)
    parts = [f"{grid.mixture_size:,} training examples"] if grid.mixture_size else []
    parts += [f"mean of up to {seeds} seeds" + (" ± sd" if intervals is None else "")] if seeds > 1 else []
    parts += [intervals.words] if intervals and any(row.get("low") is not None for row in rows) else []
    parts += [f"{without} of {len(grid.trials)} trials have no test scores yet"] if without else []
    return _titled(text, parts)


def _title_alone(grid: Grid, singles: Sequence[SingleDomain], rows: list[_Row]) -> alt.TitleParams:
    """The title says which trials the figure was drawn from."""
    lenders = lent_by((single.grid for single in singles), grid)
    largest, own = f"the largest single-domain trials of the ledger, {lenders}'s", "the grid's trials at 100:0 and 0:100"
    parts = [f"drawn from {largest if lenders else own}"] if singles else []
    parts += ["95 % intervals"] if any(row.get("low") is not None for row in rows) else []
    return _titled("Trained on one domain alone: EM on each", parts)


def _titled(text: str, parts: Sequence[str]) -> alt.TitleParams:
    return alt.TitleParams(text, subtitle=" · ".join(parts) or " ", anchor="start", fontSize=15, subtitleFontSize=12)
