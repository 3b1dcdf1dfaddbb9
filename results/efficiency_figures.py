"""Figures of what scores cost: score against hours with the Pareto front, and against parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import altair as alt

from results import paper
from results.charts import Chart, inline, title_over
from results.efficiency import Efficiency, TrialCost, pareto_set
from results.errors import QueryError
from results.grid import ratio
from results.spending_figure import time_unit
from results.sweep_trials import METRIC_TITLES

__all__ = ["efficiency", "parameters"]

_MODEL_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Source: Okabe and Ito, "Color Universal Design" (2008)."""

_WIDE_RANGE = 8  # most to least hours, from which on the axis is logarithmic
_LABEL_WIDTH, _LABEL_HEIGHT = 0.25, 0.07  # of a panel

_Row = dict[str, Any]


def efficiency(found: Efficiency) -> Chart:
    """Points: each trial's score by its useful hours, with the Pareto front of the completed ones; a grid's EM also by domain.

    Raises QueryError where no trial has both.
    """
    costs = _measured(found)
    factor, time = time_unit(max(cost.useful_hours for cost in costs), found.unit_words)
    panels: dict[str, Callable[[TrialCost], float | None]] = {"": lambda cost: found.sweep.score(cost.trial)}
    if found.sweep.metric == "em" and len(found.sweep.domains) > 1:
        panels = {"Mean of the domains": panels[""]}
        for domain in found.sweep.domains:
            panels[paper.domain_title(domain)] = lambda cost, domain=domain: cost.trial.em.get(domain)  # type: ignore[misc]
    hours = [cost.useful_hours * factor for cost in costs]
    scale = alt.Scale(type="log", nice=False, padding=12) if max(hours) > _WIDE_RANGE * min(hours) else alt.Scale(zero=True)
    x = alt.X("hours:Q", title=f"Useful {time}", scale=scale)
    charts = [_score_panel(found, _score_rows(found, costs, pick, factor), name, x) for name, pick in panels.items()]
    done = sum(cost.is_done for cost in costs)
    ended = f"{done} completed trials" + (f", open: {len(costs) - done} others" if len(costs) > done else "")
    name = METRIC_TITLES[found.sweep.metric].split(" (")[0]
    title = title_over(f"{name} against useful {time}", found.sweep.name, ended, "line: Pareto front")
    return alt.hconcat(*charts, spacing=24).properties(title=title).resolve_scale(color="shared", shape="shared")


def parameters(found: Efficiency) -> Chart:
    """Points: each completed trial's score by its active parameters, filled, and by all of its parameters, open.

    Raises QueryError where no completed trial has a score and its size.
    """
    sizes = [
        {
            **_facts(found, cost),
            "active": cost.trial.params_active and cost.trial.params_active / 1e6,
            "total": cost.trial.params_total / 1e6,
        }
        for cost in found.costs
        if cost.is_done and cost.trial.params_total
    ]
    if not sizes:
        raise QueryError(f"no completed trial of {found.sweep.name} has both a score and its number of parameters")
    base = alt.Chart(inline(sizes)).encode(
        y=alt.Y("score:Q", title=METRIC_TITLES[found.sweep.metric], scale=alt.Scale(zero=False)), color=_model_colour(sizes)
    )
    active = alt.X("active:Q", title="Parameters (millions)", scale=alt.Scale(zero=True))
    span = base.mark_rule(strokeOpacity=0.4).encode(x=active, x2="total:Q")
    # Ledgers of before active parameters were recorded have the open marks alone.
    filled = base.mark_point(filled=True, size=60, opacity=1).encode(x=active, tooltip=_TOOLTIP)
    opened = base.mark_point(filled=False, size=60, opacity=1).encode(x="total:Q", tooltip=_TOOLTIP)
    title = title_over(
        f"{METRIC_TITLES[found.sweep.metric].split(' (')[0]} against parameters",
        found.sweep.name,
        "filled: parameters that one token's pass uses; open: all",
    )
    return alt.layer(span, filled, opened).properties(width=460, height=280, title=title)


def _measured(found: Efficiency) -> list[TrialCost]:
    costs = [cost for cost in found.costs if cost.useful_hours > 0 and found.sweep.score(cost.trial) is not None]
    if not costs:
        raise QueryError(f"no trial of {found.sweep.name} has both a score and the time it took: wait until one is validated")
    return costs


def _facts(found: Efficiency, cost: TrialCost) -> _Row:
    trial = cost.trial
    return {
        "trial_key": trial.trial_key,
        "model": paper.model_title(trial.trainable),
        "order": trial.order,
        "ratio": ratio(trial.share) if trial.share is not None else "",
        "seed": trial.seed,
        "status": trial.status,
        "score": found.sweep.score(trial),
    }


