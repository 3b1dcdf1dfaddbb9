"""The report's section on a search: what it found, how its losses went, what its settings matter."""

from __future__ import annotations

import dataclasses

from results.errors import OptunaMissingError
from results.figures import SEARCH_FIGURES
from results.ledger import Ledger
from results.report_frame import Figure, Section, Subject, html_table
from results.search import Search
from results.search_marks import short_name
from results.search_tables import search_summary, search_table

__all__ = ["search_section"]

_BEST_TRIALS = 10
_MOST_TRIALS = 400
"""In a figure; more could not be told apart."""

_FIGURES = {
    "history": "Points: the loss of each trial in the order of suggestion, and the best so far.",
    "intermediate": "Lines: validation loss by epoch. Losses at one epoch compare; other figures have the newest.",
    "rungs": "Lines: from each trial's suggestion to the last decision on it, with the rungs it was judged at.",
    "importance": "Bars: what share each setting has in coming out among the best.",
    "parallel": "Lines: the settings and the loss of each trial.",
}


def search_section(subject: Subject) -> Section | None:
    """None where there was no search. A figure that needs Optuna is left out without it."""
    search = subject.search
    if search is None:
        return None
    figures, notes = {}, []
    few, note = _fewer(search)
    for name, about in _FIGURES.items():
        try:
            figures[name] = Figure.of(SEARCH_FIGURES[name](search if name == "importance" else few), about)
        except OptunaMissingError as error:
            notes.append(f"Figure {name} left out: {error}.")
    best = search_table(search, _BEST_TRIALS)
    best = best.rename_columns([short_name(name) for name in best.column_names])
    values = {
        "summary": search_summary(search),
        "notes": [*notes, *note],
        "best": html_table(best, "The best trials, then those that came furthest", ".4g"),
    }
    return Section(name="search", title="The search", values=values, figures=figures, facets=_facets(subject.ledger, search))


def _facets(ledger: Ledger, search: Search) -> dict[str, str]:
    """What the trials of the search were planned with."""
    query = "SELECT DISTINCT trainable, squad_share, data_order, seed FROM plans WHERE sweep_id = $sweep ORDER BY ALL"
    planned = ledger.sql(query, {"sweep": search.sweep_id}).to_pydict()
    columns = {"model": "trainable", "share": "squad_share", "order": "data_order", "seed": "seed"}
    known = {facet: [str(value) for value in planned[column] if value is not None] for facet, column in columns.items()}
    return {facet: "|".join(dict.fromkeys(values)) for facet, values in known.items() if values}


def _fewer(search: Search) -> tuple[Search, list[str]]:
    """The search with as many trials as figures can show, and a line on the others: the best half, and evenly of the rest."""
    if len(search.trials) <= _MOST_TRIALS:
        return search, []
    half = _MOST_TRIALS // 2
    best = {trial.number for trial in search.ranking[:half]}
    others = [trial.number for trial in search.trials if trial.number not in best]
    every = -(-len(others) // half)
    kept = best | set(others[::every])
    trials = tuple(trial for trial in search.trials if trial.number in kept)
    note = f"The figures have the best {half:,} of {len(search.trials):,} trials, and every {every}th of the others."
    return dataclasses.replace(search, trials=trials), [note]
