"""What the figures of a search share: colours by state, titles, tooltips, rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from results.search import Search, SearchTrial

__all__ = ["Row", "loss_axis", "search_title", "short_name", "state_colour", "trial_row", "trial_tooltip"]

Row = dict[str, Any]

_COLOURS = {
    "completed": "#0072B2",
    "stopped": "#E69F00",
    "paused": "#CC79A7",
    "running": "#009E73",
    "failed": "#D55E00",
}
"""Source: Okabe and Ito, "Color Universal Design" (2008)."""


def trial_row(trial: SearchTrial) -> Row:
    """What a mark says of its trial."""
    settings = ", ".join(f"{short_name(name)} {value}" for name, value in trial.parameters.items())
    return {
        "number": trial.number,
        "trial_key": trial.trial_key,
        "state": trial.state,
        "epochs": trial.epochs,
        "loss": trial.value,
        "settings": settings,
    }


def trial_tooltip() -> list[alt.Tooltip]:
    """The fields of `trial_row`."""
    return [
        alt.Tooltip("number:Q", title="Trial"),
        alt.Tooltip("trial_key:N", title="Key"),
        alt.Tooltip("state:N", title="State"),
        alt.Tooltip("epochs:Q", title="Epochs"),
        alt.Tooltip("loss:Q", title="Validation loss", format=".4f"),
        alt.Tooltip("settings:N", title="Settings"),
    ]


def state_colour(trials: Sequence[SearchTrial]) -> alt.Color:
    """A state has the same colour in every figure; the legend has those of `trials`."""
    present = [state for state in _COLOURS if any(trial.state == state for trial in trials)]
    return alt.Color("state:N", title="State", scale=alt.Scale(domain=present, range=[_COLOURS[state] for state in present]))


def loss_axis(field: str = "loss") -> alt.Y:
    """The validation loss upwards, from the least that there is."""
    return alt.Y(f"{field}:Q", title="Validation loss (nats)", scale=alt.Scale(zero=False, nice=True))


def search_title(text: str, search: Search, *more: str) -> alt.TitleParams:
    """The title over a line that names the search and how its trials stand."""
    states = [trial.state for trial in search.trials]
    counts = [f"{states.count(state)} {state}" for state in _COLOURS if state in states]
    subtitle = " · ".join([f"{search.sweep_id}, {search.trainable}", ", ".join(counts) or "no trials yet", *more])
    return alt.TitleParams(text, subtitle=subtitle, anchor="start", fontSize=15, subtitleFontSize=12, offset=12)


def short_name(name: str) -> str:
    """A dotted name without its section."""
    return name.rpartition(".")[2]
