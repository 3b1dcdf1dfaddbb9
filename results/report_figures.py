"""The report's figures of the grid: the paper's Figs. 3 and 6, and the losses while training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from results import paper
from results.charts import Chart, inline
from results.comparisons import is_of_two_domains
from results.grid import Grid, GridTrial, ratio
from results.grid_figures import fig2, fig3, fig6
from results.ledger import Ledger
from results.report_frame import Figure, Section, Subject

__all__ = ["curves_section", "figures_section"]

_MOST_POINTS = 6_000
_LOSSES = {"train_qa_loss": "training", "val_qa_loss": "validation"}


def figures_section(subject: Subject) -> Section | None:
    """None where no grid of two domains was planned."""
    grid = subject.grid
    if not grid.trials or not is_of_two_domains(grid):
        return None
    baseline = paper.model_title(grid.trainables[0])
    abouts = {
        "fig2": (fig2, f"Bars: exact match of {baseline} and ExBERT trained on one domain alone (paper, Fig. 2)."),
        "fig3": (fig3, f"Bars: exact match of {baseline} on each domain by mixture and order (paper, Fig. 3)."),
        "fig6": (fig6, "Lines: exact match of the models on each domain by shuffled mixture (paper, Fig. 6)."),
    }
    figures = {name: Figure.of(draw(grid, subject.ledger), about) for name, (draw, about) in abouts.items()}
    return Section(name="figures", title="Domains against the mixture", values={}, figures=figures)


def curves_section(subject: Subject) -> Section | None:
    """Mean losses by epoch; None where no trial of the grid has reported one."""
    reports = _reports(subject.ledger, subject.grid)
    chosen = _within(subject.grid.trials, reports)
    rows = [
        {**_labels(trial), "epoch": report["epoch"], "loss": kind, "nats": round(report[column], 4)}
        for trial in chosen
        for report in reports.get(trial.trial_key, ())
        for column, kind in _LOSSES.items()
        if report[column] is not None
    ]
    if not rows:
        return None
    about = "Lines: loss by epoch, a line for each mixture, a panel for each model and order; means over seeds."
    left_out = sum(trial.trial_key in reports for trial in subject.grid.trials) - len(chosen)
    values = {"left_out": left_out, "drawn": len(chosen)}
    figure = Figure.of(_loss_curves(subject.grid, rows), about)
    return Section(name="curves", title="Losses while training", values=values, figures={"losses": figure})


def _reports(ledger: Ledger, grid: Grid) -> dict[str, list[dict[str, Any]]]:
    keys = {trial.trial_key for trial in grid.trials}
    rows = ledger.sql("""
        SELECT trial_key, epoch, CASE WHEN isfinite(train_qa_loss) THEN train_qa_loss END AS train_qa_loss,
               CASE WHEN isfinite(val_qa_loss) THEN val_qa_loss END AS val_qa_loss
        FROM reports WHERE epoch IS NOT NULL ORDER BY trial_key, step
    """)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        if row["trial_key"] in keys:
            found.setdefault(row["trial_key"], []).append(row)
    return found


def _within(trials: Sequence[GridTrial], reports: Mapping[str, Sequence[object]]) -> list[GridTrial]:
    """The trials with reports, the lowest seeds first, as many as `_MOST_POINTS` lets in."""
    chosen: list[GridTrial] = []
    points = 0
    for trial in sorted((t for t in trials if t.trial_key in reports), key=lambda t: t.seed):
        points += len(_LOSSES) * len(reports[trial.trial_key])
        if chosen and points > _MOST_POINTS:
            break
        chosen.append(trial)
    return chosen


def _labels(trial: GridTrial) -> dict[str, Any]:
    return {
        "model": paper.model_title(trial.trainable),
        "order": trial.order,
        "ratio": ratio(trial.share),
        "seed": trial.seed,
    }


def _loss_curves(grid: Grid, rows: list[dict[str, Any]]) -> Chart:
    labels = [ratio(share) for share in grid.shares]
    losses = [kind for kind in _LOSSES.values() if any(row["loss"] == kind for row in rows)]
    mixture = alt.Color(
        "ratio:O",
        title=f"{':'.join(grid.sides)} ratio",
        sort=labels,
        scale=alt.Scale(domain=labels, scheme="viridis"),
        legend=alt.Legend(symbolType="stroke", symbolStrokeWidth=2.5, symbolSize=250),
    )
    dash = alt.StrokeDash(
        "loss:N",
        title="Loss",
        scale=alt.Scale(domain=losses, range=[[1, 0], [2, 3]][-len(losses) :]),
        legend=alt.Legend(symbolType="stroke", symbolStrokeColor="#777777", symbolStrokeWidth=2.5, symbolSize=400),
    )
    lines = (
        alt.Chart()
        .transform_aggregate(mean="mean(nats)", seeds="count()", groupby=["model", "order", "ratio", "loss", "epoch"])
        .mark_line(strokeWidth=1.8)
        .encode(
            x=alt.X("epoch:Q", title="Epoch", axis=alt.Axis(tickMinStep=1), scale=alt.Scale(domainMin=0)),
            y=alt.Y("mean:Q", title="QA loss (nats)", scale=alt.Scale(zero=False)),
            color=mixture,
            strokeDash=dash,
            tooltip=[
                alt.Tooltip("model:N", title="Model"),
                alt.Tooltip("order:N", title="Order"),
                alt.Tooltip("ratio:N", title="Mixture"),
                alt.Tooltip("loss:N", title="Loss"),
                alt.Tooltip("epoch:Q", title="Epoch", format="~g"),
                alt.Tooltip("mean:Q", title="nats", format=".3f"),
                alt.Tooltip("seeds:Q", title="Seeds"),
            ],
        )
        .properties(width=330, height=200)
    )
    header = alt.Header(labelFontSize=13, labelFontWeight="bold", title=None)
    models = [paper.model_title(name) for name in grid.trainables]
    return lines.facet(
        column=alt.Column("order:N", header=header),
        row=alt.Row("model:N", header=header, sort=models),
        data=inline(rows),
    ).properties(title=alt.TitleParams("Loss by epoch and mixture", anchor="start", fontSize=15))
