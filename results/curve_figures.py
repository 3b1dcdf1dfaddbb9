"""Figures of how a search's trials went: their curves, the rungs they came to, and the paper's Figs. 4 and 5."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from datetime import UTC

import altair as alt

from results.charts import Chart, empty_chart, inline
from results.search import Decision, Search, SearchTrial
from results.search_marks import Row, loss_axis, search_title, state_colour, trial_row, trial_tooltip

__all__ = ["fig4", "fig5", "intermediate", "rungs"]

_TRAIN, _VAL = "training", "validation"
_PAIR_COLOURS = ("#009E73", "#CC79A7")
"""Green for training, pink for validation, as in the paper."""

_MOST_PAIRS = 6
_RUNG_SHAPES = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross")
_FATES = {"completed": "●", "stopped": "×", "paused": "‖", "failed": "!", "running": "→"}


def intermediate(search: Search) -> Chart:
    """Validation loss by epoch, a line per trial; one that was not trained to the end is dashed and ends with a mark."""
    title = search_title("Validation loss while training", search, *_rung_words(search))
    rows = [
        {
            **trial_row(trial),
            "epoch": epoch,
            "at": value,
            "is_best": trial == search.best,
            "fate": _FATES[trial.state] if index == len(trial.curve) else "",
        }
        for trial in search.trials
        for index, (epoch, value) in enumerate(trial.curve, 1)
        if value is not None
    ]
    if not rows:
        return empty_chart(title, "no trial has a loss yet")
    rules = alt.Chart(inline([{"rung": rung} for rung in search.rungs])).mark_rule(color="#999999", strokeDash=[2, 3])
    base = alt.Chart(inline(rows)).encode(
        x=alt.X("epoch:Q", title="Epoch", axis=alt.Axis(tickMinStep=1), scale=alt.Scale(domainMin=0)),
        y=loss_axis("at"),
        color=state_colour(search.trials),
        detail="number:N",
        tooltip=trial_tooltip(),
    )
    is_whole = "datum.state === 'completed'"
    whole = base.transform_filter(is_whole).mark_line(opacity=0.9)
    whole = whole.encode(strokeWidth=alt.condition("datum.is_best", alt.value(3.5), alt.value(1.4)))
    partial = base.transform_filter(f"!({is_whole})").mark_line(strokeDash=[4, 3], strokeWidth=1.4, opacity=0.7)
    ends = base.transform_filter(f"datum.fate !== '' && !({is_whole})").mark_text(fontSize=14).encode(text="fate:N")
    layers = alt.layer(rules.encode(x="rung:Q"), partial, whole, ends)
    return layers.properties(width=560, height=340, title=title)


def rungs(search: Search) -> Chart:
    """A line per trial from its suggestion to the last decision on it, with the rungs it was judged at and its fate."""
    title = search_title("Trials and the rungs they came to", search, *_rung_words(search))
    if not search.trials:
        return empty_chart(title, "nothing was suggested yet")
    is_timed = all(row.happened_at for trial in search.trials for row in trial.decisions)
    spans = [row for trial in search.trials for row in _span(trial, is_timed)]
    judged = [
        {**trial_row(trial), "at": _moment(row, is_timed), "rung": f"{row.rung:g}", "action": row.action}
        for trial in search.trials
        for row in trial.decisions
        if row.rung is not None
    ]
    kind, name = ("T", "Time (UTC)") if is_timed else ("Q", "Decisions")
    x = alt.X(f"at:{kind}", title=name, scale=alt.Scale(type="utc") if is_timed else alt.Undefined)
    numbers = alt.Scale(domain=[-0.5, len(search.trials) - 0.5], reverse=True, nice=False)
    y = alt.Y("number:Q", title="Trial", scale=numbers, axis=alt.Axis(tickMinStep=1, grid=False))
    base = alt.Chart(inline(spans)).encode(y=y, color=state_colour(search.trials), tooltip=trial_tooltip())
    lines = base.mark_line(strokeWidth=1.6, opacity=0.7).encode(x=x, detail="number:N")
    fates = base.transform_filter("datum.fate !== ''").mark_text(fontSize=15, align="left", dx=2, fontWeight="bold")
    marks = alt.Chart(inline(judged)).mark_point(size=45, filled=True, opacity=1)
    labels = [f"{rung:g}" for rung in search.rungs]
    scale = alt.Scale(domain=labels, range=[_RUNG_SHAPES[i % len(_RUNG_SHAPES)] for i in range(len(labels))])
    shape = alt.Shape("rung:N", title="Judged at epoch", scale=scale)
    tooltip = [*trial_tooltip(), alt.Tooltip("rung:N", title="Rung"), alt.Tooltip("action:N", title="Decision")]
    marks = marks.encode(x=x, y=y, color=state_colour(search.trials), shape=shape, tooltip=tooltip)
    height = max(160, min(14 * len(search.trials), 1200))
    layers = [lines, *([marks] if judged else []), fates.encode(x=x, text="fate:N")]
    return alt.layer(*layers).properties(width=600, height=height, title=title)


def fig4(search: Search) -> Chart:
    """Training and validation loss by epoch, a pair of lines for each number of blocks (paper, Fig. 4)."""
    return _pairs(search, "model.n_layers", lambda trial: trial.n_layers, "by number of blocks", "{:g} blocks")


def fig5(search: Search) -> Chart:
    """Training and validation loss by epoch, a pair of lines for each learning rate (paper, Fig. 5)."""
    return _pairs(search, "training.learning_rate", lambda trial: trial.learning_rate, "by learning rate", "rate {:.3g}")


def _pairs(search: Search, name: str, setting: Callable[[SearchTrial], float | None], by: str, label: str) -> Chart:
    """A panel for each value of the setting, with the curves of the best trial that has it."""
    stage = next((trial.stage for trial in search.trials if trial.stage and _varies(search, trial.stage, setting)), None)
    chosen = _best_of_each([t for t in search.ranking if stage is None or t.stage == stage], setting)
    how = f"stage {stage}" if stage else "the best trial of each"
    title = search_title(f"Training and validation loss {by}", search, how, "without auxiliary losses")
    rows = [
        {**trial_row(trial), "pair": label.format(value), "epoch": report.epoch, "kind": kind, "at": at}
        for value, trial in chosen.items()
        for report in trial.reports
        for kind, at in ((_TRAIN, report.train), (_VAL, report.val))
        if at is not None
    ]
    if not rows:
        return empty_chart(title, f"no trial with a known {name} has reported a loss")
    colour = alt.Color("kind:N", title="Loss", scale=alt.Scale(domain=[_TRAIN, _VAL], range=list(_PAIR_COLOURS)))
    lines = alt.Chart().mark_line(strokeWidth=2.2, point=alt.OverlayMarkDef(size=30))
    lines = lines.encode(
        x=alt.X("epoch:Q", title="Epoch", axis=alt.Axis(tickMinStep=1), scale=alt.Scale(domainMin=0)),
        y=alt.Y("at:Q", title="QA loss (nats)", scale=alt.Scale(zero=False)),
        color=colour,
        tooltip=[*trial_tooltip(), alt.Tooltip("kind:N", title="Loss"), alt.Tooltip("at:Q", title="nats", format=".4f")],
    )
    header = alt.Header(labelFontSize=13, labelFontWeight="bold")
    panels = alt.Facet("pair:N", title=None, sort=[label.format(value) for value in chosen], header=header)
    faceted = lines.properties(width=210, height=200).facet(
        facet=panels, columns=len(chosen) if len(chosen) <= 4 else 3, data=inline(rows)
    )
    return faceted.properties(title=title)


def _varies(search: Search, stage: str, setting: Callable[[SearchTrial], float | None]) -> bool:
    return len({setting(trial) for trial in search.trials if trial.stage == stage}) > 1


def _best_of_each(ranked: Iterable[SearchTrial], setting: Callable[[SearchTrial], float | None]) -> dict[float, SearchTrial]:
    """The first of `ranked` with reports for each value, ascending; of many values one for each of _MOST_PAIRS ranges."""
    best: dict[float, SearchTrial] = {}
    for trial in ranked:
        value = setting(trial)
        if value is not None and trial.reports:
            best.setdefault(value, trial)
    if len(best) > _MOST_PAIRS and min(best) > 0:
        low, high = math.log(min(best)), math.log(max(best))
        ranges: dict[int, float] = {}
        for value in best:  # in the order of the ranking
            ranges.setdefault(min(_MOST_PAIRS - 1, int(_MOST_PAIRS * (math.log(value) - low) / (high - low))), value)
        best = {value: best[value] for value in ranges.values()}
    return dict(sorted(best.items()))


def _span(trial: SearchTrial, is_timed: bool) -> list[Row]:
    """Where the trial's line begins and ends."""
    first, last = (_moment(row, is_timed) for row in (trial.decisions[0], trial.decisions[-1]))
    row = trial_row(trial)
    return [{**row, "at": first, "fate": ""}, {**row, "at": last, "fate": _FATES[trial.state]}]


def _moment(row: Decision, is_timed: bool) -> str | int:
    return row.happened_at.astimezone(UTC).isoformat() if is_timed and row.happened_at else row.sequence


def _rung_words(search: Search) -> list[str]:
    counts = [rung.described for rung in search.rung_counts]
    return [", ".join(counts)] if counts else []
