"""Compacting the ledger: its many small parts become few large, sorted files, beside running sweeps and safe at every step.

For each table: the parts' rows are written into new files, read back and compared with what went in; the index that names them
is replaced, which is the moment from which they count; then the parts are removed. Whatever step a kill comes at, every row is
counted once: a file that the index does not name is nothing, and a part that is still there wins over its rows in compacted
files.

A part may be written again at any time, also while it is merged. So it is set aside under another name before it goes, where no
writer reaches it; if it turns out to be newer than what was merged it stays there, and counts until the next compaction.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from results.checksum import Checksum
from results.compacted import compacted_path, compacted_schema
from results.compaction_files import RETRIED, commit_index, describe, find_index, remove_leftovers, write_files
from results.errors import LedgerError
from results.layout import FULL_FILE_BYTES
from results.ledger import Ledger
from results.locking import exclusively
from results.merging import OwnParts, Stamp, file_pieces, merge, stamp_of
from results.parts import aside_path
from results.schema import TABLES
from results.storage import ASIDE, PART_SUFFIX, PartInfo, Storage, open_storage
from results.superseded import SUPERSEDED

__all__ = ["Compacted", "TableCompacted", "compact"]


@dataclass(frozen=True)
class TableCompacted:
    """What compacting did to one table. Parts are files with rows: single parts and compacted files alike."""

    table: str
    rows: int
    """In compacted files now."""
    parts_before: int
    parts_after: int
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class Compacted:
    """What compacting did."""

    tables: tuple[TableCompacted, ...]
    left: Mapping[str, str]
    """Parts that cannot be read and so stay as they are: path to reason."""

    def to_arrow(self) -> pa.Table:
        """One row a table, with the columns of TableCompacted."""
        return pa.Table.from_pylist([vars(table) for table in self.tables])


def compact(storage: str | Path | Storage) -> Compacted:
    """Merges the parts of every table; a table whose parts are all merged stays as it is.

    Raises:
        ValueError: the storage is an object store, which cannot rename a file in one step.
        LedgerMissingError: nothing was ever written there.
        LedgerError: another compaction or a repair is at work; or what was written is not what was read: nothing was removed.
        NewerSchemaError: a part of a later version.
    """
    place = open_storage(storage)
    if not place.is_local:
        raise ValueError(f"compact needs a local or mounted path, got {place.shown}; compact a copy of the ledger there")
    Ledger(place)  # which refuses a storage without one
    with exclusively(place):
        # Attempts come first: their index says which sweep a part of the other tables belongs to.
        done = {"attempts": _compact_table(place, _Sorting("attempts"))}
        attempts = find_index(place, "attempts").select(["part", "sweep_id", "trial_key"]).to_pydict()
        sweep_of = {part: sweep or "" for part, sweep in zip(attempts["part"], attempts["sweep_id"], strict=True)}
        retried = frozenset(key for key, times in Counter(attempts["trial_key"]).items() if times > 1)
        for table in TABLES.keys() - done.keys():
            sorting = _Sorting(table, sweep_of, retried) if table in SUPERSEDED else _Sorting(table)
            done[table] = _compact_table(place, sorting)
    left = {path: reason for _, unreadable in done.values() for path, reason in unreadable.items()}
    return Compacted(tuple(done[table][0] for table in TABLES), left)


@dataclass(frozen=True)
class _Sorting:
    """What the rows of a table are sorted by besides the part's name."""

    table: str
    sweep_of: Mapping[str, str] = field(default_factory=dict)
    """Part to sweep."""
    retried: frozenset[str] = frozenset()
    """Keys of trials with several attempts."""


def _compact_table(place: Storage, sorting: _Sorting) -> tuple[TableCompacted, Mapping[str, str]]:
    table = sorting.table
    index = find_index(place, table)
    remove_leftovers(place, table, set(index["file"].to_pylist()))
    _forget_outdated(place, table)
    parts, sizes = place.parts(table), _sizes(place, table, index)
    unreadable: Mapping[str, str] = {}
    again = {part.name for part in parts} & set(index["part"].to_pylist())
    files = _files_to_rewrite(index, sizes, again, sorting.retried, has_new=bool(parts))
    if parts or files:
        index, unreadable = _merge_table(place, sorting, index, parts, files)
    sizes_now, parts_now = _sizes(place, table, index), place.parts(table)
    done = TableCompacted(
        table=table,
        rows=sum(index["num_rows"].to_pylist()),
        parts_before=len(parts) + len(sizes),
        parts_after=len(parts_now) + len(sizes_now),
        bytes_before=sum(part.num_bytes for part in parts) + sum(sizes.values()),
        bytes_after=sum(part.num_bytes for part in parts_now) + sum(sizes_now.values()),
    )
    return done, unreadable


