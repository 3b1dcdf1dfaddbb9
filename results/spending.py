"""What a sweep's slots were spent on: start-up, work by its worth, and idle time, which add up to the slots its runs held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from results.grid import require_sweep
from results.ledger import Ledger

__all__ = [
    "CHARGED",
    "KINDS",
    "Spending",
    "load_spending",
    "load_spendings",
    "spending_by_trial",
    "spending_table",
    "sweep_spending",
]

KINDS = {
    "startup_seconds": "start-up",
    "useful_seconds": "useful",
    "stopped_seconds": "stopped early",
    "failed_seconds": "failed",
    "lost_seconds": "lost",
}
"""Columns of the view `spending`, and what they are called; `idle` is what remains of the slots."""

_IDLE = "idle"
_NOISE = 1e-6
"""Share of the slots' seconds by which sums of floats may differ."""


@dataclass(frozen=True)
class Spending:
    """Seconds of a sweep's runs by kind, which sum to `slot_seconds` unless a note says otherwise."""

    sweep_id: str
    seconds: dict[str, float]
    gpu_seconds: dict[str, float]
    """The same times the GPUs that each run's slots held; all 0 on CPUs."""
    slot_seconds: float
    """Sum over the runs of wall seconds x slots."""
    notes: tuple[str, ...]

    def to_arrow(self) -> pa.Table:
        """One row a kind: seconds, their share in percent, and GPU-hours where there were GPUs."""
        total = sum(self.seconds.values())
        columns: dict[str, pa.Array] = {
            "kind": pa.array(self.seconds.keys(), pa.string()),
            "seconds": pa.array(self.seconds.values(), pa.float64()),
            "share": pa.array([100 * value / total if total else None for value in self.seconds.values()], pa.float64()),
        }
        if any(self.gpu_seconds.values()):
            columns["gpu_hours"] = pa.array([self.gpu_seconds[kind] / 3600 for kind in self.seconds], pa.float64())
        return pa.table(columns)


def sweep_spending(ledger: Ledger, sweep_id: str) -> pa.Table:
    """Kind, seconds and share in percent of everything that the sweep's runs held their slots for.

    Raises QueryError for a sweep that the ledger does not have.
    """
    return load_spending(ledger, sweep_id).to_arrow()


def load_spending(ledger: Ledger, sweep_id: str) -> Spending:
    """The seconds of the attempts that the sweep's runs started, whichever sweep planned their trials, and the idle rest.

    Raises QueryError for a sweep that the ledger does not have.
    """
    require_sweep(ledger, sweep_id)
    runs = ledger.sql(_RUNS, {"sweep": sweep_id}).to_pylist()
    attempts = ledger.sql(f"{_SPENT} WHERE charged_to = $sweep GROUP BY run_id", {"sweep": sweep_id}).to_pylist()
    gpus = {run["run_id"]: run["gpus_per_trial"] for run in runs}
    seconds = _by_kind(attempts, [1.0] * len(attempts))
    gpu_seconds = _by_kind(attempts, [gpus.get(attempt["run_id"], 0.0) for attempt in attempts])
    held = sum(run["slot_seconds"] for run in runs)
    held_gpu = sum(run["slot_seconds"] * run["gpus_per_trial"] for run in runs)
    notes = _notes(sweep_id, attempts, runs, sum(seconds.values()) - held)
    seconds[_IDLE] = _remainder(held, seconds)
    gpu_seconds[_IDLE] = _remainder(held_gpu, gpu_seconds)
    return Spending(sweep_id, seconds, gpu_seconds, held, notes)


def load_spendings(ledger: Ledger, sweep_id: str | None = None) -> list[Spending]:
    """The spending of one sweep, or of all in the order of their plans. Raises what `load_spending` raises."""
    if sweep_id is not None:
        return [load_spending(ledger, sweep_id)]
    planned = ledger.sql("SELECT sweep_id FROM plans GROUP BY sweep_id ORDER BY min(planned_at), sweep_id")
    return [load_spending(ledger, name) for name in planned.column(0).to_pylist()]


