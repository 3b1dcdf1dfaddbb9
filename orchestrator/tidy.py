"""Keeping a storage tidy: of completed trials the weights asked for stay, of killed processes nothing.

What is live or can be resumed is never touched.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from orchestrator.lease import holder_of, remove_if_free
from orchestrator.location import location
from orchestrator.plan import Plan
from orchestrator.record import LedgerWriter
from orchestrator.worker import trial_lease
from results.ledger import Ledger
from results.parts import attempt_part, read_attempts
from results.storage import StorageLike, open_sweep_storage

__all__ = ["DiskUse", "disk_use", "tidy_checkpoints", "tidy_leftovers"]

_LEFT_AFTER_SECONDS = 3600.0
"""No write takes so long: a temporary file that old is of a process that was killed."""

_COMPLETED = """
    SELECT trials.trial_key, arg_max(val_qa_loss, step) AS loss
    FROM trials LEFT JOIN reports ON trials.trial_key = reports.trial_key AND val_qa_loss IS NOT NULL
    WHERE status = 'completed' GROUP BY 1 ORDER BY loss NULLS LAST, 1
"""


_STOPPED_EARLY = "SELECT trial_key FROM trials WHERE status = 'stopped' AND stop_reason LIKE 'asha (rung%'"

_NEEDED = """
    SELECT DISTINCT unnest(parent_keys) AS trial_key FROM plans
    UNION SELECT trial_key FROM plans WHERE sweep_id <> $sweep
"""


@dataclass(frozen=True)
class DiskUse:
    """What lies in the storage, bytes."""

    checkpoints: int
    free: int | None  # where there is a limit


def tidy_checkpoints(plan: Plan, storage: StorageLike) -> list[str]:
    """Removes the final weights of the plan's completed trials that `recovery.keep_checkpoints` does not ask for.

    Also the checkpoints of trials that a search has stopped for good.

    Weights that other trials need as parents stay, and those of trials that another sweep has too. Returns the keys of the
    trials whose weights went.
    """
    recovery = plan.preset.recovery
    ours = {trial.key for trial in plan.trials}
    ledger = Ledger(storage, must_exist=False)
    ranked = [row["trial_key"] for row in ledger.sql(_COMPLETED).to_pylist() if row["trial_key"] in ours]
    for trial_key in ranked:  # of a worker that was killed as soon as it had completed
        _remove_steps(trial_key, storage)
    others = {row["trial_key"] for row in ledger.sql(_NEEDED, {"sweep": plan.sweep_id}).to_pylist()}
    for row in ledger.sql(_STOPPED_EARLY).to_pylist():
        trial_key = row["trial_key"]
        if trial_key in ours - others and not holder_of(trial_lease(storage, trial_key), time.time()):
            _forget(trial_key, storage)
            _remove_steps(trial_key, storage)
    if recovery.keep_checkpoints == "all":
        return []
    kept = set(ranked[: recovery.num_best] if recovery.keep_checkpoints == "best" else ())
    kept |= others
    place = open_sweep_storage(storage)
    having = {info.path.split("/")[-2] for info in place.files("checkpoints")}
    removed = []
    for trial_key in ranked:
        if trial_key not in kept and trial_key in having and not holder_of(trial_lease(storage, trial_key), time.time()):
            _forget(trial_key, storage)
            place.remove_folder(f"checkpoints/{trial_key}")
            removed.append(trial_key)
    return removed


def _remove_steps(trial_key: str, storage: StorageLike) -> None:
    folder = location(storage, f"checkpoints/{trial_key}")
    for name in folder.names():
        if name.startswith("step-"):
            (folder / name).remove()


def _forget(trial_key: str, storage: StorageLike) -> None:
    """The ledger no longer names the weights; before they go, so that it never names what is not there."""
    writer = LedgerWriter(storage, 0, lambda _: None)
    for row in read_attempts(storage, trial_key):
        if row["status"] is None:  # its part cannot be read
            continue
        writer.write("attempts", attempt_part(trial_key, row["attempt"]), [{**row, "checkpoint": None}])


def tidy_leftovers(storage: StorageLike, now: float) -> None:
    """Removes what killed processes left: old temporary files, and leases that nobody holds. `now`: wall clock."""
    place = open_sweep_storage(storage)
    for folder in ("ledger", "sweeps", "leases", "checkpoints", "corpora", "prepared"):
        for info in place.files(folder):
            if info.path.endswith(".tmp") and now - info.mtime_ns / 1e9 > _LEFT_AFTER_SECONDS:
                place.remove(info.path)
    for name in {name.partition(".lease.")[0] for name in place.names("leases") if ".lease." in name}:
        remove_if_free(trial_lease(place, name))


def disk_use(storage: StorageLike) -> DiskUse:
    """How much checkpoints take, and how much is free."""
    place = open_sweep_storage(storage)
    return DiskUse(sum(info.size for info in place.files("checkpoints")), place.free_bytes)
