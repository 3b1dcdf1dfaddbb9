"""Parts of the ledger on a storage: named, written whole, replaced atomically or never.

    <storage>/ledger/<table>/<name>.parquet     a part
    <storage>/ledger/<table>/<name>~.parquet    a part that a compaction has set aside to remove it (see `results.compact`)

Readers take a part whose name ends in `.parquet` and does not begin with a dot; anything else is unfinished. Parts that were
merged into compacted files are found by their index (see `results.compacted`).
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq

from results.compacted import (
    INDEX_NAME,
    UNREADABLE,
    compacted_attempts,
    compacted_path,
    compacted_rows,
    has_torn_rows,
    means_damage,
)
from results.schema import TABLES, Column, arrow_schema

__all__ = [
    "ASIDE",
    "PART_SUFFIX",
    "PartInfo",
    "Storage",
    "aside_path",
    "attempt_part",
    "list_attempts",
    "open_storage",
    "read_attempts",
    "torn_parts",
    "write_part",
]

PART_SUFFIX = ".parquet"
ASIDE = "~"
"""What the name of a part set aside ends with; no part's own name can hold it."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_OBJECT_STORES = {"s3", "gcs", "abfs"}
"""They have no folders to make."""

_TRIES = 5
"""How often reading begins anew when a compaction removes what was just listed."""

_temporary_ids = itertools.count()


@dataclass(frozen=True)
class PartInfo:
    """A finished part as a listing shows it; `stamp` changes whenever the part is replaced."""

    table: str
    path: str
    stamp: tuple[int, int]
    """Modification time in nanoseconds, size in bytes."""

    @property
    def name(self) -> str:
        """The part's name without folder and suffix, also when it was set aside."""
        return self.path.rsplit("/", 1)[-1].removesuffix(PART_SUFFIX).removesuffix(ASIDE)

    @property
    def num_bytes(self) -> int:
        """Size in bytes."""
        return self.stamp[1]


