"""Figures of the expert layers: who takes the tokens of which domain, and how far the domains' loads differ over training."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import altair as alt

from results import paper
from results.charts import Chart, inline, title_over
from results.errors import QueryError
from results.grid import ratio, sides
from results.routing import Divergence, LayerLoad, Routing, divergences, nothing_routed
from results.sweep_trials import METRIC_TITLES, SweepTrial

__all__ = ["divergence", "expert_loads", "specialisation"]

_WIDEST = 560  # pixels of a heat map; more experts make narrower cells
_WIDEST_CELL = 44
_LEAST_CELL_WITH_TEXT = 30
_MIXTURE_COLOURS = ("#D55E00", "#E69F00", "#999999", "#56B4E9", "#0072B2")
"""From a mixture of the second domain alone to one of the first alone, in the hues that these domains have in the grid's
figures. Source: Okabe and Ito, "Color Universal Design" (2008)."""

_LINE_COLOUR = "#0072B2"

_MEASURES = {"load": "of the load", "gate": "of the mean gate probability"}

_Row = dict[str, Any]


def expert_loads(found: Routing, trial_key: str | None = None) -> Chart:
    """Heat maps of one trial, the best without `trial_key`: load by expert and domain at the end, and over its validations.

    Raises QueryError where no trial, or not this one, has measured expert layers.
    """
    trial = _chosen(found, trial_key)
    loads = found.of_trial(trial.trial_key)
    final = [load for load in found.final if load.trial_key == trial.trial_key]
    most = max(100 * share for load in loads for share in load.load)
    colour = alt.Color("load:Q", title="Load (%)", scale=alt.Scale(scheme="viridis", domain=[0, most]))
    maps = [_final_map(final, colour, most)]
    validations = [load for load in loads if load.split == "val"]
    if len({load.step for load in validations}) > 1:
        maps.append(_training_map(validations, colour))
    how = "" if trial_key else f"{_BEST[found.sweep.metric]} of {len(found.trials)} trials with experts"
    return alt.vconcat(*maps, spacing=28).properties(
        title=title_over("Load of the experts by domain", trial.described, how, f"even load {100 / len(final[0].load):.3g} %")
    )


def divergence(found: Routing) -> Chart:
    """Lines: the divergence between the domains by epoch, one for each trial with experts, coloured by the mixture, or by the
    score where all have the same mixture. Where no trial was validated more than once: by mixture, at the end.

    Raises QueryError without expert layers, or where only one domain was routed.
    """
    if not found.loads:
        raise QueryError(nothing_routed(found.sweep))
    validations = [one for one in divergences(found.loads) if one.split == "val"]
    is_curve = len({(one.trial_key, one.step) for one in validations}) > len({one.trial_key for one in validations})
    between = validations if is_curve else divergences(found.final)
    if not between:
        raise QueryError(f"the routing of {found.sweep.name} was measured on one domain only: a divergence needs two")
    rows = _divergence_rows(found, between)
    num_layers = len({one.layer for one in between})
    split = "validation" if is_curve else "test" if all(one.split == "test" for one in between) else "last"
    words = (found.sweep.name, f"on the {split} split", f"mean over {num_layers} expert layers" if num_layers > 1 else "")
    title = title_over("How differently the domains are routed", *words, _scale_words(found))
    draw = _curves if is_curve else _by_mixture
    panels = [draw(found, [row for row in rows if row["measure"] == name], name) for name in _MEASURES]
    return alt.vconcat(*panels, spacing=24).properties(title=title)


def specialisation(found: Routing) -> Chart:
    """Lines: the divergence between the domains at the end by expert layer, a line for each trial, coloured by the score.

    Raises QueryError where no trial has several expert layers, or only one domain was routed.
    """
    if not found.loads:
        raise QueryError(nothing_routed(found.sweep))
    between = divergences(found.final)
    deep = {one.trial_key for one in between if one.layer > 0}
    if not deep:
        raise QueryError(
            f"no trial of {found.sweep.name} has routed two domains through several expert layers; run one that does, such as "
            "moe_variants with placement=all, or adapters, or name another with --sweep"
        )
    trials = {trial.trial_key: trial for trial in found.trials}
    rows = [
        {**_labels(found, trials[one.trial_key]), "layer": one.layer, "measure": name, "bits": getattr(one, name)}
        for one in between
        if one.trial_key in deep
        for name in _MEASURES
    ]
    title, is_reversed = METRIC_TITLES[found.sweep.metric], found.sweep.metric == "em"
    scale = alt.Scale(scheme="viridis", reverse=is_reversed, zero=False)
    base = alt.Chart().encode(
        x=alt.X("layer:O", title="Expert layer, in the order of the forward pass", axis=alt.Axis(labelAngle=0)),
        y=_bits(),
        color=alt.Color("score:Q", title=title, scale=scale, legend=alt.Legend(type="gradient")),
        detail="trial_key:N",
    )
    tooltip = [*_TRIAL_TOOLTIP, alt.Tooltip("layer:O", title="Layer"), alt.Tooltip("bits:Q", title="Divergence (bits)")]
    layers = alt.layer(base.mark_line(strokeWidth=2), base.mark_point(filled=True, size=28, opacity=1).encode(tooltip=tooltip))
    panels = [_by_order(layers, [row for row in rows if row["measure"] == name], name) for name in _MEASURES]
    words = (found.sweep.name, f"{len(deep)} trials with several expert layers", _scale_words(found))
    return alt.vconcat(*panels, spacing=24).properties(title=title_over("Where in the model the domains part", *words))


_BEST = {"em": "highest EM", "val_qa_loss": "lowest validation loss"}


def _chosen(found: Routing, trial_key: str | None) -> SweepTrial:
    if found.best is None:
        raise QueryError(nothing_routed(found.sweep))
    if trial_key is None:
        return found.best
    for trial in found.trials:
        if trial.trial_key == trial_key:
            return trial
    shown = ", ".join(trial.trial_key for trial in found.trials[:8])
    more = f" and {len(found.trials) - 8} more" if len(found.trials) > 8 else ""
    raise QueryError(f"no trial {trial_key!r} with measured expert layers in {found.sweep.name}; it has {shown}{more}")


def _load_rows(loads: Sequence[LayerLoad]) -> list[_Row]:
    has_layers = len({load.layer for load in loads}) > 1
    return [
        {
            "where": (f"layer {load.layer}, " if has_layers else "") + paper.domain_title(load.domain),
            "epoch": load.epoch,
            # A lost part of `reports` leaves the step alone.
            "at": f"{load.epoch:.3g}" if load.epoch is not None else f"step {load.step}",
            "expert": expert,
            "load": 100 * share,
            "gate": 100 * load.gate[expert],
            "dropped": 100 * load.dropped[expert],
        }
        for load in loads
        for expert, share in enumerate(load.load)
    ]


_LOAD_TOOLTIP = [
    alt.Tooltip("where:N", title="Tested on"),
    alt.Tooltip("expert:O", title="Expert"),
    alt.Tooltip("epoch:Q", title="Epoch", format=".3g"),
    alt.Tooltip("load:Q", title="Load (%)", format=".2f"),
    alt.Tooltip("gate:Q", title="Mean gate (%)", format=".2f"),
    alt.Tooltip("dropped:Q", title="Dropped (%)", format=".2f"),
]


def _final_map(final: Sequence[LayerLoad], colour: alt.Color, most: float) -> Chart:
    rows = _load_rows(final)
    num_experts = max(len(load.load) for load in final)
    cell = min(_WIDEST_CELL, _WIDEST / num_experts)
    base = alt.Chart(inline(rows)).encode(
        x=alt.X("expert:O", title="Expert", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("where:N", title=None, sort=list(dict.fromkeys(row["where"] for row in rows))),
    )
    layers = [base.mark_rect().encode(color=colour, tooltip=_LOAD_TOOLTIP)]
    if cell >= _LEAST_CELL_WITH_TEXT:
        ink = alt.condition(f"datum.load > {0.55 * most}", alt.value("black"), alt.value("white"))
        layers.append(base.mark_text(fontSize=11).encode(text=alt.Text("load:Q", format=".1f"), color=ink))
    split = "test" if final[0].split == "test" else "validation"
    return alt.layer(*layers).properties(
        width=cell * num_experts, height=_WIDEST_CELL * 0.7 * len(final), title=_panel(f"At the end, on the {split} split")
    )


def _training_map(validations: Sequence[LayerLoad], colour: alt.Color) -> Chart:
    rows = _load_rows(validations)
    moments = list(dict.fromkeys(row["at"] for row in rows))
    places = list(dict.fromkeys(row["where"] for row in rows))
    width = max(140.0, min(260.0, _WIDEST_CELL * 0.7 * len(moments)))
    maps = alt.Chart().mark_rect()
    maps = maps.encode(
        x=alt.X("at:O", title="Epoch", sort=moments, axis=alt.Axis(labelAngle=0, labelOverlap=True)),
        y=alt.Y("expert:O", title="Expert"),
        color=colour,
        tooltip=_LOAD_TOOLTIP,
    )
    header = alt.Header(labelFontSize=12, labelFontWeight="bold")
    faceted = maps.properties(width=width, height=alt.Step(20)).facet(
        facet=alt.Facet("where:N", title=None, sort=places, header=header), columns=2, data=inline(rows)
    )
    return faceted.properties(title=_panel("Over training, on the validation split"))


def _divergence_rows(found: Routing, between: Sequence[Divergence]) -> list[_Row]:
    """A row for each trial, validation and measure, the mean over its layers."""
    trials = {trial.trial_key: trial for trial in found.trials}
    grouped: dict[tuple[str, int], list[Divergence]] = {}
    for one in between:
        grouped.setdefault((one.trial_key, one.step), []).append(one)
    return [
        {
            **_labels(found, trials[key]),
            "epoch": layers[0].epoch,
            "measure": name,
            "bits": statistics.fmean(getattr(layer, name) for layer in layers),
        }
        for (key, step), layers in grouped.items()
        for name in _MEASURES
    ]


def _scale_words(found: Routing) -> str:
    most = math.log2(max(2, len(found.sweep.domains)))
    return f"0 bits: alike; {most:.3g} bit{'s' if most > 1 else ''}: no expert in common"


def _labels(found: Routing, trial: SweepTrial) -> _Row:
    return {
        "trial_key": trial.trial_key,
        "model": paper.model_title(trial.trainable),
        "order": trial.order,
        "share": trial.share,
        "ratio": ratio(trial.share or 0),
        "seed": trial.seed,
        "score": found.sweep.score(trial),
    }


_TRIAL_TOOLTIP = [
    alt.Tooltip("trial_key:N", title="Key"),
    alt.Tooltip("model:N", title="Model"),
    alt.Tooltip("order:N", title="Order"),
    alt.Tooltip("ratio:N", title="Mixture"),
    alt.Tooltip("seed:Q", title="Seed"),
]
_DIVERGENCE_TOOLTIP = [
    *_TRIAL_TOOLTIP,
    alt.Tooltip("epoch:Q", title="Epoch", format=".3g"),
    alt.Tooltip("bits:Q", title="Divergence (bits)", format=".4f"),
]


def _bits() -> alt.Y:
    return alt.Y("bits:Q", title="JS divergence (bits)", scale=alt.Scale(domainMin=0))


def _dash(rows: Sequence[_Row]) -> alt.StrokeDash | alt.UndefinedType:
    """Told apart by the stroke where there is more than one model with experts."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    if len(models) < 2:
        return alt.Undefined
    legend = alt.Legend(symbolType="stroke", symbolStrokeColor="#777", symbolStrokeWidth=2.5, symbolSize=400)
    return alt.StrokeDash("model:N", title="Model", sort=models, legend=legend)


