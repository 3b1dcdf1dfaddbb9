"""The files of a compaction: written in order, described by index rows, committed; and what an interrupted one left behind."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from results.compacted import (
    INDEX_SCHEMA,
    UNREADABLE,
    compacted_folder,
    compacted_path,
    compacted_schema,
    index_path,
    read_index,
    to_index_file,
)
from results.errors import LedgerError, NewerSchemaError
from results.layout import FULL_FILE_BYTES, row_group_rows, writer_options
from results.merging import Piece
from results.schema import TABLES
from results.sql_text import sql_text
from results.storage import Storage
from results.superseded import SUPERSEDED, is_clean

__all__ = ["RETRIED", "commit_index", "describe", "find_index", "remove_leftovers", "write_files"]

RETRIED = "-retried.parquet"
"""What the names of files end with that hold the trials of more than one attempt. They are kept apart since only their rows
have to be compared with the attempts."""


def find_index(place: Storage, table: str) -> pa.Table:
    """The table's index; written again from the compacted files where it was lost."""
    try:
        return read_index(place, table)
    except NewerSchemaError:
        raise
    except LedgerError:
        index = _rebuild(place, table)
        commit_index(place, table, index)
        return index


def _rebuild(place: Storage, table: str) -> pa.Table:
    """Index rows of all files. A part is taken from the newest generation that holds it; a damaged file is put away."""
    index, known = pa.Table.from_batches([], INDEX_SCHEMA), pa.array([], pa.string())
    names = sorted((path.name for path in Path(compacted_folder(place, table)).iterdir()), reverse=True)
    for name in names:
        try:
            rows = describe(place, table, name, {})
        except (duckdb.Error, *UNREADABLE):
            target = Path(place.path(f"quarantine/ledger/{table}/compacted/{name}"))
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(compacted_path(place, table, name), target)
            continue
        index = pa.concat_tables([index, rows.filter(pc.invert(pc.is_in(rows["part"], known)))])
        known = pc.unique(index["part"].combine_chunks())
    return index


def commit_index(place: Storage, table: str, index: pa.Table) -> None:
    """Makes the files that `index` names count, and no others, in one step that also a power failure cannot divide."""
    path = index_path(place, table)
    place.write(path, to_index_file(table, index))
    _sync(Path(path).parent)


def remove_leftovers(place: Storage, table: str, named: Collection[str]) -> None:
    """Removes compacted files that the index does not name: what a compaction left that was killed."""
    folder = Path(compacted_folder(place, table))
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name not in named:
            path.unlink()


@dataclass
class _Output:
    """Files of one kind, each begun when the one before is full."""

    folder: Path
    table: str
    stem: str
    suffix: str
    names: list[str] = field(default_factory=list)
    _file: BinaryIO | None = None
    _writer: pq.ParquetWriter | None = None
    _waiting: list[pa.Table] = field(default_factory=list)
    _num_waiting: int = 0
    _last: tuple[str, str] | None = None

    def add(self, order: tuple[str, str], rows: pa.Table) -> None:
        """Rows of one part. A part is never divided between files."""
        if self._file is not None and order != self._last and self._file.tell() >= FULL_FILE_BYTES:
            self.close()
        if self._file is None:
            self._open()
        self._last = order
        self._waiting.append(rows)
        self._num_waiting += rows.num_rows
        if self._num_waiting >= row_group_rows(self.table):
            self._flush(only_full=True)

    def close(self) -> None:
        """Ends the file that is being written; its rows are on the disk then."""
        if self._file is None or self._writer is None:
            return
        self._flush(only_full=False)
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None

    def _open(self) -> None:
        name = f"{self.stem}-{len(self.names):03d}{self.suffix}"
        self._file = (self.folder / name).open("xb")
        self._writer = pq.ParquetWriter(self._file, compacted_schema(self.table), **writer_options(self.table))
        self.names.append(name)

    def _flush(self, *, only_full: bool) -> None:
        assert self._writer is not None
        size = row_group_rows(self.table)
        rows = pa.concat_tables(self._waiting)
        num_written = rows.num_rows // size * size if only_full else rows.num_rows
        if num_written:
            self._writer.write_table(rows.slice(0, num_written).cast(compacted_schema(self.table)), row_group_size=size)
        self._waiting = [rows.slice(num_written)]
        self._num_waiting = rows.num_rows - num_written


