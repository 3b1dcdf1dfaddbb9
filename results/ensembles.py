"""Gated ensembles: document B's Tables 1 and 2 beside ours, and what its Table 3 asks of every example.

An example's gate weights are recorded with its prediction, in the order of the trial's parents; what an expert answers is the
parent's own prediction for that example.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from results import paper
from results.errors import LedgerError
from results.grid import Grid, GridTrial
from results.ledger import Ledger
from results.paper_variants import ENSEMBLE_ROWS, EnsembleRow
from results.trial_settings import PARENTS_EPOCHS, Settings, TrialSettings

__all__ = [
    "Baseline",
    "ensembles_table",
    "expert_answers_table",
    "find_baseline",
    "gates_table",
    "lost_answers",
    "row_settings",
    "tested_domains",
]


def tested_domains(grid: Grid) -> tuple[str, ...]:
    """The domains that the paper's tables are about: those out of training, or all where there are none."""
    return grid.unseen or grid.domains


@dataclass(frozen=True)
class Baseline:
    """How the plain model was trained on the mixtures that there are gated ensembles for."""

    epochs: int
    select: str
    """Which weights were taken, as `training.select` says."""
    mixtures: frozenset[tuple[int, str]]
    """Shares and orders."""


def find_baseline(settings: TrialSettings) -> Baseline | None:
    """None where no plain model was trained on a mixture of an ensemble."""
    mixtures = frozenset((trial.share, trial.order) for trial, _ in settings.matching({"architecture": "gated_ensemble"}))
    for trial, found in settings.matching({"architecture": paper.BASELINE}):
        if trial.trainable == paper.BASELINE and (trial.share, trial.order) in mixtures:
            return Baseline(found["training.epochs"], found.get("training.select", "last"), mixtures)
    return None


def row_settings(row: EnsembleRow, baseline: Baseline) -> Settings:
    """What a trial of ours has that stands beside the paper's row."""
    epochs, common = baseline.epochs + row.more_epochs, {"training.select": baseline.select, "model.reinit_k": row.reinit_k}
    if not row.is_ensemble:
        return {"architecture": paper.BASELINE, "training.epochs": epochs, **common}
    gate = {"model.gate_data": "mixture", "model.gate_input": "base_mean", "model.combine": "logits"}
    return {"architecture": "gated_ensemble", PARENTS_EPOCHS: epochs, **gate, **common}


def ensembles_table(ledger: Ledger, grid: Grid) -> tuple[pa.Table, list[str]]:
    """EM and F1 in percent of the paper's systems on its development and test sets out of domain, and of ours.

    Ours are those on the mixtures that there are gated ensembles for; their best epoch is that of the lowest validation loss.
    """
    settings, domains = TrialSettings(ledger, grid), tested_domains(grid)
    baseline = find_baseline(settings)
    rows = []
    for row in ENSEMBLE_ROWS:
        matching = [] if baseline is None else [trial for trial, _ in settings.matching(row_settings(row, baseline))]
        trials = [trial for trial in matching if baseline and (trial.share, trial.order) in baseline.mixtures]
        ours = {"best epoch": _best_epoch(ledger, trials), **_ours(trials, domains)}
        rows.append({"system": row.title, "trials": len(trials), **ours, **_published(row)})
    where = f"the mean of {', '.join(domains)}" if domains else "no domain"
    notes = [
        f"EM and F1 in percent; ours: {where}" + ("" if grid.unseen else ", of which all were trained on"),
        "the paper's: its three sets out of domain, oodomain_val as dev (Sesame Street Ensemble, Tables 1 and 2); the preset "
        "robustqa is tested on these",
    ]
    return pa.Table.from_pylist(rows, schema=_ENSEMBLES), notes


def gates_table(ledger: Ledger, grid: Grid) -> tuple[pa.Table, list[str]]:
    """One row a trial and domain: its EM beside the best expert's and that of an oracle that always knows whom to ask.

    Raises:
        LedgerError: no trial of the grid has a gate.
    """
    table = ledger.sql(f"WITH answers AS ({_ANSWERS}) {_GATES}", {"keys": _gated(ledger, grid)})
    notes = [
        "EM in percent; oracle: examples that at least one expert has right; followed: of these, the share whose weightiest "
        "expert is right",
        "overruled: of the examples that the ensemble has wrong, the share that some expert has right",
    ]
    return table, notes


def expert_answers_table(ledger: Ledger, grid: Grid) -> tuple[pa.Table, list[str]]:
    """One row an example and expert (the paper's Table 3): its weight, start word and answer.

    Raises:
        LedgerError: no trial of the grid has a gate.
    """
    table = ledger.sql(f"{_ANSWERS} ORDER BY trial_key, domain, example_id, place", {"keys": _gated(ledger, grid)})
    return table.drop_columns(["place"]), [
        "weight: the gate's, mean over the example's windows; start: the expert's first word"
    ]


def lost_answers(ledger: Ledger, trial_key: str, limit: int) -> pa.Table:
    """What every expert answered, of the first few examples that an expert had right and the ensemble has wrong."""
    return ledger.sql(f"WITH answers AS ({_ANSWERS}) {_LOST}", {"keys": [trial_key], "limit": limit})


