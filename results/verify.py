"""Checking a storage: every page, every file left behind, every frozen plan, and what must hold between the rows."""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from results.checks import Finding, check_rows, completed_paths, step_checkpoints
from results.compacted import COMPACTED_FOLDER, read_index
from results.errors import LedgerWarning
from results.identity import trial_key
from results.ledger import Ledger
from results.search import search_ids
from results.storage import ASIDE, PART_SUFFIX
from results.trials_view import RECORD_MISSING

__all__ = ["ABANDONED_AFTER", "Verified", "verify"]

ABANDONED_AFTER = timedelta(hours=1)
"""A temporary file this old belongs to no writer any more."""


@dataclass(frozen=True)
class Verified:
    """What a look at the whole storage found."""

    findings: tuple[Finding, ...]
    num_parts: int

    def to_arrow(self) -> pa.Table:
        """One finding a row: kind, where, what, and what to do."""
        rows = [(finding.kind, finding.where, finding.what, finding.todo) for finding in self.findings]
        names = ("kind", "where", "what", "what to do")
        columns = {name: pa.array([row[index] for row in rows], pa.string()) for index, name in enumerate(names)}
        return pa.table(columns)


def verify(ledger: Ledger, now: datetime, abandoned_after: timedelta = ABANDONED_AFTER) -> Verified:
    """Everything that is wrong with the storage, read-only.

    Raises NewerSchemaError for a part of a later version.
    """
    with warnings.catch_warnings(), ledger.remembering():
        warnings.simplefilter("ignore", LedgerWarning)  # an unreadable part is a finding
        bad, num_parts = ledger.verify()
        findings = [*_unreadable(ledger, bad), *_left_behind(ledger, now, abandoned_after)]
        frozen: dict[str, set[str]] = {}
        for sweep_id, path in _frozen_plans(ledger):
            trials = _read_plan(ledger, path)
            if isinstance(trials, str):
                findings.append(_torn_plan(path, trials))
            else:
                frozen[sweep_id] = {trial["key"] for trial in trials}
                findings += _wrong_frozen_keys(path, trials)
        findings += _plans_that_differ(ledger, frozen)
        findings += check_rows(ledger, frozen)
    return Verified(tuple(findings), num_parts)


def _unreadable(ledger: Ledger, bad: Mapping[str, str]) -> Iterator[Finding]:
    """Unreadable files. With a part of a completed attempt the whole attempt has to go: its parts stand or fall together."""
    completed = set(zip(*_columns(ledger, "SELECT trial_key, attempt FROM attempts WHERE status = 'completed'"), strict=True))
    [unproven] = _columns(ledger, f"SELECT trial_key FROM trials WHERE stop_reason = '{RECORD_MISSING}'")

    def lost_with(table: str, part: str) -> tuple[str, tuple[str, ...]]:
        """What to do about a part that cannot be read, and what has to go with it."""
        key, _, number = part.rpartition("-")
        attempt = int(number) if number.isdecimal() else 0
        if (key, attempt) in completed or (table == "attempts" and key in unproven):
            todo = "--repair puts it away with the rest of the completed attempt; the sweep's command then runs the trial again"
            return todo, completed_paths(ledger.storage, key, [attempt])
        if table in ("searches", "decisions"):
            todo = "--repair puts it away; the search's command goes on from the decisions that are left, or says why it cannot"
            return todo, ()
        # Resumed behind the lost rows, the trial would never report them again: it has to start over.
        todo = "--repair puts it away with the trial's checkpoints; the sweep's command then starts the trial over"
        return todo, step_checkpoints(ledger.storage, key)

    for path, reason in bad.items():
        relative = ledger.storage.relative(path)
        table, name = relative.removeprefix("ledger/").split("/", 1)
        if not name.startswith(f"{COMPACTED_FOLDER}/"):
            todo, moves = lost_with(table, name.removesuffix(PART_SUFFIX).removesuffix(ASIDE))
            yield Finding("unreadable part", relative, reason, todo, moves=tuple(dict.fromkeys([relative, *moves])))
            continue
        parts = _parts_of(ledger, table, name.removeprefix(f"{COMPACTED_FOLDER}/"))
        moves = tuple(dict.fromkeys([relative, *(move for part in parts for move in lost_with(table, part)[1])]))
        some = ", ".join(parts[:3]) + (", ..." if len(parts) > 3 else "")
        todo = (
            "--repair puts it away with what stands or falls with those parts; the sweeps' commands then run those trials again"
        )
        yield Finding(
            "unreadable compacted file", relative, f"{reason}; it holds {len(parts)} parts: {some}", todo, moves=moves
        )


