"""The report's trials: the facets that its filters choose by, and one row for each trial of the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from results import paper
from results.grid import ratio
from results.report_frame import Section, Subject

__all__ = ["facets", "trials_section"]


def facets(subject: Subject) -> list[dict[str, Any]]:
    """What the filters offer: for each facet its title and values, each with what people read."""
    rows = subject.ledger.sql("SELECT DISTINCT trainable, squad_share, data_order, seed FROM plans").to_pylist()
    models = _values(rows, "trainable")
    ranked = sorted(models, key=lambda name: (name != paper.BASELINE, name))
    return [
        _facet("model", "Architecture", [(name, paper.model_title(name)) for name in ranked]),
        _facet("share", "Share", [(share, ratio(share)) for share in sorted(_values(rows, "squad_share"))]),
        _facet("order", "Order", [(order, order) for order in sorted(_values(rows, "data_order"))]),
        _facet("seed", "Seed", [(seed, str(seed)) for seed in sorted(_values(rows, "seed"))]),
    ]


def trials_section(subject: Subject) -> Section | None:
    """None where nothing was planned. The page's script draws the table and reckons the heat maps anew from its data."""
    trials = subject.ledger.sql(_TRIALS).to_pydict()
    if not trials["key"]:
        return None
    scores = {trial.trial_key: trial.em for trial in subject.grid.trials}
    tested = _test_scores(subject)
    domains = list(dict.fromkeys([*subject.grid.domains, *sorted({domain for em in tested.values() for domain in em})]))
    block = {
        "columns": {name: _coded(values) if name in _CODED else values for name, values in trials.items()},
        "in_grid": [int(bool(scores.get(key))) for key in trials["key"]],
        "domains": [{"name": domain, "title": paper.domain_title(domain)} for domain in domains],
        "em": {domain: [_rounded(tested.get(key, {}).get(domain)) for key in trials["key"]] for domain in domains},
    }
    return Section(name="trials", title="Trials", values={"num": len(trials["key"])}, data={"trials-data": block})


_CODED = ("model", "order", "status", "why", "sweep")

_TRIALS = """
    SELECT trial_key AS key, sweep_id AS sweep, trainable AS model, squad_share AS share, data_order AS order, seed, status,
           attempts, round(train_seconds, 1) AS seconds, coalesce(error_type, stop_reason) AS why
    FROM trials ORDER BY trainable, data_order, squad_share, seed, trial_key
"""


def _test_scores(subject: Subject) -> dict[str, dict[str, float]]:
    rows = subject.ledger.sql("""
        SELECT trial_key, domain, em FROM evaluations WHERE split = 'test' AND em IS NOT NULL
        QUALIFY row_number() OVER (PARTITION BY trial_key, domain ORDER BY step DESC) = 1
    """).to_pylist()
    scores: dict[str, dict[str, float]] = {}
    for row in rows:
        scores.setdefault(row["trial_key"], {})[row["domain"]] = row["em"]
    return scores


def _values(rows: Sequence[dict[str, Any]], column: str) -> set[Any]:
    return {row[column] for row in rows if row[column] is not None}


def _facet(name: str, title: str, values: Sequence[tuple[Any, str]]) -> dict[str, Any]:
    return {"name": name, "title": title, "values": [{"value": str(value), "title": text} for value, text in values]}


def _coded(values: Sequence[str | None]) -> dict[str, Any]:
    """The distinct values once, and their places."""
    places: dict[str | None, int] = {}
    codes = [places.setdefault(value, len(places)) for value in values]
    return {"values": list(places), "codes": codes}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