def spending_table(ledger: Ledger, sweep_id: str | None = None) -> tuple[pa.Table, list[str]]:
    """The spending of one sweep, or of all, one row a sweep and kind; and what has to be said about it."""
    found = load_spendings(ledger, sweep_id)
    tables = [spending.to_arrow() for spending in found]
    named = [
        table.add_column(0, "sweep_id", pa.array([spending.sweep_id] * table.num_rows, pa.string()))
        for spending, table in zip(found, tables, strict=True)
    ]
    notes = [note for spending in found for note in spending.notes]
    return (pa.concat_tables(named, promote_options="default") if named else _NOTHING), notes


def spending_by_trial(ledger: Ledger, sweep_id: str | None = None) -> pa.Table:
    """One row per trial: its seconds by kind over the attempts that the sweep's runs started, or over all.

    Raises QueryError for a sweep that the ledger does not have.
    """
    if sweep_id is not None:
        require_sweep(ledger, sweep_id)
    condition = "WHERE charged_to = $sweep" if sweep_id else ""
    found = ledger.sql(_BY_TRIAL.format(condition=condition), {"sweep": sweep_id} if sweep_id else None)
    return found if any(found["gpu_hours"].to_pylist()) else found.drop_columns("gpu_hours")


_RUNS = """
    SELECT run_id, coalesce(gpus_per_trial, 0) AS gpus_per_trial, coalesce(wall_seconds * slots, 0) AS slot_seconds
    FROM runs WHERE sweep_id = $sweep ORDER BY run_id
"""

CHARGED = """
    SELECT spending.* EXCLUDE (run_id), runs.run_id, coalesce(runs.sweep_id, spending.sweep_id) AS charged_to,
           coalesce(runs.gpus_per_trial, 0) AS gpus_per_trial
    FROM spending LEFT JOIN runs USING (run_id)
"""
"""The view `spending` with the sweep that pays for each attempt, `charged_to`, and the GPUs it held: an attempt belongs to the
run that started it; before runs were recorded, to the sweep that it names."""

_SPENT = f"SELECT run_id, count(*) AS attempts, {', '.join(f'sum({name}) AS {name}' for name in KINDS)} FROM ({CHARGED})"

_BY_TRIAL = f"""
    SELECT trial_key, trials.trainable, squad_share AS share, data_order AS "order", seed, status,
           count(*) AS attempts, {", ".join(f"sum(charged.{name}) AS {name}" for name in KINDS)},
           sum(gpus_per_trial * ({" + ".join(f"charged.{name}" for name in KINDS)})) / 3600 AS gpu_hours
    FROM ({CHARGED}) AS charged JOIN trials USING (trial_key) {{condition}}
    GROUP BY ALL ORDER BY trials.trainable, share, "order", seed, trial_key
"""

_NOTHING = pa.schema(
    [("sweep_id", pa.string()), ("kind", pa.string()), ("seconds", pa.float64()), ("share", pa.float64())]
).empty_table()


def _by_kind(attempts: Sequence[dict[str, Any]], weights: Sequence[float]) -> dict[str, float]:
    return {
        kind: sum(weight * attempt[column] for attempt, weight in zip(attempts, weights, strict=True))
        for column, kind in KINDS.items()
    }


def _remainder(held: float, seconds: dict[str, float]) -> float:
    """What is left of the slots; never negative, since `_notes` tells where the attempts took more."""
    return max(0.0, held - sum(seconds.values()))


def _notes(sweep_id: str, attempts: Sequence[dict[str, Any]], runs: Sequence[dict[str, Any]], excess: float) -> tuple[str, ...]:
    if not runs:
        return (f"{sweep_id}: no run was recorded, so its idle time is unknown",) if attempts else ()
    notes = []
    without = sum(attempt["attempts"] for attempt in attempts if attempt["run_id"] is None)
    if without:
        notes.append(f"{sweep_id}: {without} attempts belong to no recorded run; their seconds are beside the runs' slots")
    if excess > _NOISE * sum(run["slot_seconds"] for run in runs):
        notes.append(
            f"{sweep_id}: the attempts took {excess:.1f} s more than the runs' slots had until they were last heard of; "
            "idle time is shown as 0"
        )
    return tuple(notes)
