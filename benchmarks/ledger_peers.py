"""Everyone who takes part."""

from __future__ import annotations

from ledger_contender import Contender
from ledger_csv import RayCsv
from ledger_mlflow import Mlflow
from ledger_optuna import Optuna
from ledger_ours import Ours
from ledger_tensorboard import TensorBoard

__all__ = ["CONTENDERS"]

CONTENDERS: dict[str, Contender] = {
    each.name: each for each in (Ours(), Mlflow(), Optuna("SQLite"), Optuna("journal"), TensorBoard(), RayCsv())
}
"""By name, ours first."""
