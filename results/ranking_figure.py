"""The figure of a ranking: each model's score by the parameters that it trains and by the hours that a trial of it takes."""

from __future__ import annotations

from typing import Any

import altair as alt
import pyarrow as pa

from results import paper
from results.charts import Chart, inline, title_over
from results.errors import QueryError
from results.grid import Grid
from results.ledger import Ledger
from results.ranking import ranking_table

__all__ = ["draw_ranking", "ranking"]

_AXES = {
    "params_trainable": ("Trained parameters", "~s"),
    "hours": ("Hours of training", "~g"),
}


def ranking(grid: Grid, ledger: Ledger) -> Chart:
    """See `draw_ranking`, of the grid's `ranking_table`."""
    return draw_ranking(ranking_table(ledger, grid)[0])


def draw_ranking(table: pa.Table) -> Chart:
    """Points: a model each, coloured by its family; mean EM against trained parameters and against hours, on logarithmic axes.

    Raises QueryError where no trial has test scores.
    """
    rows = [_point(row) for row in table.to_pylist()]
    if not rows:
        raise QueryError("no trial of the grid has test scores yet: wait until one has completed")
    families = list(dict.fromkeys(row["family"] for row in rows))
    return alt.hconcat(*(_panel(rows, name) for name in _AXES), spacing=24).properties(
        title=title_over("Exact match against what it takes", f"{len(rows)} models", ", ".join(families))
    )


def _point(row: dict[str, Any]) -> dict[str, Any]:
    kept = {name: row[name] for name in ("em", "seeds", *_AXES)}
    return {**kept, "model": paper.model_title(row["trainable"]), "family": row["trainable"].partition(":")[0]}


def _panel(rows: list[dict[str, Any]], name: str) -> Chart:
    title, form = _AXES[name]
    tooltip = [
        alt.Tooltip("model:N", title="Model"),
        alt.Tooltip("em:Q", title="EM (%)", format=".1f"),
        alt.Tooltip("params_trainable:Q", title="Trained parameters", format=","),
        alt.Tooltip("hours:Q", title="Hours", format=".4g"),
        alt.Tooltip("seeds:Q", title="Seeds"),
    ]
    # A logarithm needs what is above zero.
    drawn = [row for row in rows if row[name]]
    return (
        alt.Chart(inline(drawn))
        .mark_point(filled=True, size=70, opacity=0.9)
        .encode(
            x=alt.X(f"{name}:Q", title=title, scale=alt.Scale(type="log", padding=12), axis=alt.Axis(format=form)),
            y=alt.Y("em:Q", title="Mean EM (%)", scale=alt.Scale(zero=False)),
            color=alt.Color("family:N", title="Family"),
            tooltip=tooltip,
        )
        .properties(width=300, height=260)
    )
