"""The report's section on routing: which experts the domains went to."""

from __future__ import annotations

from results.report_frame import Section, Subject, html_table, ledger_figures
from results.routing import routing_table

__all__ = ["routing_section"]

_MOST_ROWS = 48
_COLUMNS = {
    "trainable": "model",
    "share": "share",
    "order": "order",
    "seed": "seed",
    "layer": "layer",
    "domain": "domain",
    "normalised_entropy": "entropy / ln E",
    "cv": "cv",
    "max_load": "max load %",
    "dead": "dead",
    "dropped": "dropped %",
    "js_load": "JS of load",
    "js_gate": "JS of gate",
}
"""Column of the routing table to its name here."""

_FIGURES = {
    "routing": "Heat maps: what share of the assignments each expert gets, by domain, for the best trial with experts.",
    "divergence": "Lines: how far apart the domains' loads and gates are while training, in bits.",
    "specialisation": "Lines: how far apart the domains are at the end in each expert layer, in bits.",
}


def routing_section(subject: Subject) -> Section | None:
    """None where no trial has expert layers."""
    table, notes = routing_table(subject.ledger, subject.sweep_id)
    if not table.num_rows:
        return None
    shown = table.select(list(_COLUMNS)).rename_columns(list(_COLUMNS.values()))
    values = {
        "table": html_table(shown.slice(0, _MOST_ROWS), "Routing of each trial, layer and domain at the end", ".4f"),
        "left_out": max(0, table.num_rows - _MOST_ROWS),
        "notes": notes,
    }
    return Section(name="routing", title="Routing", values=values, figures=ledger_figures(subject, _FIGURES))