def _score_rows(
    found: Efficiency, costs: Sequence[TrialCost], pick: Callable[[TrialCost], float | None], factor: float
) -> list[_Row]:
    scored = [(cost, score) for cost in costs if (score := pick(cost)) is not None]
    done = [(cost, score) for cost, score in scored if cost.is_done]
    sign = -1 if found.sweep.metric == "em" else 1
    best = pareto_set([(cost.useful_hours, sign * score) for cost, score in done])
    front = {cost.trial.trial_key for (cost, _), is_in in zip(done, best, strict=True) if is_in}
    return [
        {
            **_facts(found, cost),
            "score": score,
            "hours": cost.useful_hours * factor,
            "is_done": cost.is_done,
            "is_pareto": cost.trial.trial_key in front,
        }
        for cost, score in scored
    ]


def _score_panel(found: Efficiency, rows: list[_Row], name: str, x: alt.X) -> Chart:
    scale = alt.Scale(zero=False, nice=False, padding=16)
    # Flush labels leave the panels' titles at one height.
    y = alt.Y("score:Q", title=METRIC_TITLES[found.sweep.metric], scale=scale, axis=alt.Axis(labelFlush=True))
    steps = sorted((row["hours"], row["score"]) for row in rows if row["is_pareto"])
    steps += [(max(row["hours"] for row in rows), steps[-1][1])] if steps else []
    line = alt.Chart(inline([{"hours": hours, "score": score} for hours, score in steps]))
    line = line.mark_line(interpolate="step-after", color="#777777", strokeWidth=1.5, strokeDash=[5, 3]).encode(x=x, y=y)
    base = alt.Chart(inline(rows)).encode(x=x, y=y)
    orders = sorted({row["order"] for row in rows})
    shape = alt.Shape("order:N", title="Order", scale=alt.Scale(domain=orders, range=["circle", "triangle-up", "square"]))
    points = base.mark_point(size=70, opacity=0.95, strokeWidth=1.5).encode(
        color=_model_colour(rows),
        fill=_model_colour(rows),
        fillOpacity=alt.condition("datum.is_done", alt.value(0.85), alt.value(0)),
        shape=shape if len(orders) > 1 else alt.Undefined,
        tooltip=_TOOLTIP,
    )
    # Up and to the left of a point of the front there is no other point of a grid.
    labels = alt.Chart(inline(_labelled(rows))).mark_text(align="right", dx=-6, dy=-6, fontSize=11, color="#444444")
    labels = labels.encode(x=x, y=y, text="ratio:N")
    is_grid = found.sweep.metric == "em"
    width = 250 if name else 480
    title = {"title": alt.TitleParams(name, anchor="middle", frame="group", fontSize=13)} if name else {}
    return alt.layer(line, points, *([labels] if is_grid else [])).properties(width=width, height=280, **title)


def _labelled(rows: Sequence[_Row]) -> list[_Row]:
    """The points of the front that have room for a label: none close to one that has it already."""
    spans = [max(row[name] for row in rows) - min(row[name] for row in rows) or 1.0 for name in ("hours", "score")]
    chosen: list[_Row] = []
    for row in sorted((row for row in rows if row["is_pareto"]), key=lambda row: row["score"], reverse=True):
        gaps = [(abs(row["hours"] - one["hours"]) / spans[0], abs(row["score"] - one["score"]) / spans[1]) for one in chosen]
        if all(along > _LABEL_WIDTH or up > _LABEL_HEIGHT for along, up in gaps):
            chosen.append(row)
    return chosen


def _model_colour(rows: Sequence[_Row]) -> alt.Color:
    models = sorted({row["model"] for row in rows}, key=lambda name: (name != paper.model_title(paper.BASELINE), name))
    colours = [_MODEL_COLOURS[number % len(_MODEL_COLOURS)] for number in range(len(models))]
    return alt.Color("model:N", title="Model", scale=alt.Scale(domain=models, range=colours))


_TOOLTIP = [
    alt.Tooltip("trial_key:N", title="Key"),
    alt.Tooltip("model:N", title="Model"),
    alt.Tooltip("ratio:N", title="Mixture"),
    alt.Tooltip("order:N", title="Order"),
    alt.Tooltip("seed:Q", title="Seed"),
    alt.Tooltip("status:N", title="Status"),
    alt.Tooltip("score:Q", title="Score", format=".4g"),
    alt.Tooltip("hours:Q", title="Time", format=".4g"),
]