def write_files(place: Storage, table: str, pieces: Iterable[Piece], retried: Collection[str]) -> list[str]:
    """Writes the pieces in the order given; returns the new files' names. They count when the index names them."""
    folder = Path(compacted_folder(place, table))
    if not Path(index_path(place, table)).exists():
        commit_index(place, table, pa.Table.from_batches([], INDEX_SCHEMA))  # so that files without an index always mean damage
    folder.mkdir(parents=True, exist_ok=True)
    generation = max((int(path.name.partition("-")[0]) for path in folder.iterdir()), default=0) + 1
    single, several = (_Output(folder, table, f"{generation:06d}", suffix) for suffix in (".parquet", RETRIED))
    keys = pa.array(sorted(retried), pa.string()) if table in SUPERSEDED else pa.array([], pa.string())
    for piece in pieces:
        if not len(keys):
            single.add(piece.order, piece.rows)
            continue
        for output, rows in zip((single, several), _divided(piece.rows, keys), strict=True):
            if rows.num_rows:
                output.add(piece.order, rows)
    single.close()
    several.close()
    _sync(folder)
    _sync(folder.parent)
    return single.names + several.names


def _divided(rows: pa.Table, retried: pa.Array) -> tuple[pa.Table, pa.Table]:
    """Rows of trials that are not among `retried`, and of those that are."""
    trials = pc.unique(rows["trial_key"].combine_chunks())
    is_retried = pc.is_in(trials, retried)
    if not pc.any(is_retried).as_py():
        return rows, rows.slice(0, 0)
    if pc.all(is_retried).as_py():
        return rows.slice(0, 0), rows
    mask = pc.is_in(rows["trial_key"], retried)
    return rows.filter(pc.invert(mask)), rows.filter(mask)


def describe(place: Storage, table: str, file: str, sweep_of: Mapping[str, str | None]) -> pa.Table:
    """The index rows of a compacted file, from what is on the disk."""
    columns = {column.name for column in TABLES[table]}
    by_attempt = "attempt" in columns and (table in SUPERSEDED or table == "attempts")
    group = "part, trial_key, attempt" if by_attempt else "part"
    trial = "trial_key, attempt" if by_attempt else "NULL::VARCHAR AS trial_key, NULL::BIGINT AS attempt"
    identity = [name for name in SUPERSEDED.get(table, ()) if name != "trial_key"]
    steps = f"min(step), {is_clean(identity)}" if identity else "NULL::BIGINT, NULL::BOOLEAN"
    sweep = "min(sweep_id)" if "sweep_id" in columns else "any_value(_sweeps.sweep_id)"
    joined = "" if "sweep_id" in columns else "LEFT JOIN _sweeps USING (part)"
    with duckdb.connect() as connection:
        sweeps = {"part": pa.array(list(sweep_of), pa.string()), "sweep_id": pa.array(list(sweep_of.values()), pa.string())}
        connection.register("_sweeps", pa.table(sweeps))
        query = f"""
            SELECT part, {sql_text(file)} AS file, {sweep}, {trial}, count(*), {steps}
            FROM read_parquet({sql_text(compacted_path(place, table, file))}) {joined} GROUP BY {group}
        """
        rows = connection.sql(query).to_arrow_table()
    return rows.rename_columns(INDEX_SCHEMA.names).cast(INDEX_SCHEMA)


def _sync(folder: Path) -> None:
    """Names of files survive a power failure only when their folder is written, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
