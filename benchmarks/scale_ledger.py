"""The ledger and the frozen plan of a sweep whose trials are all done, by the writers that a run uses.

A run writes an event after the other, and an attempt's part again at each of its reports; here each part is written once, as it
is in the end. `status` reads no reports, so there are none.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from orchestrator.frozen import write_plan
from orchestrator.plan import plan_grid
from orchestrator.preset import load_preset
from results.parts import attempt_part, write_part

__all__ = ["write_ledger"]

_BEGAN = datetime(2026, 1, 2, tzinfo=UTC)
_ROWS_PER_PART = 1000
"""Of events: `orchestrator.record`'s."""

_SLOTS, _SECONDS = 16, 1.0


def write_ledger(storage: Path, preset: Path, seeds: int) -> None:
    """One trial in 50 of the preset's grid has failed, the others are completed; they took a second each on 16 slots."""
    (storage / "sweeps").mkdir(parents=True)
    plan = plan_grid(load_preset(str(preset), (), seeds), storage)
    write_plan(storage, plan, _BEGAN)
    events = []
    for number, trial in enumerate(plan.trials):
        began = _BEGAN + timedelta(seconds=_SECONDS * (number // _SLOTS))
        row = _attempt(plan.sweep_id, trial.key, began, is_failed=number % 50 == 49)
        write_part(storage, "attempts", attempt_part(trial.key, 1), [row])
        ids = {"trial_key": trial.key, "sweep_id": plan.sweep_id, "host": "driver"}
        events.append({**ids, "status": "running", "happened_at": began})
        events.append({**ids, "status": row["status"], "happened_at": row["finished_at"], "attempt": 1})
    for number, first in enumerate(range(0, len(events), _ROWS_PER_PART)):
        write_part(storage, "events", f"{plan.sweep_id}-run-{number:04d}", events[first : first + _ROWS_PER_PART])


def _attempt(sweep_id: str, trial_key: str, began: datetime, *, is_failed: bool) -> dict[str, Any]:
    failure = {"failure_class": "transient", "error_type": "RuntimeError", "error": "RuntimeError: it broke"}
    return {
        "trial_key": trial_key,
        "attempt": 1,
        "sweep_id": sweep_id,
        "run_id": f"{sweep_id}-run",
        "status": "failed" if is_failed else "completed",
        "resumed_step": 0,
        "params_total": 1,
        "started_at": began,
        "finished_at": began + timedelta(seconds=_SECONDS),
        "train_seconds": _SECONDS,
        "startup_seconds": 0.0,
        "gpu_seconds": 0.0,
        "cpu_seconds": _SECONDS,
        "host": "worker",
        "device": "cpu",
        **(failure if is_failed else {}),
    }
