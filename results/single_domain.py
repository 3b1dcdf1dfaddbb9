"""Trials trained on one domain alone: the paper's Fig. 2, from the largest such trials that the ledger has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from results.grid import Grid, load_trials
from results.ledger import Ledger

__all__ = ["SINGLE_DOMAIN_SHARES", "SingleDomain", "lent_by", "load_single_domain"]

SINGLE_DOMAIN_SHARES = (100, 0)
"""Trained on the first domain, on the second."""


@dataclass(frozen=True)
class SingleDomain:
    """Completed trials of one share, all of one mixture size."""

    share: int
    mixture_size: int
    grid: Grid


def load_single_domain(ledger: Ledger, grid: Grid) -> list[SingleDomain]:
    """For each of SINGLE_DOMAIN_SHARES the completed trials on the grid's data with the largest mixture.

    They come from any grid of the ledger; a share that no completed trial has is left out.
    """
    keys = [trial.trial_key for trial in grid.trials]
    if not keys:
        return []
    plans = ledger.sql(_SAME_DATA, {"keys": keys}).to_pylist()
    found = []
    for share in SINGLE_DOMAIN_SHARES:
        mine = [plan for plan in plans if plan["squad_share"] == share]
        for size in sorted({plan["mixture_size"] or 0 for plan in mine}, reverse=True):
            trials = load_trials(ledger, [plan for plan in mine if (plan["mixture_size"] or 0) == size])
            done = tuple(trial for trial in trials if trial.em)
            if done:
                found.append(SingleDomain(share, size, replace(grid, trials=done, mixture_size=size)))
                break
    return found


def lent_by(singles: Iterable[Grid], grid: Grid) -> str:
    """The sweeps that trials on one domain alone were taken from, by name; empty where they are all the grid's own."""
    own = {trial.trial_key for trial in grid.trials}
    return " and ".join(sorted({trial.sweep_id for each in singles for trial in each.trials if trial.trial_key not in own}))


_SAME_DATA = """
    SELECT * EXCLUDE (config) FROM plans
    WHERE sweep_kind = 'grid' AND squad_share IN (0, 100)
      AND (data_fingerprint, domains) IN (SELECT (data_fingerprint, domains) FROM plans WHERE list_contains($keys, trial_key))
    ORDER BY planned_at, sweep_id, trial_key
"""
