"""The report's predictions browser: the test questions with the true answers and those of every model of the grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from results import paper
from results.grid import Grid, GridTrial
from results.ledger import Ledger
from results.predictions import PAPER_SHARE, predictions_table
from results.report_frame import Section, Subject

__all__ = ["MOST_ANSWERS", "answers_section"]

MOST_ANSWERS = 16_000
"""On the page; more would make it large and slow."""

_MOST_TRIALS = 60
_LONGEST = 400
"""Characters of a question or an answer."""


def answers_section(subject: Subject) -> Section | None:
    """None where no grid was planned."""
    if not subject.grid.trials:
        return None
    ledger, grid = subject.ledger, subject.grid
    notes = list(predictions_table(ledger, grid, limit=1).notes)
    tested = _with_predictions(ledger, grid)
    trials = _chosen(tested)
    rows = _rows(ledger, grid, trials) if trials else []
    values = {"notes": notes, "num_trials": len(tested), "num_shown": len(trials), "has_rows": bool(rows)}
    values |= {"left_out": _left_out(ledger, tested, trials, rows), "longest": _LONGEST}
    data = {"answers-data": _block(grid, trials, rows)} if rows else {}
    return Section(name="answers", title="Answers", values=values, data=data)


def _with_predictions(ledger: Ledger, grid: Grid) -> list[GridTrial]:
    counts = ledger.sql("SELECT DISTINCT trial_key FROM predictions").column(0).to_pylist()
    known = set(counts)
    return [trial for trial in grid.trials if trial.em and trial.trial_key in known]


def _chosen(tested: Sequence[GridTrial]) -> list[GridTrial]:
    """The lowest seeds first, and of these the settings nearest to the paper's, so that models stay comparable."""
    ranked = sorted(tested, key=lambda t: (t.seed, t.order != "shuffled", abs(t.share - PAPER_SHARE), t.trainable))
    return ranked[:_MOST_TRIALS]


def _rows(ledger: Ledger, grid: Grid, trials: Sequence[GridTrial]) -> list[dict[str, Any]]:
    """Of each domain the same number of examples, chosen by a hash of their ids, as many as `MOST_ANSWERS` lets in."""
    per_domain = MOST_ANSWERS // (len(trials) * max(1, len(grid.domains)))
    parameters = {"keys": [trial.trial_key for trial in trials], "domains": list(grid.domains), "most": max(1, per_domain)}
    rows: list[dict[str, Any]] = ledger.sql(_PICK, {**parameters, "longest": _LONGEST}).to_pylist()
    return rows


_PICK = """
    WITH of_trials AS (SELECT * FROM predictions WHERE list_contains($keys, trial_key) AND list_contains($domains, domain)),
    examples AS (
        SELECT domain, example_id FROM of_trials GROUP BY domain, example_id
        QUALIFY row_number() OVER (PARTITION BY domain ORDER BY md5(example_id), example_id) <= $most
    )
    SELECT domain, example_id, trial_key, question[:$longest] AS question, prediction[:$longest] AS prediction,
           array_to_string(gold, ' | ')[:$longest] AS gold, em
    FROM of_trials SEMI JOIN examples USING (domain, example_id)
    ORDER BY list_position($domains, domain), md5(example_id), example_id, trial_key
"""


def _left_out(
    ledger: Ledger, tested: Sequence[GridTrial], trials: Sequence[GridTrial], rows: Sequence[dict[str, Any]]
) -> str | None:
    """What the page does not have, and how to get it."""
    if not rows:
        return None
    query = "SELECT count(*) AS answers FROM predictions WHERE list_contains($keys, trial_key)"
    total = ledger.sql(query, {"keys": [trial.trial_key for trial in tested]}).column(0).to_pylist()[0]
    if total <= len(rows):
        return None
    return (
        f"The page has {len(rows):,} of {total:,} answers: {len(trials):,} of {len(tested):,} models, "
        f"{len({(row['domain'], row['example_id']) for row in rows}):,} examples chosen by a hash of their ids."
    )


def _block(grid: Grid, trials: Sequence[GridTrial], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Examples once, and for each model its answers as numbers into `texts` (-1: none) and whether they are right."""
    places: dict[tuple[str, str], int] = {}
    texts: dict[str, int] = {}
    examples: list[dict[str, str]] = []
    answers: dict[str, dict[int, tuple[int, bool]]] = {trial.trial_key: {} for trial in trials}
    for row in rows:
        place = places.setdefault((row["domain"], row["example_id"]), len(places))
        if place == len(examples):
            examples.append({"domain": row["domain"], "question": row["question"] or "", "gold": row["gold"] or ""})
        text = texts.setdefault(row["prediction"] or "", len(texts))
        answers[row["trial_key"]][place] = (text, row["em"] == 1)
    nothing = (-1, False)
    models = [
        {
            "key": trial.trial_key,
            "model": trial.trainable,
            "share": trial.share,
            "order": trial.order,
            "seed": trial.seed,
            "texts": [answers[trial.trial_key].get(place, nothing)[0] for place in range(len(examples))],
            "right": "".join(str(int(answers[trial.trial_key].get(place, nothing)[1])) for place in range(len(examples))),
        }
        for trial in trials
    ]
    first, second = (grid.trainables[0], grid.contender) if grid.trainables else (None, None)
    return {
        "examples": examples,
        "texts": list(texts),
        "trials": models,
        "baseline": first,
        "contender": second,
        "share": PAPER_SHARE,
        "domains": [{"name": domain, "title": paper.domain_title(domain)} for domain in grid.domains],
    }
