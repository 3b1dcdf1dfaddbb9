"""The report's section on gated ensembles: the paper's tables beside ours, what gates are worth, examples that they lose."""

from __future__ import annotations

import statistics

import pyarrow as pa

from results.ensembles import ensembles_table, gates_table, lost_answers
from results.errors import LedgerError
from results.report_frame import Section, Subject, html_table

__all__ = ["ensembles_section"]

_MOST_EXAMPLES = 6


def ensembles_section(subject: Subject) -> Section | None:
    """None where no trial of the grid has a gate; of a large grid neither."""
    if subject.is_large or not any(name.startswith("gated_ensemble") for name in subject.grid.trainables):
        return None
    published, notes = ensembles_table(subject.ledger, subject.grid)
    tables = [html_table(published, "The paper's systems and ours, EM and F1 in percent", ".1f")]
    try:
        gates, more = gates_table(subject.ledger, subject.grid)
    except LedgerError:  # none is complete yet
        return Section(name="ensembles", title="Gated ensembles", values={"tables": tables, "notes": notes})
    best = _best(gates)
    lost = lost_answers(subject.ledger, best, _MOST_EXAMPLES)
    tables.append(html_table(gates, "Ensembles, their best experts, and an oracle", ".1f"))
    tables.append(html_table(lost, f"Examples that some expert had right and the best ensemble, {best}, has wrong", ".2f"))
    values = {"tables": [table for table in tables if table["rows"]], "notes": [*notes, *more]}
    return Section(name="ensembles", title="Gated ensembles", values=values)


def _best(gates: pa.Table) -> str:
    """The key of the trial with the highest mean EM over the domains."""
    scores: dict[str, list[float]] = {}
    for row in gates.to_pylist():
        scores.setdefault(row["trial_key"], []).append(row["em"])
    return max(scores, key=lambda key: (statistics.fmean(scores[key]), key))