def _gated(ledger: Ledger, grid: Grid) -> list[str]:
    keys = [trial.trial_key for trial in grid.trials if trial.em]
    found = ledger.sql(_GATED, {"keys": keys}).column(0).to_pylist() if keys else []
    if not found:
        raise LedgerError(
            "no completed trial of the grid has recorded a gate's weights; run `python -m orchestrator.run grid --preset "
            "gated_ensemble`, or name another grid with --sweep"
        )
    return [str(key) for key in found]


def _ours(trials: Sequence[GridTrial], domains: Sequence[str]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, of_trial in (("EM", "em"), ("F1", "f1")):
        scores = [getattr(trial, of_trial)[domain] for trial in trials for domain in domains if domain in trial.em]
        found[name] = statistics.fmean(scores) if scores else None
    return found


def _best_epoch(ledger: Ledger, trials: Sequence[GridTrial]) -> float | None:
    keys = [trial.trial_key for trial in trials]
    return ledger.sql(_BEST_EPOCH, {"keys": keys}).column(0)[0].as_py() if keys else None


def _published(row: EnsembleRow) -> dict[str, Any]:
    test = row.test or (None, None)
    return {"paper EM dev": row.dev[0], "paper F1 dev": row.dev[1], "paper EM test": test[0], "paper F1 test": test[1]}


_BEST_EPOCH = """
    SELECT avg(epoch) FROM (
        SELECT arg_min(epoch, val_qa_loss) AS epoch FROM reports WHERE list_contains($keys, trial_key) GROUP BY trial_key
    )
"""

_ENSEMBLES = pa.schema(
    [
        ("system", pa.string()),
        ("trials", pa.int64()),
        *(
            (name, pa.float64())
            for name in ("best epoch", "EM", "F1", "paper EM dev", "paper F1 dev", "paper EM test", "paper F1 test")
        ),
    ]
)

_GATED = """
    SELECT DISTINCT trial_key FROM predictions
    WHERE trial_key IN (SELECT unnest($keys::VARCHAR[])) AND gate_weights IS NOT NULL ORDER BY trial_key
"""

_ANSWERS = """
    WITH parents AS (
        SELECT DISTINCT trial_key, unnest(parent_keys) AS expert_key, unnest(range(1, len(parent_keys) + 1)) AS place
        FROM plans WHERE trial_key IN (SELECT unnest($keys::VARCHAR[]))
    ),
    names AS (
        SELECT trial_key, any_value(
            CASE len(list_filter(domain_examples, lambda count: count > 0))
                WHEN 1 THEN domains[list_position(list_transform(domain_examples, lambda count: count > 0), true)]
            END
        ) AS name
        FROM plans GROUP BY trial_key
    )
    SELECT child.trial_key, child.domain, child.example_id, child.question, child.gold, child.prediction, child.em,
           coalesce(names.name, expert_key) AS expert, child.gate_weights[place] AS weight,
           split_part(trim(of_expert.prediction), ' ', 1) AS start, of_expert.prediction AS answer, of_expert.em AS expert_em,
           place
    FROM predictions AS child
    JOIN parents USING (trial_key)
    JOIN predictions AS of_expert
      ON of_expert.trial_key = expert_key AND of_expert.domain = child.domain AND of_expert.example_id = child.example_id
    LEFT JOIN names ON names.trial_key = expert_key
    WHERE child.gate_weights IS NOT NULL
"""

_GATES = """
    , examples AS (
        SELECT trial_key, domain, example_id, any_value(em) AS em, max(expert_em) AS oracle,
               arg_max(expert_em, weight) AS chosen
        FROM answers GROUP BY trial_key, domain, example_id
    ),
    best AS (
        SELECT trial_key, domain, expert AS best_expert, 100 * avg(expert_em) AS best_em FROM answers
        GROUP BY trial_key, domain, expert
        QUALIFY row_number() OVER (PARTITION BY trial_key, domain ORDER BY best_em DESC, expert) = 1
    )
    SELECT trial_key, any_value(trainable) AS trainable, domain, count(*) AS examples, 100 * avg(em) AS em,
           any_value(best_expert) AS "best expert", any_value(best_em) AS "best expert's em", 100 * avg(oracle) AS "oracle em",
           100 * avg(chosen) FILTER (oracle = 1) AS followed, 100 * avg(oracle) FILTER (em = 0) AS overruled
    FROM examples JOIN best USING (trial_key, domain)
    JOIN (SELECT trial_key, any_value(trainable) AS trainable FROM plans GROUP BY trial_key) USING (trial_key)
    GROUP BY trial_key, domain ORDER BY trainable, trial_key, domain
"""

_LOST = """
    , lost AS (
        SELECT domain, example_id FROM answers WHERE em = 0
        GROUP BY domain, example_id HAVING max(expert_em) = 1 ORDER BY domain, example_id LIMIT $limit
    )
    SELECT domain, question, array_to_string(gold, ' | ') AS "ground truth", prediction AS ensemble, expert, weight, start,
           answer
    FROM answers JOIN lost USING (domain, example_id) ORDER BY domain, example_id, place
"""
