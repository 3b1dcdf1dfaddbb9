"""The paper's Table 1 from our ledger: questions with the true answer and what two models answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from results import paper
from results.grid import Grid, GridTrial, ratio
from results.ledger import Ledger

__all__ = ["PAPER_SHARE", "PredictionsTable", "predictions_table"]

PAPER_SHARE = 80
"""Percent of the first domain in the mixture that ExBERT was tuned on. Source: §3.3."""

_PREFERRED_ORDER = "shuffled"


@dataclass(frozen=True)
class PredictionsTable:
    """Answers of one or two models to the same questions."""

    rows: pa.Table
    """Columns: domain, question, ground truth, and one per model."""
    share: int | None
    """Percent of the first domain in the mixture the models were trained on; None without predictions."""
    notes: tuple[str, ...]
    """Where the rows come from, and how often which model is right over all examples."""


def predictions_table(
    ledger: Ledger, grid: Grid, *, limit: int = 8, domain: str | None = None, share: int = PAPER_SHARE
) -> PredictionsTable:
    """Up to `limit` examples, evenly over the domains, at the available share nearest to `share`.

    First come examples that only one of the models has right, taking turns between the two so that neither is
    flattered, then other differing answers; within that the order is a hash of the example's id, so the same ledger
    gives the same table. Raises ValueError for a domain that the grid does not have.
    """
    if domain is not None and domain not in grid.domains:
        raise ValueError(f"domain must be one of {', '.join(grid.domains) or '(none in the ledger)'}, got {domain!r}")
    chosen = _choose(grid, share)
    titles = [paper.model_title(trial.trainable) for trial in chosen]
    schema = pa.schema([(name, pa.string()) for name in ("domain", "question", "ground truth", *titles)])
    if not chosen:
        return PredictionsTable(schema.empty_table(), None, ("no completed trial to take predictions from",))
    domains = [domain] if domain else list(grid.domains)
    parameters = {"first": chosen[0].trial_key, "second": chosen[-1].trial_key, "domains": domains}
    picked = ledger.sql(_PICK, {**parameters, "per_domain": -(-limit // len(domains)), "limit": limit})
    columns = [picked.column(name) for name in ("domain", "question", "truth", "first", "second")[: 3 + len(chosen)]]
    notes = [_origin(chosen)]
    if len(chosen) > 1:
        notes += _agreement(ledger, parameters, titles)
    if not picked.num_rows:
        notes.append("these trials left no predictions")
    return PredictionsTable(pa.Table.from_arrays(columns, schema=schema), chosen[0].share, tuple(notes))


_PAIRS = """
    SELECT a.domain, a.example_id, a.question, array_to_string(a.gold, ' | ') AS truth,
           a.prediction AS first, b.prediction AS second,
           CASE WHEN a.em > b.em THEN 1 WHEN b.em > a.em THEN 2 ELSE 0 END AS winner, a.em = 1 AS first_right
    FROM predictions AS a JOIN predictions AS b USING (domain, example_id)
    WHERE a.trial_key = $first AND b.trial_key = $second AND list_contains($domains, domain)
"""

_PICK = f"""
    WITH pairs AS ({_PAIRS}),
    turns AS (
        SELECT *, CASE WHEN winner > 0 THEN 0 WHEN first <> second THEN 1 ELSE 2 END AS class,
               row_number() OVER (PARTITION BY domain, class, winner ORDER BY md5(example_id), example_id) AS turn
        FROM pairs
    ),
    ranked AS (
        SELECT *, row_number() OVER (PARTITION BY domain ORDER BY class, turn, winner DESC) AS place FROM turns
    )
    SELECT * FROM ranked WHERE place <= $per_domain
    ORDER BY list_position($domains, domain), place LIMIT $limit
"""

_AGREEMENT = f"""
    WITH pairs AS ({_PAIRS})
    SELECT domain, count(*) AS examples, count(*) FILTER (winner = 1) AS only_first,
           count(*) FILTER (winner = 2) AS only_second, count(*) FILTER (winner = 0 AND first_right) AS both
    FROM pairs GROUP BY domain ORDER BY list_position($domains, domain)
"""


def _choose(grid: Grid, share: int) -> list[GridTrial]:
    """The baseline's trial and the contender's that differ in nothing else; one trial where there is no such pair."""
    done = [trial for trial in grid.trials if trial.em]
    names = [name for name in ((*grid.trainables[:1], grid.contender) if grid.trainables else ()) if name]
    settings = [{(t.order, t.share, t.seed) for t in done if t.trainable == name} for name in names]
    common = set.intersection(*settings) if settings else set()
    if not common:
        common = {(trial.order, trial.share, trial.seed) for trial in done}
    if not common:
        return []
    best = min(common, key=lambda s: (s[0] != _PREFERRED_ORDER, abs(s[1] - share), -s[1], s[2], s[0]))
    found = {t.trainable: t for t in reversed(done) if (t.order, t.share, t.seed) == best}
    return [found[name] for name in names if name in found] or list(found.values())[:1]


def _origin(chosen: list[GridTrial]) -> str:
    keys = ", ".join(f"{trial.trainable} {trial.trial_key}" for trial in chosen)
    trial = chosen[0]
    return f"trained on {ratio(trial.share)}, {trial.order}, seed {trial.seed}: {keys}"


def _agreement(ledger: Ledger, parameters: Mapping[str, object], titles: list[str]) -> list[str]:
    return [
        f"{paper.domain_title(row['domain'])}: of {row['examples']} examples both are right on {row['both']}, "
        f"only {titles[0]} on {row['only_first']}, only {titles[1]} on {row['only_second']}"
        for row in ledger.sql(_AGREEMENT, parameters).to_pylist()
    ]
