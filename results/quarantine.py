"""Repairing a storage: what must not count is put away under `<storage>/quarantine`, at the same path; nothing is deleted."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from results.checks import Finding
from results.compacted import COMPACTED_FOLDER, PART_COLUMN, compacted_path, compacted_rows, read_index
from results.compaction_files import commit_index
from results.errors import LedgerError
from results.ledger import Ledger
from results.locking import exclusively
from results.parts import aside_path, write_part
from results.schema import TABLES
from results.storage import ASIDE, PART_SUFFIX, PartInfo, Storage

__all__ = ["QUARANTINE", "put_away"]

QUARANTINE = "quarantine"
_SILENT_AFTER = timedelta(minutes=2)
"""A run on another machine that has not been heard of for so long has ended."""


def put_away(ledger: Ledger, findings: Iterable[Finding], now: datetime) -> list[str]:
    """Moves what the findings name into quarantine; returns the paths there, relative to the storage.

    Raises:
        ValueError: the storage is an object store, which cannot move a file in one step.
        LedgerError: a sweep is being run, whose driver and workers would write the same files; or a compaction is at work.
    """
    storage = ledger.storage
    if not storage.is_local:
        raise ValueError(f"--repair needs a local or mounted path, got {storage.shown}; without it, verify reads any storage")
    _check_idle(ledger, now)
    found = list(findings)
    named = dict.fromkeys(path for finding in found for path in finding.moves)
    unplanned = {finding.unplanned for finding in found if finding.unplanned}
    with exclusively(storage):
        # Compacted files come first: what else has to go may have rows in them.
        ordered = sorted(named, key=lambda path: f"/{COMPACTED_FOLDER}/" not in path)
        moved = [target for path in ordered for target in _put_away(storage, path)]
        if unplanned:
            tables = [table for table, columns in TABLES.items() if columns[0].name == "trial_key"]
            moved += [path for table in tables for path in _separate_compacted(storage, table, unplanned)]
            parts = [part for table in tables for part in storage.parts(table)]
            moved += [path for part in parts for path in _separate(storage, part, unplanned)]
    return moved


def _put_away(storage: Storage, relative: str) -> list[str]:
    """Moves a file; of a part, also what was set aside of it, and its rows in compacted files, which then count no more."""
    folder, _, name = relative.rpartition("/")
    table = folder.removeprefix("ledger/")
    if folder.endswith(f"/{COMPACTED_FOLDER}"):
        table = table.removesuffix(f"/{COMPACTED_FOLDER}")
        index = read_index(storage, table)
        commit_index(storage, table, index.filter(pc.not_equal(index["file"], name)))
    paths = [relative]
    if table in TABLES and not name.startswith(".") and folder == f"ledger/{table}":
        paths = [relative, aside_path(relative)]
    moved = [_move(storage, path) for path in paths if Path(storage.path(path)).exists()]
    if len(paths) == 2:
        part = name.removesuffix(PART_SUFFIX).removesuffix(ASIDE)
        rows = _rows_of_part(storage, table, part)
        if rows is not None:
            moved.append(_copy_rows(storage, table, part, rows))
            write_part(storage, table, part, [])
    return moved


def _rows_of_part(storage: Storage, table: str, part: str) -> pa.Table | None:
    """A part's rows in compacted files; None where it has none that count."""
    index = read_index(storage, table)
    held = index.filter(pc.equal(index["part"], part)).to_pylist()
    files = {row["file"]: row for row in held}
    return pa.concat_tables([compacted_rows(storage, table, row) for row in files.values()]) if files else None


def _copy_rows(storage: Storage, table: str, part: str, rows: pa.Table) -> str:
    target = _free_path(storage, f"ledger/{table}/{part}{PART_SUFFIX}")
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd", write_page_checksum=True)
    storage.write(storage.path(target), sink.getvalue())
    return target


def _separate_compacted(storage: Storage, table: str, keys: Collection[str]) -> list[str]:
    """Puts away copies of the compacted parts with rows of `keys`; their other rows become parts of their own again."""
    own, index = storage.part_names(table), read_index(storage, table)
    parts = set()
    for file in sorted(set(index["file"].to_pylist())):
        rows = pq.read_table(
            compacted_path(storage, table, file),
            columns=["trial_key", PART_COLUMN],
            filters=[("trial_key", "in", sorted(keys))],
        )
        parts |= set(rows[PART_COLUMN].to_pylist()) - own
    moved = []
    for part in sorted(parts):
        found = _rows_of_part(storage, table, part)
        assert found is not None
        moved.append(_copy_rows(storage, table, part, found))
        is_unplanned = pc.is_in(found["trial_key"], value_set=pa.array(sorted(keys), pa.string()))
        write_part(storage, table, part, found.filter(pc.invert(is_unplanned)).to_pylist())
    return moved


def _check_idle(ledger: Ledger, now: datetime) -> None:
    for run in ledger.sql("SELECT * FROM runs WHERE finished_at IS NULL ORDER BY run_id").to_pylist():
        heard = run["updated_at"] or run["started_at"]
        is_recent = heard is not None and now - heard < _SILENT_AFTER
        if is_recent and (run["host"] != socket.gethostname() or _is_alive(run["pid"])):
            raise LedgerError(
                f"sweep {run['sweep_id']} is being run by process {run['pid']} on {run['host']}; repair when it has ended, "
                f"or {_SILENT_AFTER.total_seconds() / 60:.0f} minutes after it was killed"
            )


def _is_alive(pid: int | None) -> bool:
    try:
        os.kill(pid or 0, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return bool(pid)


def _move(storage: Storage, relative: str) -> str:
    target = _free_path(storage, relative)
    Path(storage.path(target)).parent.mkdir(parents=True, exist_ok=True)
    os.replace(storage.path(relative), storage.path(target))
    return target


def _free_path(storage: Storage, relative: str) -> str:
    """The path in quarantine; with a number where an earlier repair put a file of that name."""
    target, number = f"{QUARANTINE}/{relative}", 1
    while Path(storage.path(target)).exists():
        number += 1
        target = f"{QUARANTINE}/{relative}.{number}"
    return target


def _separate(storage: Storage, part: PartInfo, keys: Collection[str]) -> list[str]:
    """Puts away the rows of `keys`: their own parts as they are; of a part with other rows a copy, and the others stay."""
    rows = pq.read_table(pa.BufferReader(storage.read(part.path)))
    is_unplanned = pc.is_in(rows["trial_key"], value_set=pa.array(sorted(keys), pa.string()))
    num_unplanned = pc.sum(is_unplanned).as_py() or 0
    relative = storage.relative(part.path)
    if num_unplanned == 0:
        return []
    if num_unplanned == rows.num_rows:
        return [_move(storage, relative)]
    target = _free_path(storage, relative)
    Path(storage.path(target)).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(part.path, storage.path(target))
    write_part(storage, part.table, part.name, rows.filter(pc.invert(is_unplanned)).to_pylist())
    return [target]
