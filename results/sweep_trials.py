"""The trials that a table or a figure is about, with their scores: those of one sweep, or the newest grids compared."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any, Literal

from results import paper
from results.grid import load_grid, ratio, require_sweep
from results.ledger import Ledger
from results.naming import sweeps_line
from results.search import search_ids

__all__ = ["METRIC_TITLES", "Metric", "SweepTrial", "SweepTrials", "load_sweep_trials"]

Metric = Literal["em", "val_qa_loss"]

METRIC_TITLES: dict[Metric, str] = {"em": "Exact match on the test set (%)", "val_qa_loss": "Validation loss (nats)"}


@dataclass(frozen=True, kw_only=True)
class SweepTrial:
    """One trial; what its score is, `SweepTrials.metric` says."""

    trial_key: str
    trainable: str
    share: int | None
    """Percent of the first domain."""
    order: str
    seed: int
    status: str
    params_total: int | None
    params_active: int | None
    """That one token's pass uses; None in ledgers of before it was recorded."""
    em: dict[str, float]
    """Test score in percent by domain, empty until it completed."""
    val_qa_loss: float | None
    """Of its last validation, nats; None where there is none, or it is not finite."""

    @property
    def mean_em(self) -> float | None:
        """Mean over the domains, percent."""
        return statistics.fmean(self.em.values()) if self.em else None

    @property
    def described(self) -> str:
        """The trial in a few words, for titles."""
        mixture = [ratio(self.share), self.order] if self.share is not None else [self.order]
        return f"{', '.join([paper.model_title(self.trainable), *mixture])}, seed {self.seed} ({self.trial_key})"


@dataclass(frozen=True, kw_only=True)
class SweepTrials:
    """The trials of a sweep, and what they are judged by: a grid's by their test EM, a search's by their validation loss."""

    sweep_ids: tuple[str, ...]
    """More than one where the newest grids are compared; none in a ledger without plans."""
    metric: Metric
    domains: tuple[str, ...]
    """In mixture order; domains that were only tested on come last."""
    trials: tuple[SweepTrial, ...]
    known: tuple[str, ...] = ()
    """Every sweep of that kind, the newest first, where none was asked for."""

    @property
    def described(self) -> list[str]:
        """A line on which sweeps these are of; none without any."""
        if not self.sweep_ids:
            return []
        kind = "grids" if self.metric == "em" else "searches"
        return [sweeps_line(self.sweep_ids, len(self.trials), kind=kind, known=self.known)]

    @property
    def name(self) -> str:
        """The sweeps by id."""
        return " and ".join(self.sweep_ids) or "this ledger"

    def score(self, trial: SweepTrial) -> float | None:
        """In the unit of `metric`."""
        return trial.mean_em if self.metric == "em" else trial.val_qa_loss

    def badness(self, trial: SweepTrial) -> float:
        """The score such that lower is better; infinite without one."""
        score = self.score(trial)
        if score is None:
            return math.inf
        return -score if self.metric == "em" else score

    @property
    def completed(self) -> tuple[SweepTrial, ...]:
        """Those that were trained to the end and have a score."""
        return tuple(trial for trial in self.trials if trial.status == "completed" and self.score(trial) is not None)


def load_sweep_trials(ledger: Ledger, sweep_id: str | None = None) -> SweepTrials:
    """The trials that `sweep_id` planned; without one, those that `load_grid` compares, or where no grid was planned those
    of the newest search.

    Raises QueryError for a sweep that the ledger does not have.
    """
    keys: list[str] = []
    known: tuple[str, ...] = ()
    if sweep_id is None:
        grid = load_grid(ledger)
        keys = [trial.trial_key for trial in grid.trials]
        known = grid.known or tuple(search_ids(ledger))
        sweeps = list(grid.sweep_ids or known[:1])
    else:
        require_sweep(ledger, sweep_id)
        sweeps = [sweep_id]
    plans = ledger.sql(_PLANS, {"sweeps": sweeps}).to_pylist()
    plans = [plan for plan in plans if plan["trial_key"] in set(keys)] if keys else plans
    rows = ledger.sql(_TRIALS, {"keys": [plan["trial_key"] for plan in plans]}).to_pylist()
    em = _test_scores(ledger, [plan["trial_key"] for plan in plans])
    trials = tuple(_trial(row, em.get(row["trial_key"], {})) for row in rows)
    domains = [domain for plan in plans for domain in plan["domains"] or ()]
    tested = sorted({domain for trial in trials for domain in trial.em})
    is_grid = all(plan["sweep_kind"] == "grid" for plan in plans)
    return SweepTrials(
        sweep_ids=tuple(sweeps),
        metric="em" if is_grid else "val_qa_loss",
        domains=tuple(dict.fromkeys([*domains, *tested])),
        trials=trials,
        known=known,
    )


_PLANS = """
    SELECT trial_key, sweep_kind, domains FROM plans WHERE sweep_id IN (SELECT unnest($sweeps::VARCHAR[]))
    ORDER BY planned_at, trial_key
"""

_TRIALS = """
    WITH last AS (
        SELECT trial_key, arg_max(val_qa_loss, step) AS val_qa_loss FROM reports
        WHERE val_qa_loss IS NOT NULL AND trial_key IN (SELECT unnest($keys::VARCHAR[])) GROUP BY trial_key
    )
    SELECT trial_key, trainable, squad_share, data_order, seed, status, params_total, params_active, val_qa_loss
    FROM trials LEFT JOIN last USING (trial_key) WHERE trial_key IN (SELECT unnest($keys::VARCHAR[]))
    ORDER BY trainable, data_order, squad_share, seed, trial_key
"""

_TESTED = """
    SELECT trial_key, domain, em FROM evaluations
    WHERE split = 'test' AND em IS NOT NULL AND trial_key IN (SELECT unnest($keys::VARCHAR[]))
    QUALIFY row_number() OVER (PARTITION BY trial_key, domain ORDER BY step DESC) = 1 ORDER BY trial_key, domain
"""


def _test_scores(ledger: Ledger, keys: list[str]) -> dict[str, dict[str, float]]:
    scores: dict[str, dict[str, float]] = {}
    for row in ledger.sql(_TESTED, {"keys": keys}).to_pylist():
        scores.setdefault(row["trial_key"], {})[row["domain"]] = row["em"]
    return scores


def _trial(row: dict[str, Any], em: dict[str, float]) -> SweepTrial:
    loss = row["val_qa_loss"]
    return SweepTrial(
        trial_key=row["trial_key"],
        trainable=row["trainable"] or "?",
        share=row["squad_share"],
        order=row["data_order"] or "?",
        seed=row["seed"] or 0,
        status=row["status"],
        params_total=row["params_total"],
        params_active=row["params_active"],
        em=em if row["status"] == "completed" else {},
        val_qa_loss=loss if loss is not None and math.isfinite(loss) else None,
    )
