"""Recorded learning curves of the ledger, as the simulation takes them, and what it found as a table for a person."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
from rich.table import Table

from orchestrator.simulate import Curve, SimulationError
from results.ledger import Ledger
from results.storage import StorageLike

__all__ = ["load_curves", "saved_table"]

_CURVES = """
    SELECT trial_key, any_value(epochs) AS epochs, any_value(train_seconds) / any_value(epochs) AS seconds_per_epoch,
           list(epoch ORDER BY step) AS at, list(val_qa_loss ORDER BY step) AS losses
    FROM trials JOIN reports USING (trial_key)
    WHERE status = 'completed' AND val_qa_loss IS NOT NULL
      AND trial_key NOT IN (SELECT trial_key FROM attempts WHERE status IN ('lost', 'failed'))
      AND ($sweep IS NULL OR trial_key IN (SELECT trial_key FROM plans WHERE sweep_id = $sweep))
    GROUP BY trial_key ORDER BY trial_key
"""


def load_curves(storage: StorageLike, sweep_id: str | None) -> tuple[list[Curve], float]:
    """Validation losses by epoch of completed trials, and the epochs that they all have.

    Trials with a lost or failed attempt are left out, for their seconds do not tell what an epoch costs. Of trials planned for
    different numbers of epochs the most frequent number counts.

    Raises:
        SimulationError: there are fewer than two such trials.
    """
    rows = Ledger(storage, must_exist=False).sql(_CURVES, {"sweep": sweep_id}).to_pylist()
    planned = [row["epochs"] for row in rows]
    most = max(set(planned), key=lambda epochs: (planned.count(epochs), epochs), default=0)
    alike = [row for row in rows if row["epochs"] == most]
    if len(alike) < 2:
        where = f"sweep {sweep_id}" if sweep_id else "the ledger"
        raise SimulationError(
            f"{where} has {len(alike)} completed trials with learning curves of one length, and a simulation needs 2 or more; "
            "run a grid first, or name another sweep with --sweep"
        )
    return [Curve(row["trial_key"], row["at"], row["losses"], row["seconds_per_epoch"]) for row in alike], float(most)


def saved_table(rows: pa.Table) -> Table:
    """One line for each setting: medians with the interval from the 5 % to the 95 % quantile.

    Saved: epochs not trained, hours of trials. Regret: the winner's final loss above the best of all. Best: share without.
    """
    table = Table(box=None, pad_edge=False)
    for heading in ("variant", "grace", "eta", "slots", "saved %", "saved h", "regret", "best"):
        table.add_column(heading, no_wrap=True)
    for row in rows.to_pylist():
        percent = {name: 100 * value for name, value in row.items() if name.startswith("epochs_saved_share")}
        table.add_row(
            row["variant"],
            f"{row['grace']:g}",
            str(row["eta"]),
            str(row["slots"]),
            _interval(percent, "epochs_saved_share", ".0f"),
            f"{row['seconds_saved_median'] / 3600:.2f}",
            _interval(row, "regret", ".3f"),
            f"{row['found_best']:.0%}",
        )
    return table


def _interval(row: Mapping[str, float], name: str, form: str) -> str:
    low, median, high = (format(row[f"{name}_{suffix}"], form) for suffix in ("low", "median", "high"))
    return f"{median} [{low}, {high}]" if low != high else median