def _forget_outdated(place: Storage, table: str) -> None:
    """Removes parts set aside of which a newer version was written since."""
    for part in place.parts(table):
        if part.path != (aside := aside_path(part.path)):
            Path(aside).unlink(missing_ok=True)


def _sizes(place: Storage, table: str, index: pa.Table) -> dict[str, int]:
    """Bytes of each file that the index names."""
    return {file: Path(compacted_path(place, table, file)).stat().st_size for file in set(index["file"].to_pylist())}


def _files_to_rewrite(
    index: pa.Table, sizes: Mapping[str, int], again: Collection[str], retried: Collection[str], *, has_new: bool
) -> set[str]:
    """Compacted files that are not full yet, hold parts that were written again, or trials that were retried since."""
    not_full = [file for file, size in sizes.items() if size < FULL_FILE_BYTES]
    by_kind = [[file for file in not_full if file.endswith(RETRIED) == kind] for kind in (True, False)]
    files = {file for group in by_kind if has_new or len(group) > 1 for file in group}
    for part, file, key in zip(*(index[name].to_pylist() for name in ("part", "file", "trial_key")), strict=True):
        if part in again or (key in retried and not file.endswith(RETRIED)):
            files.add(file)
    return files


def _merge_table(
    place: Storage, sorting: _Sorting, index: pa.Table, parts: list[PartInfo], files: Collection[str]
) -> tuple[pa.Table, Mapping[str, str]]:
    """Writes, proves, commits and only then removes. Returns the new index, and the parts that cannot be read."""
    table, held = sorting.table, index.select(["part", "sweep_id"]).to_pydict()
    sweep_of = {part: sweep or "" for part, sweep in zip(held["part"], held["sweep_id"], strict=True)}
    sweep_of = {**sweep_of, **sorting.sweep_of} if table in SUPERSEDED else {}
    read = Checksum(tuple(compacted_schema(table).names))
    own = OwnParts(table, read)
    # Only what can be read replaces older rows of its name.
    again = [part for part in parts if part.name in set(held["part"])]
    replaced = {part.name for part in again} - own.unreadable(again)
    merged = [part for part in parts if part.path not in own.left]
    sources = [own.pieces(merged, sweep_of)]
    for file in sorted(files):
        sources.append(file_pieces(place, table, file, sweep_of=sweep_of, counts=lambda part: part not in replaced))
        read.add_file(table, compacted_path(place, table, file), without=replaced)
    names = write_files(place, table, merge(sources), sorting.retried)
    _prove(place, table, names, read)
    is_kept = [file not in files for file in index["file"].to_pylist()]
    described = [describe(place, table, name, sweep_of) for name in names]
    new_index = pa.concat_tables([index.filter(pa.array(is_kept, pa.bool_())), *described])
    commit_index(place, table, new_index)
    for file in sorted(files):
        Path(compacted_path(place, table, file)).unlink()
    for path, stamp in own.stamps.items():
        _remove(path, stamp)
    return new_index, own.left


def _prove(place: Storage, table: str, names: list[str], read: Checksum) -> None:
    """Raises LedgerError unless the files have the rows that were read, and no others."""
    written = Checksum(read.columns)
    for name in names:
        written.add_file(table, compacted_path(place, table, name))
    if written != read:
        remove_leftovers(place, table, set(find_index(place, table)["file"].to_pylist()))
        raise LedgerError(
            f"what was written of {table} is not what was read ({written.num_rows} rows for {read.num_rows}, or other values); "
            "nothing was removed: look at the disk, then run the command again"
        )


def _remove(path: str, stamp: Stamp) -> None:
    """Removes a part that was merged, unless it is newer than what was merged: then it stays, set aside or as it is."""
    aside = path if path.endswith(f"{ASIDE}{PART_SUFFIX}") else aside_path(path)
    try:
        if aside != path:
            os.replace(path, aside)
        if stamp_of(Path(aside).stat()) == stamp:
            Path(aside).unlink()
    except FileNotFoundError:
        return  # a person moved it
