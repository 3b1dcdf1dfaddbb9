"""What early stopping saves against what it costs, one point for each simulated setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from results.charts import Chart, inline

__all__ = ["draw_savings"]


def draw_savings(rows: Sequence[Mapping[str, Any]]) -> Chart:
    """Rows as `orchestrator.simulate.sweep_settings` gives them: medians, with bars from the 5 % to the 95 % quantile."""
    shown = [
        {
            "variant": row["variant"],
            "setting": f"grace {row['grace']:g}, eta {row['eta']}, {row['slots']} at a time",
            "eta": str(row["eta"]),
            "found_best": row["found_best"],
            **{f"saved_{name}": 100 * row[f"epochs_saved_share_{name}"] for name in ("low", "median", "high")},
            **{f"regret_{name}": min(row[f"regret_{name}"], 1e9) for name in ("low", "median", "high")},
        }
        for row in rows
    ]
    base = alt.Chart(inline(shown)).encode(color=alt.Color("variant:N", title="Variant"))
    saved = alt.X("saved_median:Q", title="Epochs not trained (%)", scale=alt.Scale(zero=False))
    regret = alt.Y("regret_median:Q", title="Regret of the winner (nats)")
    across = base.mark_rule(opacity=0.35).encode(x="saved_low:Q", x2="saved_high:Q", y=regret)
    along = base.mark_rule(opacity=0.35).encode(x=saved, y="regret_low:Q", y2="regret_high:Q")
    points = base.mark_point(filled=True, size=90).encode(
        x=saved,
        y=regret,
        shape=alt.Shape("eta:N", title="eta"),
        tooltip=["setting:N", "saved_median:Q", "regret_median:Q", "found_best:Q"],
    )
    searches = rows[0]["searches"] if rows else 0
    title = alt.TitleParams(
        "What early stopping saves, and what it costs",
        subtitle=f"{searches} orders of the trials for each setting; bars from the 5 % to the 95 % quantile",
        anchor="start",
    )
    return (across + along + points).properties(title=title, width=520, height=320)
