"""Sweeps in other tools' own formats. A target is one module and one line of TARGETS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from results.exports.csv_files import export_csv
from results.exports.mlflow_runs import export_mlflow
from results.exports.optuna_study import export_optuna
from results.exports.runs import Exported, Sweep, choose_sweep
from results.exports.tensorboard_events import export_tensorboard
from results.exports.wandb_runs import export_wandb
from results.ledger import Ledger
from results.naming import one_of

__all__ = ["TARGETS", "Exported", "Sweep", "Target", "export_sweep"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A tool that a sweep can be written for."""

    export: Callable[[Ledger, Sweep, str], Exported]
    """Takes what TARGET names; raises LedgerError."""
    example: str
    """A TARGET."""
    look: str
    """The command that shows what was written; {target} and {sweep} are filled in."""
    kinds: tuple[str, ...] = ("grid", "search")
    """Kinds of sweep that it can show."""


TARGETS = {
    "csv": Target(export=export_csv, example="./csv", look="head {target}/{sweep}/trials.csv"),
    "mlflow": Target(export=export_mlflow, example="sqlite:///mlflow.db", look="mlflow ui --backend-store-uri {target}"),
    "optuna": Target(export=export_optuna, example="sqlite:///study.db", look="optuna-dashboard {target}", kinds=("search",)),
    "tensorboard": Target(export=export_tensorboard, example="./tensorboard", look="tensorboard --logdir {target}"),
    "wandb": Target(export=export_wandb, example="./wandb-runs", look="wandb sync {target}/wandb"),
}


def export_sweep(ledger: Ledger, to: str, target: str, sweep_id: str | None = None) -> Exported:
    """Writes a sweep for the tool `to` of TARGETS; without a sweep the newest that the tool can show.

    Exporting again brings the target up to date and duplicates nothing; an Optuna study that is there already is refused.

    Raises:
        ValueError: there is no such tool, or `target` is empty.
        LedgerError: there is no such sweep, a package is missing, or the target cannot be written.
    """
    if to not in TARGETS:
        raise ValueError(one_of("--to", to, TARGETS))
    if not target:
        raise ValueError(f"TARGET says where to write, for example: python -m results export --to {to} {TARGETS[to].example}")
    return TARGETS[to].export(ledger, choose_sweep(ledger, sweep_id, TARGETS[to].kinds), target)
