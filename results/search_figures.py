"""Figures of the points that a search tried: losses by number and by setting, and what the settings matter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import altair as alt

from results.charts import Chart, empty_chart, inline
from results.errors import OptunaMissingError
from results.optuna_bridge import importances
from results.search import Search, SearchTrial
from results.search_marks import Row, loss_axis, search_title, short_name, state_colour, trial_row, trial_tooltip
from results.search_space import Dimension, Value

__all__ = ["contour", "history", "importance", "parallel", "slices"]

_LOSS = "validation loss"
_NO_LOSSES = "no trial has a loss yet"
_CELLS = 40
_MOST_TICKS = 8
_FEW = 20  # measured trials below which a ranking of settings is mostly chance
_LOSS_COLOUR = alt.Color("loss:Q", title="Loss", scale=alt.Scale(scheme="viridis"))


def history(search: Search) -> Chart:
    """The loss of each trial by its number, and the best of the completed ones so far."""
    title = search_title("Losses in the order of suggestion", search)
    rows, best = [], math.inf
    for trial in search.trials:
        if trial.state == "completed" and trial.value is not None:
            best = min(best, trial.value)
        rows.append({**trial_row(trial), "best": best if best < math.inf else None})
    if not _measured(search):
        return empty_chart(title, _NO_LOSSES)
    numbers = alt.Scale(domain=[-0.5, len(rows) - 0.5], nice=False)
    base = alt.Chart().encode(x=alt.X("number:Q", title="Trial", scale=numbers, axis=alt.Axis(tickMinStep=1)))
    line = base.transform_filter("datum.best !== null").mark_line(interpolate="step-after", strokeWidth=2, color="#777777")
    points = base.transform_filter("datum.loss !== null").mark_point(filled=True, size=55, opacity=0.9)
    layers = (
        line.encode(y=loss_axis("best")),
        points.encode(y=loss_axis(), color=state_colour(search.trials), tooltip=trial_tooltip()),
    )
    return alt.layer(*layers).properties(width=560, height=300, title=title, data=inline(rows))


def importance(search: Search) -> Chart:
    """Bars: what share each dimension has in coming out among the best.

    Raises:
        OptunaMissingError: Optuna is not installed.
    """
    title = search_title("How much each setting matters", search, f"PED-ANOVA by rank{_caveat(search)}")
    rows = [{"parameter": name, "importance": share} for name, share in importances(search).items()]
    if not rows:
        return empty_chart(title, "too few trials have ended to tell")
    bars = alt.Chart(inline(rows)).encode(
        x=alt.X("importance:Q", title="Importance", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1])),
        y=alt.Y("parameter:N", title=None, sort=[str(row["parameter"]) for row in rows], axis=alt.Axis(labelLimit=240)),
    )
    shares = bars.mark_text(align="left", dx=5, color="#777777").encode(text=alt.Text("importance:Q", format=".1%"))
    return alt.layer(bars.mark_bar(color="#0072B2"), shares).properties(width=460, height=34 * len(rows), title=title)


def parallel(search: Search) -> Chart:
    """A line per trial through its settings and its loss; dark ones are good, faint ones were not trained to the end."""
    title = search_title("Settings and loss of each trial", search)
    trials = [trial for trial in reversed(search.ranking) if trial.value is not None]  # the best are drawn last
    if not trials:
        return empty_chart(title, _NO_LOSSES)
    low, high = (pick(trial.value for trial in trials if trial.value is not None) for pick in (min, max))
    loss = Dimension(kind="float", low=low, high=high)
    axes = {**{short_name(name): (name, d) for name, d in search.space.dimensions.items()}, _LOSS: (_LOSS, loss)}
    rows = [
        {**trial_row(trial), "axis": axis, "position": dimension.position(values[name])}
        for trial in trials
        for values in [{**trial.parameters, _LOSS: trial.value}]
        for axis, (name, dimension) in axes.items()
        if name in values
    ]
    ticks = [tick for axis, (_, dimension) in axes.items() for tick in _ticks(axis, dimension)]
    x = alt.X(
        "axis:N", title=None, sort=list(axes), axis=alt.Axis(labelAngle=0, orient="top", offset=12, domain=False, ticks=False)
    )
    y = alt.Y("position:Q", axis=None, scale=alt.Scale(domain=[0, 1]))
    opacity = alt.condition("datum.state === 'completed'", alt.value(0.95), alt.value(0.35))
    lines = alt.Chart(inline(rows)).mark_line(strokeWidth=1.8)
    lines = lines.encode(x=x, y=y, detail="number:N", color=_LOSS_COLOUR, opacity=opacity, tooltip=trial_tooltip())
    marks = alt.Chart(inline(ticks)).encode(x=x, y=y)
    rule = marks.mark_line(color="#777777", strokeWidth=1).encode(detail="axis:N")
    labels = marks.mark_text(align="left", dx=5, fontSize=11, color="#777777").encode(text="text:N")
    return alt.layer(rule, lines, labels).properties(width=150 * len(axes), height=300, title=title)


def slices(search: Search) -> Chart:
    """The loss by each dimension alone, side by side."""
    title = search_title("Loss by each setting", search)
    if not _measured(search):
        return empty_chart(title, _NO_LOSSES)
    panels = [_slice(search, name, dimension) for name, dimension in search.space.dimensions.items()]
    return alt.concat(*panels, columns=3, title=title).resolve_scale(color="shared")


def contour(search: Search) -> Chart:
    """The loss over the two numeric dimensions that matter most, between the trials by their distance."""
    names, how = _most_important(search)
    title = search_title("Loss between the trials", search, how + _caveat(search))
    spans = {name: _Span.of(search.space.dimensions[name]) for name in names}
    points = [trial for trial in _measured(search) if all(name in trial.parameters for name in names)]
    if len(names) < 2 or len(points) < 3:
        return empty_chart(title, "needs two numeric settings and three trials with a loss")
    across, up = (spans[name] for name in names)
    at = [(across.fraction(t.parameters[names[0]]), up.fraction(t.parameters[names[1]]), t.value or 0.0) for t in points]
    rects = alt.Chart(inline(_cells(across, up, at))).mark_rect()
    rects = rects.encode(x=across.x(names[0]), x2="x2:Q", y=up.y(names[1]), y2="y2:Q", color=_LOSS_COLOUR)
    rows = [{**trial_row(t), "x": t.parameters[names[0]], "y": t.parameters[names[1]]} for t in points]
    marks = alt.Chart(inline(rows)).mark_point(filled=True, size=60, stroke="white", strokeWidth=1, opacity=1)
    marks = marks.encode(x=across.x(names[0]), y=up.y(names[1]), color=_LOSS_COLOUR, tooltip=trial_tooltip())
    return alt.layer(rects, marks).properties(width=420, height=340, title=title)


@dataclass(frozen=True)
class _Span:
    """The ends of a numeric dimension, as an axis."""

    low: float
    high: float
    log: bool
    is_whole: bool

    @classmethod
    def of(cls, dimension: Dimension) -> _Span:
        is_whole = all(isinstance(value, int) for value in dimension.options) and dimension.kind != "float"
        if dimension.kind != "choice":
            return cls(dimension.low, dimension.high, dimension.log, is_whole)
        numbers = [_number(value) for value in dimension.values]
        low, high = min(numbers), max(numbers)
        return cls(low, high, low > 0 and high >= 5 * low, is_whole)  # rates and counts are multiples of one another

    def fraction(self, value: Value) -> float:
        return Dimension(kind="float", low=self.low, high=self.high, log=self.log).position(value)

    def value(self, fraction: float) -> float:
        if self.log:
            return float(self.low * (self.high / self.low) ** fraction)
        return self.low + fraction * (self.high - self.low)

    def scale(self, padding: float = 0) -> alt.Scale:
        kind: Literal["log", "linear"] = "log" if self.log else "linear"
        return alt.Scale(type=kind, domain=[self.low, self.high], nice=False, zero=False, padding=padding)

    def axis(self) -> alt.Axis:
        form = "~e" if 0 < self.low < 1e-3 else "~g"
        return alt.Axis(format=form, labelOverlap=True, tickMinStep=1 if self.is_whole else alt.Undefined)

    def x(self, name: str) -> alt.X:
        return alt.X("x:Q", title=short_name(name), scale=self.scale(), axis=self.axis())

    def y(self, name: str) -> alt.Y:
        return alt.Y("y:Q", title=short_name(name), scale=self.scale(), axis=self.axis())


def _caveat(search: Search) -> str:
    """For a title: that so few trials say little."""
    measured = len(_measured(search))
    return f"; {measured} trials say little" if measured < _FEW else ""


def _measured(search: Search) -> list[SearchTrial]:
    return [trial for trial in search.trials if trial.value is not None and trial.state != "failed"]


def _ticks(axis: str, dimension: Dimension) -> list[Row]:
    values: Sequence[Value] = dimension.options
    if not 0 < len(values) <= _MOST_TICKS:
        values = (dimension.low, dimension.high)
    return [{"axis": axis, "position": dimension.position(value), "text": _text(value)} for value in values]


def _text(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _number(value: Value) -> float:
    return float(value or 0)


def _slice(search: Search, name: str, dimension: Dimension) -> Chart:
    rows = [{**trial_row(trial), "at": trial.parameters[name]} for trial in _measured(search) if name in trial.parameters]
    title = short_name(name)
    if dimension.kind == "choice":
        labels = [_text(value) for value in dimension.values]
        rows = [{**row, "at": _text(row["at"])} for row in rows]
        x = alt.X("at:O", title=title, sort=labels, scale=alt.Scale(domain=labels), axis=alt.Axis(labelAngle=0))
    else:
        span = _Span.of(dimension)
        x = alt.X("at:Q", title=title, scale=span.scale(padding=10), axis=span.axis())
    points = alt.Chart(inline(rows)).mark_point(filled=True, size=50, opacity=0.8)
    color = state_colour(_measured(search))
    return points.encode(x=x, y=loss_axis(), color=color, tooltip=trial_tooltip()).properties(width=220, height=220)


def _most_important(search: Search) -> tuple[list[str], str]:
    """Two numeric dimensions, and how they were chosen."""
    numeric = [name for name, dimension in search.space.dimensions.items() if dimension.is_numeric]
    try:
        shares, how = importances(search), "the two numeric settings that matter most"
    except OptunaMissingError:
        shares, how = {}, "the first two numeric settings; with Optuna installed, those that matter most"
    return sorted(numeric, key=lambda name: -shares.get(name, 0.0))[:2], how


def _cells(across: _Span, up: _Span, points: Sequence[tuple[float, float, float]]) -> list[Row]:
    """Squares with the mean of all losses, weighted by the inverse square of the distance."""
    rows = []
    for column in range(_CELLS):
        for line in range(_CELLS):
            x, y = (column + 0.5) / _CELLS, (line + 0.5) / _CELLS
            weights = [1 / ((x - px) ** 2 + (y - py) ** 2 + 1e-3) for px, py, _ in points]
            loss = sum(weight * value for weight, (_, _, value) in zip(weights, points, strict=True)) / sum(weights)
            edges = {"x": across.value(column / _CELLS), "x2": across.value((column + 1) / _CELLS)}
            rows.append({**edges, "y": up.value(line / _CELLS), "y2": up.value((line + 1) / _CELLS), "loss": round(loss, 4)})
    return rows