def _curves(found: Routing, rows: list[_Row], measure: str) -> Chart:
    base = alt.Chart().encode(
        x=alt.X("epoch:Q", title="Epoch", axis=alt.Axis(tickMinStep=1), scale=alt.Scale(domainMin=0)),
        y=_bits(),
        color=_mixture_colour(found, rows),
        detail="trial_key:N",
    )
    lines = base.mark_line(strokeWidth=2).encode(strokeDash=_dash(rows))
    points = base.mark_point(filled=True, size=28, opacity=1).encode(tooltip=_DIVERGENCE_TOOLTIP)
    return _by_order(alt.layer(lines, points), rows, measure)


def _mixture_colour(found: Routing, rows: Sequence[_Row]) -> alt.Color:
    """Of the mixture; where that is the same for all trials, of their score, the better the darker."""
    shares = sorted({row["share"] for row in rows if row["share"] is not None})
    if len(shares) < 2:
        title, is_reversed = METRIC_TITLES[found.sweep.metric], found.sweep.metric == "em"
        scale = alt.Scale(scheme="viridis", reverse=is_reversed, zero=False)
        return alt.Color("score:Q", title=title, scale=scale, legend=alt.Legend(type="gradient"))
    label = "datum.value + ':' + (100 - datum.value)"
    legend = alt.Legend(type="symbol", values=shares, symbolType="stroke", symbolStrokeWidth=3, labelExpr=label)
    scale = alt.Scale(domain=[0, 25, 50, 75, 100], range=list(_MIXTURE_COLOURS))
    return alt.Color("share:Q", title=_ratio_title(found), scale=scale, legend=legend)