@dataclass(frozen=True)
class Storage:
    """A root folder on any file system that pyarrow reaches; the one place that builds paths of the ledger."""

    filesystem: fs.FileSystem
    root: str
    shown: str
    """The storage as the user named it, for messages."""

    @property
    def is_local(self) -> bool:
        """True when the root is a folder of this machine."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def path(self, relative: str) -> str:
        """The path on the file system of `relative`, which uses forward slashes."""
        return f"{self.root}/{relative}"

    def part_path(self, table: str, name: str) -> str:
        """The path of a part. Raises ValueError for an unknown table or a name that could not be a file name."""
        if table not in TABLES:
            raise ValueError(f"table must be one of {', '.join(TABLES)}, got {table!r}{_nearest(table, TABLES)}")
        if not _NAME.fullmatch(name):
            raise ValueError(f"part name must match {_NAME.pattern}, got {name!r}")
        return self.path(f"ledger/{table}/{name}{PART_SUFFIX}")

    def has_ledger(self) -> bool:
        """True once anything was written to the ledger."""
        return bool(self.filesystem.get_file_info(self.path("ledger")).type == fs.FileType.Directory)

    def relative(self, path: str) -> str:
        """The inverse of `path`."""
        return path.removeprefix(f"{self.root}/")

    def files(self, folder: str) -> list[fs.FileInfo]:
        """All files below `folder`, which is relative to the root, sorted by path; none when it does not exist."""
        selector = fs.FileSelector(self.path(folder), allow_not_found=True, recursive=True)
        return sorted((info for info in self.filesystem.get_file_info(selector) if info.is_file), key=lambda info: info.path)

    def parts(self, table: str) -> list[PartInfo]:
        """The finished parts of `table` that are files of their own, sorted by path; none when the folder does not exist.

        A part that was set aside counts until a newer version of it is written.
        """
        folder = fs.FileSelector(self.path(f"ledger/{table}"), allow_not_found=True)
        infos = sorted((i for i in self.filesystem.get_file_info(folder) if _is_part(i)), key=lambda info: info.path)
        parts: dict[str, PartInfo] = {}
        for info in infos:
            part = PartInfo(table, info.path, (info.mtime_ns or 0, info.size))
            parts.setdefault(part.name, part)  # <name>.parquet sorts before <name>~.parquet
        return list(parts.values())

    def part_names(self, table: str) -> set[str]:
        """The names of `parts`; on a local disk much quicker than those, since no file is looked at."""
        if not self.is_local:
            return {part.name for part in self.parts(table)}
        try:
            with os.scandir(self.path(f"ledger/{table}")) as entries:
                files = [entry.name for entry in entries if entry.name.endswith(PART_SUFFIX)]
        except FileNotFoundError:
            return set()
        names = {file.removesuffix(PART_SUFFIX) for file in files if not file.startswith(".")}
        return {name.removesuffix(ASIDE) for name in names - {INDEX_NAME}}

    def read(self, path: str) -> pa.Buffer:
        """The bytes of one file, all from the same version of it. Raises FileNotFoundError."""
        with self.filesystem.open_input_file(path) as file:
            return file.read_buffer()

    def write(self, path: str, content: bytes | pa.Buffer, *, unique: str | None = None) -> None:
        """Replace one file whole: rename over it on a local disk, one upload elsewhere. `unique` names the temporary."""
        if self.is_local:
            _replace_local(Path(path), content, unique or f"{os.getpid()}-{next(_temporary_ids)}")
            return
        if self.filesystem.type_name not in _OBJECT_STORES:
            self.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
        # An object appears when its upload is complete, so no rename is needed (and none would be atomic).
        with self.filesystem.open_output_stream(path) as stream:
            stream.write(content)


def open_storage(storage: str | Path | Storage) -> Storage:
    """The storage at a local path (`~` and relative paths are resolved) or a URI such as `s3://bucket/folder`.

    Raises ValueError for a URI that pyarrow cannot open.
    """
    if isinstance(storage, Storage):
        return storage
    given = str(storage)
    # A URI may carry credentials (s3://key:secret@bucket), which no message or report may repeat.
    shown = re.sub(r"//[^/@]*@", "//", given)
    if "://" not in given:
        return Storage(fs.LocalFileSystem(), Path(given).expanduser().resolve().as_posix(), given)
    try:
        filesystem, root = fs.FileSystem.from_uri(given)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"storage must be a local path or a URI that pyarrow opens, got {shown!r}: {error}") from error
    return Storage(filesystem, root.rstrip("/"), shown)


def attempt_part(trial_key: str, attempt: int) -> str:
    """The part name of one attempt's rows, the same in every table."""
    return f"{trial_key}-{attempt}"


def list_attempts(storage: str | Path | Storage, trial_key: str) -> list[int]:
    """The numbers of the attempts that wrote to the `attempts` table, ascending."""
    place = open_storage(storage)
    own = _own_attempts(place, "attempts", trial_key)  # before the index: what is compacted meanwhile is there
    return sorted(own | {held["attempt"] for held in compacted_attempts(place, "attempts", trial_key)})


def read_attempts(storage: str | Path | Storage, trial_key: str) -> list[dict[str, Any]]:
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


def torn_parts(storage: str | Path | Storage, trial_key: str) -> list[str]:
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
    storage: str | Path | Storage,
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
    pq.write_table(_to_arrow(table, rows), sink, compression="zstd", use_dictionary=True, write_page_checksum=True)
    place.write(path, sink.getvalue(), unique=unique)


def _to_arrow(table: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    columns = TABLES[table]
    known = [column.name for column in columns]
    for name in dict.fromkeys(name for row in rows for name in row):
        if name not in known:
            allowed = ", ".join(known)
            raise ValueError(f"table {table!r} has no column {name!r}{_nearest(name, known)}; its columns are {allowed}")
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


def _nearest(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (nearest: {close[0]!r})" if close else ""


def aside_path(path: str) -> str:
    """Where a compaction sets a part aside."""
    return f"{path.removesuffix(PART_SUFFIX)}{ASIDE}{PART_SUFFIX}"


def _is_part(info: fs.FileInfo) -> bool:
    name = info.base_name
    is_finished = info.is_file and name.endswith(PART_SUFFIX) and not name.startswith(".")
    return is_finished and name != f"{INDEX_NAME}{PART_SUFFIX}"


def _replace_local(target: Path, content: bytes | pa.Buffer, unique: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{unique}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
