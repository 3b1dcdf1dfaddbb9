"""The report's section on gated ensembles: the paper's tables beside ours, what gates are worth, examples that they lose."""

from __future__ import annotations

import pyarrow as pa

from results import paper
from results.ensembles import ensembles_table, expert_answers_table, gates_table
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
        answers, _ = expert_answers_table(subject.ledger, subject.grid)
    except LedgerError:  # none is complete yet
        return Section(name="ensembles", title="Gated ensembles", values={"tables": tables, "notes": notes})
    tables.append(html_table(gates, "Ensembles, their best experts, and an oracle", ".1f"))
    tables.append(html_table(_lost(answers), "Examples that some expert had right and the ensemble has wrong", ".2f"))
    values = {"tables": [table for table in tables if table["rows"]], "notes": [*notes, *more]}
    return Section(name="ensembles", title="Gated ensembles", values=values)


def _lost(answers: pa.Table) -> pa.Table:
    """What every expert answered, of the first few examples that the first ensemble lost."""
    rows = answers.to_pylist()
    of_example: dict[tuple[str, str], list[dict[str, object]]] = {}
    for row in rows:
        if row["trial_key"] == rows[0]["trial_key"] and row["em"] == 0:
            of_example.setdefault((row["domain"], row["example_id"]), []).append(row)
    lost = [each for each in of_example.values() if any(row["expert_em"] == 1 for row in each)]
    shown = [
        {
            "domain": paper.domain_title(str(row["domain"])),
            "question": row["question"],
            "ground truth": " | ".join(map(str, row["gold"])),  # type: ignore[call-overload]
            "ensemble": row["prediction"],
            "expert": row["expert"],
            "weight": row["weight"],
            "start": row["start"],
            "answer": row["answer"],
        }
        for each in lost[:_MOST_EXAMPLES]
        for row in each
    ]
    return pa.Table.from_pylist(shown) if shown else pa.table({"domain": pa.array([], pa.string())})
