"""The report's sections on the paper's claims beside ours, and on the statistics under them."""

from __future__ import annotations

import pyarrow.compute as pc

from results.claims import claims_table, claims_text, exbert_search
from results.comparisons import is_of_two_domains
from results.effects import effects_table
from results.pairs import pairs_table
from results.report_frame import Section, Subject, html_table

__all__ = ["claims_section", "statistics_section"]

_CLAIMS = "The paper beside ours"
_MOST_NOTES = 8
_NOT_MEASURED = "not measured"
_EMPTY_COLUMNS = ("relative", "p", "Holm p", "verdict")
"""Of claims that are not measured."""

_PAIRS = {
    "comparison": "comparison",
    "trainable": "model",
    "order": "order",
    "ratio": "share",
    "tested on": "tested on",
    "seeds": "seeds",
    "base EM": "base EM",
    "other EM": "other EM",
    "difference": "difference",
    "low": "low",
    "high": "high",
    "mcnemar p": "McNemar p",
    "p": "p",
    "holm p": "Holm p",
}
"""Column of the table of pairs to its name here."""


def claims_section(subject: Subject) -> Section | None:
    """None where no grid was planned; of a large one the command instead of the tables."""
    if not subject.grid.trials:
        return None
    about = {"of_two_domains": is_of_two_domains(subject.grid)}
    if subject.is_large:
        return Section(name="claims", title=_CLAIMS, values={**about, "num_trials": len(subject.grid.trials)})
    table, notes = claims_table(subject.ledger, subject.grid, exbert_search(subject.ledger))
    text, is_open = claims_text(table), pc.equal(table["verdict"], _NOT_MEASURED)
    judged, unmeasured = text.filter(pc.invert(is_open)), text.filter(is_open)
    unmeasured = unmeasured.select([name for name in text.column_names if name not in _EMPTY_COLUMNS])
    values = {
        "claims": html_table(judged, "Claims of the paper, and what comes out here, read both ways"),
        "unmeasured": html_table(unmeasured, "Claims of the paper that this ledger cannot judge, and why"),
        "notes": notes[:_MOST_NOTES],
        "num_trials": None,
        **about,
    }
    return Section(name="claims", title=_CLAIMS, values=values)


def statistics_section(subject: Subject) -> Section | None:
    """Effects of the grid's factors and paired differences; None where there is neither, or the grid is large."""
    if subject.is_large:
        return None
    effects, effect_notes = effects_table(subject.grid)
    pairs, pair_notes = pairs_table(subject.ledger, subject.grid)
    if not effects.num_rows + pairs.num_rows:
        return None
    shown = pairs.select(list(_PAIRS)).rename_columns(list(_PAIRS.values()))
    tables = [
        (effects, html_table(effects, "Analysis of variance of EM by architecture, share and order", ".2f")),
        (pairs, html_table(shown, "Paired differences over test examples, in EM points with 95 % intervals", ".1f")),
    ]
    values = {
        "tables": [drawn for table, drawn in tables if table.num_rows],
        "notes": [*effect_notes, *pair_notes][:_MOST_NOTES],
    }
    return Section(name="statistics", title="Effects and pairs", values=values)