def _ratio_title(found: Routing) -> str:
    return f"{':'.join(sides(found.sweep.domains))} ratio"


def _by_mixture(found: Routing, rows: list[_Row], measure: str) -> Chart:
    labels = [ratio(share) for share in sorted({row["share"] or 0 for row in rows})]
    base = alt.Chart().encode(
        x=alt.X("ratio:O", title=_ratio_title(found), sort=labels, axis=alt.Axis(labelAngle=0)), y=_bits(), detail="seed:N"
    )
    lines = base.mark_line(strokeWidth=2, color=_LINE_COLOUR).encode(strokeDash=_dash(rows))
    points = base.mark_point(filled=True, size=50, opacity=1, color=_LINE_COLOUR).encode(tooltip=_DIVERGENCE_TOOLTIP)
    return _by_order(alt.layer(lines, points), rows, measure)


def _by_order(layers: Chart, rows: list[_Row], measure: str) -> Chart:
    header = alt.Header(labelFontSize=12, labelFontWeight="bold")
    faceted = layers.properties(width=300, height=190).facet(
        column=alt.Column("order:N", title=None, header=header), data=inline(rows)
    )
    return faceted.properties(title=_panel(f"Jensen-Shannon divergence {_MEASURES[measure]}"))


def _panel(text: str) -> alt.TitleParams:
    return alt.TitleParams(text, anchor="start", frame="group", fontSize=13, fontWeight="normal")
