"""Parts of the ledger on a storage: named, written whole, replaced atomically or never.

    <storage>/ledger/<table>/<name>.parquet     a part
    <storage>/ledger/<table>/<name>~.parquet    a part that a compaction has set aside to remove it (see `results.compact`)

Readers take a part whose name ends in `.parquet` and does not begin with a dot; anything else is unfinished. Parts that were
merged into compacted files are found by their index (see `results.compacted`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from results.compacted import (
    UNREADABLE,
    compacted_attempts,
    compacted_path,
    compacted_rows,
    has_torn_rows,
    means_damage,
)
from results.naming import nearest_of
from results.schema import TABLES, Column, arrow_schema
from results.storage import ASIDE, PART_SUFFIX, Storage, StorageLike, open_storage

__all__ = [
    "aside_path",
    "attempt_part",
    "list_attempts",
    "read_attempts",
    "torn_parts",
    "write_part",
]

_TRIES = 5
"""How often reading begins anew when a compaction removes what was just listed."""

_COMPRESSED_FROM_ROWS = 64
"""Parts of fewer rows are smaller without compression, and written in half the time: 10 reports 6.6 kB for 6.8, 0.28 ms of CPU
for 0.57. Compacted files are compressed."""


def attempt_part(trial_key: str, attempt: int) -> str:
    """The part name of one attempt's rows, the same in every table."""
    return f"{trial_key}-{attempt}"


def list_attempts(storage: StorageLike, trial_key: str) -> list[int]:
    """The numbers of the attempts that wrote to the `attempts` table, ascending."""
    place = open_storage(storage)
    own = _own_attempts(place, "attempts", trial_key)  # before the index: what is compacted meanwhile is there
    return sorted(own | {held["attempt"] for held in compacted_attempts(place, "attempts", trial_key)})


def read_attempts(storage: StorageLike, trial_key: str) -> list[dict[str, Any]]:
    """The rows of the trial in the `attempts` table, ascending by attempt; without DuckDB, for workers.

    Every row has every column. A part that cannot be read still takes its number: all its other columns are null.
    """
    place = open_storage(storage)
    for tries_left in reversed(range(_TRIES)):
        try:
            return _read_attempts(place, trial_key)
        except FileNotFoundError:  # compacted since it was listed
            if not tries_left:
                raise
    raise AssertionError


def _read_attempts(place: Storage, trial_key: str) -> list[dict[str, Any]]:
    own = _own_attempts(place, "attempts", trial_key)  # before the index: what is compacted meanwhile is there
    compacted = {held["attempt"]: held for held in compacted_attempts(place, "attempts", trial_key)}
    nulls = dict.fromkeys(column.name for column in TABLES["attempts"])
    rows = []
    for number in sorted(own | compacted.keys()):
        try:
            if number in own:
                row = _own_row(place, attempt_part(trial_key, number))
            else:
                row = compacted_rows(place, "attempts", compacted[number]).to_pylist()[0]
        except UNREADABLE as error:
            if not means_damage(error):
                raise
            row = {}
        if row is not None:
            rows.append({**nulls, "trial_key": trial_key, "attempt": number, **row})
    return rows


def _own_attempts(place: Storage, table: str, trial_key: str) -> set[int]:
    named = (name.rpartition("-") for name in place.part_names(table))
    return {int(number) for key, _, number in named if key == trial_key and number.isdecimal()}


def _own_row(place: Storage, part: str) -> dict[str, Any] | None:
    """The first row of a part that is a file; None where it is empty, which says that it is to be forgotten."""
    path = place.part_path("attempts", part)
    try:
        content = place.read(path)
    except FileNotFoundError:
        content = place.read(aside_path(path))
    rows = pq.read_table(pa.BufferReader(content)).to_pylist()
    return dict(rows[0]) if rows else None


def torn_parts(storage: StorageLike, trial_key: str) -> list[str]:
    """The files with rows of the trial's attempts that cannot be read; without DuckDB, for workers."""
    place = open_storage(storage)
    tables = [table for table, columns in TABLES.items() if any(column.name == "step" for column in columns)]
    return [path for table in tables for path in _torn_files(place, table, trial_key)]


def _torn_files(place: Storage, table: str, trial_key: str) -> list[str]:
    own = {attempt_part(trial_key, number) for number in _own_attempts(place, table, trial_key)}
    paths = [place.part_path(table, part) for part in sorted(own)]
    torn = [path for path in paths if not _is_readable(place, path)]
    compacted = [held for held in compacted_attempts(place, table, trial_key) if held["part"] not in own]
    return torn + [compacted_path(place, table, held["file"]) for held in compacted if has_torn_rows(place, table, held)]


def _is_readable(place: Storage, path: str) -> bool:
    """Raises OSError when the storage fails: that says nothing of the part."""
    try:
        content = place.read(path)
    except FileNotFoundError:
        return True
    try:
        pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
    except UNREADABLE:
        return False
    return True


def write_part(
    storage: StorageLike,
    table: str,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    unique: str | None = None,
) -> None:
    """Write all rows of one part, replacing its former version whole; a column that a row lacks is null.

    Raises ValueError for an unknown table or column, a row without the trial_key that its table has, a time without
    time zone, or a value that does not fit its column; OSError when the storage fails. In each case the former version stays.
    """
    place = open_storage(storage)
    path = place.part_path(table, name)
    sink = pa.BufferOutputStream()
    compression = "zstd" if len(rows) >= _COMPRESSED_FROM_ROWS else "none"
    pq.write_table(_to_arrow(table, rows), sink, compression=compression, use_dictionary=True, write_page_checksum=True)
    place.write(path, sink.getvalue(), unique=unique)


def _to_arrow(table: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    columns = TABLES[table]
    known = [column.name for column in columns]
    for name in dict.fromkeys(name for row in rows for name in row):
        if name not in known:
            allowed = ", ".join(known)
            raise ValueError(f"table {table!r} has no column {name!r}{nearest_of(name, known)}; its columns are {allowed}")
    if "trial_key" in known and any(row.get("trial_key") is None for row in rows):
        raise ValueError(f"every row of {table!r} needs a trial_key, got a row without one")
    arrays = [_column_array(table, column, [row.get(column.name) for row in rows]) for column in columns]
    return pa.Table.from_arrays(arrays, schema=arrow_schema(table))


def _column_array(table: str, column: Column, values: list[Any]) -> pa.Array:
    if pa.types.is_map(column.type):
        values = [list(value.items()) if isinstance(value, Mapping) else value for value in values]
    # Arrow would take a naive time for UTC and so shift it silently.
    if any(isinstance(value, datetime) and value.tzinfo is None for value in values):
        raise ValueError(f"{table}.{column.name} must carry a time zone, got a naive datetime; use datetime.now(UTC)")
    # ... and would cut 3.5 to 3.
    if pa.types.is_integer(column.type) and any(isinstance(value, float) and value % 1 for value in values):
        raise ValueError(f"{table}.{column.name} must hold whole numbers ({column.about}), got {values}")
    try:
        return pa.array(values, type=column.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise ValueError(f"{table}.{column.name} must hold {column.type} ({column.about}): {error}") from error


def aside_path(path: str) -> str:
    """Where a compaction sets a part aside."""
    return f"{path.removesuffix(PART_SUFFIX)}{ASIDE}{PART_SUFFIX}"