def _parts_of(ledger: Ledger, table: str, file: str) -> list[str]:
    """The names of the parts whose rows are in a compacted file."""
    index = read_index(ledger.storage, table)
    return sorted({row["part"] for row in index.select(["part", "file"]).to_pylist() if row["file"] == file})


def _columns(ledger: Ledger, query: str) -> list[list[Any]]:
    return [column.to_pylist() for column in ledger.sql(query).columns]


def _left_behind(ledger: Ledger, now: datetime, abandoned_after: timedelta) -> Iterator[Finding]:
    """Temporary files of writers that were killed before they could rename them."""
    for folder in ("ledger", "sweeps", "checkpoints"):
        for info in ledger.storage.files(folder):
            age = now - datetime.fromtimestamp((info.mtime_ns or 0) / 1e9, UTC)
            if info.base_name.endswith(".tmp") and age >= abandoned_after:
                yield Finding(
                    "leftover temporary",
                    ledger.storage.relative(info.path),
                    f"{info.size} bytes, last written {age.total_seconds() / 3600:.1f} hours ago",
                    "--repair puts it away; nothing reads it",
                    moves=(ledger.storage.relative(info.path),),
                )


def _frozen_plans(ledger: Ledger) -> Iterator[tuple[str, str]]:
    """Sweep id and path of every `sweep.json`."""
    for info in ledger.storage.files("sweeps"):
        path = ledger.storage.relative(info.path)
        if path.count("/") == 2 and info.base_name == "sweep.json":
            yield path.split("/")[1], path


def _read_plan(ledger: Ledger, path: str) -> list[dict[str, Any]] | str:
    """The trials of a frozen plan, none of a search, or why it cannot be read."""
    try:
        frozen = json.loads(bytes(ledger.storage.read(ledger.storage.path(path))))
        if "search" in frozen:
            return []
        return [{**trial, "key": trial["key"]} for trial in frozen["trials"]]
    except (ValueError, TypeError, KeyError, OSError) as error:
        return " ".join(f"{type(error).__name__}: {error}".split())


def _torn_plan(path: str, reason: str) -> Finding:
    todo = "--repair puts it away; the sweep's command then freezes the plan again, and nothing that is done runs again"
    return Finding("unreadable plan", path, reason, todo, moves=(path,))


def _wrong_frozen_keys(path: str, trials: list[dict[str, Any]]) -> Iterator[Finding]:
    for trial in trials:
        derived = _frozen_key(trial)
        if derived != trial["key"]:
            what = f"the settings of trial {trial['key']} give the key {derived}"
            yield Finding("wrong key", path, what, "do not trust the plan; plan the sweep again and compare")


def _frozen_key(trial: Mapping[str, Any]) -> str:
    names = ("trainable", "version", "config", "data_fingerprint", "seed", "parents")
    try:
        return trial_key(*(trial[name] for name in names))
    except (KeyError, TypeError, ValueError) as error:
        return f"none: {type(error).__name__}: {error}"


def _plans_that_differ(ledger: Ledger, frozen: Mapping[str, Collection[str]]) -> Iterator[Finding]:
    """Frozen plans whose trials are not those of the sweep's rows in `plans`."""
    rows = ledger.sql("SELECT sweep_id, list(DISTINCT trial_key) AS trial_keys FROM plans GROUP BY sweep_id").to_pylist()
    recorded = {row["sweep_id"]: set(row["trial_keys"]) for row in rows}
    searches = set(search_ids(ledger))
    for sweep_id, keys in frozen.items():
        in_ledger = recorded.get(sweep_id, set())
        if sweep_id in searches and not keys:
            continue  # it plans its trials one after the other
        path = f"sweeps/{sweep_id}/sweep.json"
        if not in_ledger:
            what = f"none of its {len(keys)} trials is in the ledger's plans"
            todo = "--repair puts it away; the sweep's command then writes both again, and nothing that is done runs again"
            yield Finding("plans differ", path, what, todo, moves=(path,))
        elif in_ledger != keys:
            absent, only = len(set(keys) - in_ledger), len(in_ledger - set(keys))
            what = f"{absent} of its trials are not in the ledger's plans, {only} only there"
            yield Finding("plans differ", path, what, "plan the sweep again in another storage and compare")
