"""Frozen plans: what a sweep is, written once, so that it can be resumed on any machine with the same storage."""

from __future__ import annotations

import contextlib
import json
from datetime import datetime
from typing import Any

from orchestrator.decisions import record_search, with_suggested
from orchestrator.errors import SweepError
from orchestrator.location import Location, location
from orchestrator.node_files import node_files
from orchestrator.plan import Plan
from orchestrator.preset import Preset
from orchestrator.record import record_plan
from orchestrator.search_spec import SearchSpec
from orchestrator.trial import Trial
from results.storage import StorageLike, open_sweep_storage
from trainables.data.sources import data_fingerprint
from trainables.registry import settings_of

__all__ = ["check_current", "load_plan", "sweep_dir", "sweep_ids", "write_plan"]


def sweep_dir(storage: StorageLike, sweep_id: str) -> Location:
    """The folder of a sweep's own files."""
    return location(storage, f"sweeps/{sweep_id}")


def write_plan(storage: StorageLike, plan: Plan, planned_at: datetime) -> None:
    """Freezes the plan in `sweep.json`, once, and puts its trials into the ledger. A file that cannot be read is replaced."""
    path = sweep_dir(storage, plan.sweep_id) / "sweep.json"
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
        if load_plan(storage, plan.sweep_id).num_trials >= plan.num_trials:  # a search may be asked for more
            return
    frozen = {
        "sweep_id": plan.sweep_id,
        "kind": plan.kind,
        "planned_at": planned_at.isoformat(),
        "preset": plan.preset.model_dump(mode="json"),
        **_what(plan),
    }
    if plan.search is None:
        record_plan(storage, plan, planned_at)
    else:
        record_search(storage, plan.sweep_id, plan.search, planned_at)
    path.write(json.dumps(frozen, indent=1).encode())


def _what(plan: Plan) -> dict[str, Any]:
    """A search's trials are in the ledger, as it suggests them."""
    if plan.search is not None:
        return {"search": plan.search.to_json()}
    return {"trials": [trial.to_json() for trial in plan.trials]}


def load_plan(storage: StorageLike, sweep_id: str) -> Plan:
    """The plan that `write_plan` froze.

    Raises:
        FileNotFoundError: there is no such sweep.
        ValueError: another version of the program wrote it.
    """
    frozen = json.loads((sweep_dir(storage, sweep_id) / "sweep.json").read())
    preset = Preset.model_validate(frozen["preset"])
    if "search" in frozen:
        spec = SearchSpec.from_json(frozen["search"])
        return with_suggested(Plan(kind=frozen["kind"], preset=preset, trials=(), search=spec), storage)
    trials = tuple(Trial.from_json(trial) for trial in frozen["trials"])
    return Plan(kind=frozen["kind"], preset=preset, trials=trials)


def check_current(plan: Plan, storage: StorageLike) -> None:
    """Makes sure that a frozen plan would still run what its keys say.

    Raises:
        SweepError: a trainable's version or the content of the data is another than when it was planned.
    """
    trials = plan.trials if plan.search is None else (plan.search.base,)
    locations = {trial.data.model_dump_json(): trial.data for trial in trials}
    files = node_files(storage)
    fingerprints = {text: data_fingerprint(files.local(data)) for text, data in locations.items()}
    for trial in trials:
        version = settings_of(trial.trainable).version
        if version != trial.version:
            raise SweepError(
                f"{plan.sweep_id} was planned with {trial.trainable} version {trial.version}, and this is version {version}; "
                "plan it anew with its own command: what is still valid is not run again"
            )
        if fingerprints[trial.data.model_dump_json()] != trial.data_fingerprint:
            raise SweepError(
                f"the data of {plan.sweep_id} has changed since it was planned; put it back, or plan anew with its own command"
            )


def sweep_ids(storage: StorageLike) -> list[str]:
    """All sweeps of the storage, the newest first."""
    files = [info for info in open_sweep_storage(storage).files("sweeps") if info.base_name == "sweep.json"]
    return [info.path.split("/")[-2] for info in sorted(files, key=lambda info: info.mtime_ns, reverse=True)]
