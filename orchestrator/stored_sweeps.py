"""The sweeps of a storage: named, the unfinished ones, and what failed in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from orchestrator.console import say
from orchestrator.errors import SweepError
from orchestrator.frozen import load_plan, sweep_ids
from orchestrator.plan import Plan
from orchestrator.standing import statuses
from orchestrator.sweep import work_of
from results.storage import SweepStorage, open_sweep_storage

__all__ = [
    "existing_storage",
    "failed_keys",
    "known_sweep",
    "load_sweep",
    "readable_sweeps",
    "sweep_storage",
    "unfinished_sweeps",
]


def sweep_storage(storage: str) -> SweepStorage:
    """What `--storage` names, a folder or a URI. Raises SweepError for one that sweeps cannot run on."""
    try:
        return open_sweep_storage(storage)
    except ValueError as error:
        raise SweepError(f"--storage: {error}") from error


def existing_storage(storage: str) -> SweepStorage:
    """The same where something was written already. Raises SweepError."""
    root = sweep_storage(storage)
    if not root.is_begun:
        raise SweepError(f"there is no storage {root}; name another with --storage or $SWEEPS_STORAGE, or run a grid first")
    return root


def failed_keys(plan: Plan, storage: SweepStorage) -> frozenset[str]:
    """The trials of a sweep that have failed for good."""
    known = statuses(storage, (trial.key for trial in plan.trials))
    return frozenset(key for key, how in known.items() if how.is_failed)


def known_sweep(storage: SweepStorage, sweep_id: str) -> str:
    """The same id. Raises SweepError, with the nearest one, where there is no sweep of that name."""
    known = sweep_ids(storage)
    if sweep_id not in known:
        nearest = get_close_matches(sweep_id, known, n=1, cutoff=0.5)
        hint = f"; did you mean {nearest[0]}?" if nearest else f"; there are: {', '.join(known) or 'none'}"
        raise SweepError(f"no sweep {sweep_id!r} in {storage}{hint}")
    return sweep_id


def load_sweep(storage: SweepStorage, sweep_id: str) -> Plan:
    """The sweep as it was frozen. Raises SweepError as `known_sweep`, and where its plan cannot be read."""
    try:
        return load_plan(storage, known_sweep(storage, sweep_id))
    except (ValueError, KeyError) as error:
        raise SweepError(
            f"sweep {sweep_id} cannot be read: {error}; run the sweep's own command again, which writes its plan anew "
            "(`python -m results verify` lists what else is wrong)"
        ) from error


def unfinished_sweeps(storage: SweepStorage) -> Iterator[Plan]:
    """The sweeps that have something left to run, the newest first; says which cannot be told."""
    for plan in readable_sweeps(storage, sweep_ids(storage)):
        try:
            left = work_of(plan, storage).num_left
        except SweepError as error:
            say(f"passed over: {plan.sweep_id}: {error}")
            continue
        if left:
            yield plan


def readable_sweeps(storage: SweepStorage, ids: Iterable[str]) -> Iterator[Plan]:
    """The sweeps that this version can read; says which it cannot."""
    for each in ids:
        try:
            plan = load_sweep(storage, each)
        except SweepError as error:
            say(f"passed over: {error}")
            continue
        yield plan
