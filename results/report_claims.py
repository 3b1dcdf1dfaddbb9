"""The report's section on the paper: its numbers and claims beside ours."""

from __future__ import annotations

from results.report_frame import Section, Subject, html_table
from results.tables import gains_table, levels_table

__all__ = ["claims_section"]


def claims_section(subject: Subject) -> Section | None:
    """None where no grid was planned."""
    if not subject.grid.trials:
        return None
    levels = levels_table(subject.grid)
    values = {
        "levels": html_table(levels, "Exact match that the paper states, and ours") if levels.num_rows else None,
        "gains": html_table(gains_table(subject.grid), "Gains that the paper claims, and ours, read both ways"),
    }
    return Section(name="claims", title="The paper beside ours", values=values)
