"""The winners of searches over all mixtures, beside the untuned plain model (papers: document A, Fig 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.decisions import with_suggested
from orchestrator.errors import PlanError, SweepError
from orchestrator.plan import Plan, make_trial
from orchestrator.preset import Preset
from orchestrator.trial import Trial
from results.ledger import Ledger
from results.storage import StorageLike
from search_spaces.mixture_grid import GridPoint, mixture_grid
from trainables.registry import settings_of

__all__ = ["plan_comparison", "winner_of"]

SEARCHED = "searched"
"""Variant of a trial whose settings a search has found."""

_BEST = """
    SELECT trial_key FROM decisions WHERE sweep_id = $sweep AND kind = 'ended' AND action = 'completed' AND value IS NOT NULL
    ORDER BY value, number LIMIT 1
"""


def winner_of(plan: Plan, storage: StorageLike) -> Trial:
    """The completed trial of a search with the lowest final validation loss.

    Raises:
        SweepError: none has completed.
    """
    rows = Ledger(storage, must_exist=False).sql(_BEST, {"sweep": plan.sweep_id}).to_pylist()
    if not rows:
        raise SweepError(f"no trial of {plan.sweep_id} has completed, so there is no winner to compare; go on with the search")
    return next(trial for trial in with_suggested(plan, storage).trials if trial.key == rows[0]["trial_key"])


def check_shares(preset: Preset) -> None:
    """Raises PlanError where a share of the comparison gives no whole examples."""
    for share in preset.shares:
        try:
            preset.examples_at(share)
        except ValueError as error:
            raise PlanError(f"the comparison at share {share}: {error}") from error


def plan_comparison(preset: Preset, winners: Sequence[Trial]) -> Plan:
    """Every winner and the plain model with the preset's settings: all shares, shuffled, with all seeds of the preset."""
    data, fingerprint = winners[0].data, winners[0].data_fingerprint
    trials: dict[str, Trial] = {}
    for point in mixture_grid(trainables=("distilbert",), shares=preset.shares, orders=("shuffled",), seeds=preset.seeds):
        rows = [make_trial(preset, point, data, fingerprint), *(_at(winner, point, preset) for winner in winners)]
        trials |= {each.key: each for trial in rows for each in trial.lineage}
    return Plan(kind="grid", preset=preset, trials=tuple(trials.values()))


def _at(winner: Trial, point: GridPoint, preset: Preset) -> Trial:
    config = winner.config.resolved()
    config["mixture"] = {**config["mixture"], "share": point.share, "examples": preset.examples_at(point.share)}
    made = settings_of(winner.trainable).config.model_validate(config)
    return replace(winner, config=made, variant=SEARCHED, title="", detail="").with_seed(point.seed)
