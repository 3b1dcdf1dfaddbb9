"""A small grid with a trial in every state, metrics of all kinds, and long texts, for the exports to write."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from synthetic_ledger import START, SWEEP_ID, plan_row, synthetic_ledger, trial_key

from results.parts import attempt_part, write_part

COMPLETED = trial_key("distilbert", 60, "shuffled", 0)
FAILED = trial_key("exbert", 60, "shuffled", 0)
PLANNED = trial_key("exbert", 80, "shuffled", 0)
RUNNING = trial_key("distilbert", 20, "shuffled", 0)
STOPPED = trial_key("exbert", 20, "shuffled", 0)
NUM_TRIALS = 6
RUNNING_START = START + timedelta(hours=1)


def export_ledger(storage: Path) -> Path:
    """Two trials are completed, and one each failed, planned, running (resumed once) and stopped."""
    synthetic_ledger(
        storage,
        shares=(60, 80),
        orders=("shuffled",),
        failed=[("exbert", 60, "shuffled", 0)],
        planned=[("exbert", 80, "shuffled", 0)],
    )
    more = [plan_row(trainable, 20, "shuffled", 0, SWEEP_ID) for trainable in ("distilbert", "exbert")]
    write_part(storage, "plans", "more", more)
    write_running(storage, steps=(10, 20, 30))
    _write_stopped(storage)
    validated = [_validation(COMPLETED, step, "squad") for step in (250, 500)]
    write_part(storage, "evaluations", "validation", validated)
    return storage


def write_running(storage: Path, steps: tuple[int, ...]) -> None:
    """The running trial's first attempt, lost after step 20, and its second, which went on from there."""
    for attempt in (1, 2):
        began = RUNNING_START + timedelta(hours=attempt)
        row = {"trial_key": RUNNING, "attempt": attempt, "sweep_id": SWEEP_ID}
        resumed = {"resumed_step": 20 * (attempt - 1), "status": "lost" if attempt == 1 else "running", "started_at": began}
        write_part(storage, "attempts", attempt_part(RUNNING, attempt), [{**row, **resumed, "host": "worker-2"}])
        mine = [step for step in steps if (step <= 20) == (attempt == 1)]
        write_part(storage, "reports", attempt_part(RUNNING, attempt), [_report(RUNNING, attempt, step) for step in mine])
        event = {**row, "status": "running", "happened_at": began, "host": "driver"}
        write_part(storage, "events", f"running-{attempt}", [event])


def _write_stopped(storage: Path) -> None:
    row = {"trial_key": STOPPED, "attempt": 1, "sweep_id": SWEEP_ID}
    at, ended = START + timedelta(hours=5), START + timedelta(hours=6)
    attempt = {**row, "resumed_step": 0, "status": "stopped", "started_at": at, "finished_at": ended}
    write_part(storage, "attempts", attempt_part(STOPPED, 1), [attempt])
    write_part(storage, "reports", attempt_part(STOPPED, 1), [_report(STOPPED, 1, 10)])
    event = {**row, "status": "stopped", "happened_at": ended, "host": "driver", "reason": "asha (rung 1)"}
    write_part(storage, "events", "stopped", [event])


def _report(key: str, attempt: int, step: int) -> dict[str, Any]:
    return {
        "trial_key": key,
        "attempt": attempt,
        "step": step,
        "epoch": step / 10,
        "wall_seconds": float(step),
        "train_qa_loss": float("nan") if step == 20 else 3.0,
        "val_qa_loss": 2.0 - step / 100,
        "extra": {"grad_norm": float("inf") if step == 20 else step / 2},
    }


def _validation(key: str, step: int, domain: str) -> dict[str, Any]:
    row = {"trial_key": key, "attempt": 1, "step": step, "split": "val", "domain": domain, "examples": 7}
    return {**row, "qa_loss": 1.0, "em": step / 10, "f1": step / 9}
