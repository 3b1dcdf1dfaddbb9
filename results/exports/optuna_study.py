"""A search as an Optuna study, which optuna-dashboard shows. A study that is there already is left alone."""

from __future__ import annotations

from results.exports.runs import Exported, Sweep
from results.ledger import Ledger
from results.optuna_bridge import export_study
from results.search import load_search

__all__ = ["export_optuna"]


def export_optuna(ledger: Ledger, sweep: Sweep, target: str) -> Exported:
    """Writes the study; trials that warmed the search up are in it too. Raises LedgerError as `export_study` does."""
    return Exported(sweep=sweep, num_written=export_study(load_search(ledger, sweep.sweep_id), target))
