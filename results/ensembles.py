"""Gated ensembles: document B's Tables 1 and 2 beside ours, and what its Table 3 asks of every example.

An example's gate weights are recorded with its prediction, in the order of the trial's parents; what an expert answers is the
parent's own prediction for that example.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from results.errors import LedgerError
from results.grid import Grid, GridTrial
from results.ledger import Ledger
from results.paper_variants import ENSEMBLE_ROWS, EnsembleRow
from results.trial_settings import Settings, TrialSettings

__all__ = ["baseline_epochs", "ensembles_table", "expert_answers_table", "gates_table", "row_settings", "tested_domains"]


def tested_domains(grid: Grid) -> tuple[str, ...]:
    """The domains that the paper's tables are about: those out of training, or all where there are none."""
    return grid.unseen or grid.domains


def baseline_epochs(settings: TrialSettings) -> int | None:
    """Epochs of the baseline, the fewest of the plain models that keep their blocks."""
    found = settings.values("training.epochs", {"architecture": "distilbert", "model.reinit_k": 0})
    return int(found[0]) if found else None


def row_settings(row: EnsembleRow, epochs: int) -> Settings:
    """What a trial of ours has that stands beside the paper's row, the baseline being trained for `epochs`."""
    if not row.is_ensemble:
        return {"architecture": "distilbert", "model.reinit_k": row.reinit_k, "training.epochs": epochs + row.more_epochs}
    return {
        "architecture": "gated_ensemble",
        "model.reinit_k": row.reinit_k,
        "model.expert_epochs": frozenset({None, epochs + row.more_epochs}),
        "model.gate_data": "mixture",
        "model.gate_input": "base_mean",
        "model.combine": "logits",
    }


def ensembles_table(ledger: Ledger, grid: Grid) -> tuple[pa.Table, list[str]]:
    """EM and F1 in percent of the paper's systems on its development and test sets out of domain, and of ours.

    Ours are those on the mixtures that there are gated ensembles for.
    """
    settings, domains = TrialSettings(ledger, grid), tested_domains(grid)
    epochs = baseline_epochs(settings)
    mixtures = {(trial.share, trial.order) for trial, _ in settings.matching({"architecture": "gated_ensemble"})}
    rows = []
    for row in ENSEMBLE_ROWS:
        matching = [] if epochs is None else [trial for trial, _ in settings.matching(row_settings(row, epochs))]
        trials = [trial for trial in matching if (trial.share, trial.order) in mixtures]
        rows.append({"system": row.title, "trials": len(trials), **_ours(trials, domains), **_published(row)})
    where = f"the mean of {', '.join(domains)}" if domains else "no domain"
    notes = [
        f"EM and F1 in percent; ours are test scores, {where}" + ("" if grid.unseen else ", of which all were trained on"),
        "the paper's: six RobustQA sets, three of them out of domain (Sesame Street Ensemble, Tables 1 and 2)",
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


def _published(row: EnsembleRow) -> dict[str, Any]:
    test = row.test or (None, None)
    return {"paper EM dev": row.dev[0], "paper F1 dev": row.dev[1], "paper EM test": test[0], "paper F1 test": test[1]}


_ENSEMBLES = pa.schema(
    [
        ("system", pa.string()),
        ("trials", pa.int64()),
        *((f"{name}", pa.float64()) for name in ("EM", "F1", "paper EM dev", "paper F1 dev", "paper EM test", "paper F1 test")),
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
