"""The hours of sweeps by what they were spent on, as a figure; and how figures call a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from results.charts import Chart, inline, title_over
from results.errors import QueryError
from results.spending import Spending

__all__ = ["spending", "time_unit"]

_KIND_COLOURS = {
    "useful": "#009E73",
    "start-up": "#56B4E9",
    "stopped early": "#E69F00",
    "failed": "#D55E00",
    "lost": "#CC79A7",
    "idle": "#BBBBBB",
}
"""Source: Okabe and Ito, "Color Universal Design" (2008)."""

_TIMES = ((1.0, "hours"), (60.0, "minutes"), (3600.0, "seconds"))
_MOST_SWEEPS = 30
_LEAST_LABELLED = 0.06  # share of a bar that has room for its number

_Row = dict[str, Any]


def spending(found: Sequence[Spending]) -> Chart:
    """Stacked bars: the hours of each sweep's runs by what they were spent on, and the same as shares.

    Raises QueryError where no sweep spent any.
    """
    spent = [one for one in found if sum(one.seconds.values())]
    if not spent:
        raise QueryError("no run has spent any time yet: run `python -m orchestrator.run grid`, or name another with --storage")
    shown = spent[-_MOST_SWEEPS:]
    has_gpus = all(any(one.gpu_seconds.values()) for one in shown)
    hours = {one.sweep_id: {k: s / 3600 for k, s in (one.gpu_seconds if has_gpus else one.seconds).items()} for one in shown}
    factor, time = time_unit(max(sum(kinds.values()) for kinds in hours.values()), "GPU-hours" if has_gpus else "slot-hours")
    rows = [row for sweep_id, kinds in hours.items() for row in _kind_rows(sweep_id, kinds, factor)]
    present = [kind for kind in _KIND_COLOURS if any(row["kind"] == kind for row in rows)]
    scale = alt.Scale(domain=present, range=[_KIND_COLOURS[kind] for kind in present])
    colour = alt.Color("kind:N", title="Spent on", sort=present, scale=scale)
    base = alt.Chart(inline(rows)).encode(order=alt.Order("place:Q"))
    bars = base.mark_bar().encode(color=colour, tooltip=_KIND_TOOLTIP)
    names = alt.Y("sweep_id:N", title=None, sort=list(hours), axis=alt.Axis(labelLimit=240))
    amounts = bars.encode(x=alt.X("hours:Q", title=time.capitalize()), y=names).properties(width=260, height=alt.Step(36))
    more = f"the newest {len(shown)} of {len(spent)} sweeps" if len(spent) > len(shown) else ""
    unit = "wall hours x GPUs held" if has_gpus else "wall hours x slots"
    title = title_over("What the sweeps' slots were spent on", more, unit)
    return alt.hconcat(amounts, _shares(base, bars, list(hours)), spacing=16).properties(title=title)


def _shares(base: Chart, bars: Chart, sweep_ids: list[str]) -> Chart:
    """The same bars as long as one another, beside those that name the sweeps."""
    y = alt.Y("sweep_id:N", title=None, sort=sweep_ids, axis=None)
    axis = alt.Axis(format="%")
    parts = bars.encode(x=alt.X("share:Q", title="Share", axis=axis, scale=alt.Scale(domain=[0, 1])), y=y)
    labels = base.transform_filter(f"datum.share >= {_LEAST_LABELLED}").mark_text(fontSize=11, color="black")
    labels = labels.encode(x="middle:Q", y=y, text=alt.Text("share:Q", format=".0%"))
    return alt.layer(parts, labels).properties(width=300, height=alt.Step(36))


def time_unit(most_hours: float, words: str) -> tuple[float, str]:
    """By what to multiply hours, and how to call them, so that the largest is at least 1."""
    chosen = next((pair for pair in _TIMES if most_hours * pair[0] >= 1), _TIMES[-1])
    return chosen[0], words.replace("hours", chosen[1])


_KIND_TOOLTIP = [
    alt.Tooltip("sweep_id:N", title="Sweep"),
    alt.Tooltip("kind:N", title="Spent on"),
    alt.Tooltip("hours:Q", title="Time", format=".4g"),
    alt.Tooltip("share:Q", title="Share", format=".1%"),
]


def _kind_rows(sweep_id: str, kinds: dict[str, float], factor: float) -> list[_Row]:
    """In the order of the legend, with where each part of the bar of shares has its middle."""
    total, before, rows = sum(kinds.values()), 0.0, []
    for place, kind in enumerate(_KIND_COLOURS):
        share = kinds[kind] / total
        if share:
            middle = before + share / 2
            amount = {"hours": kinds[kind] * factor, "share": share, "middle": middle}
            rows.append({"sweep_id": sweep_id, "kind": kind, "place": place, **amount})
        before += share
    return rows
