"""A table's files as they are at one moment: rows of small parts in memory, large parts and compacted files where they lie.

Torn files are skipped by name, those of a newer schema refused by name.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from results.compacted import PART_COLUMN, UNREADABLE, check_version, compacted_path, index_path, means_damage, read_index
from results.errors import LedgerWarning
from results.schema import arrow_schema
from results.storage import PartInfo, Storage

__all__ = ["COMPACT_ABOVE_PARTS", "CompactedFile", "PartReader", "StoredTable", "conform", "decode"]

COMPACT_ABOVE_PARTS = 5000
"""Parts of one table above which reading says that they should be compacted: opening so many takes about five seconds."""

_STREAMED_TABLES = {"predictions"}
"""Their parts are large and written once, so they are scanned where they lie. All others are small and replaced while
their trial runs: those are read whole, which gives one version of the part and not the footer of one with the pages of
the next, and kept decoded until they change."""

_STREAMED_FROM_BYTES = 256 * 1024
_READ_THREADS = 8
_BLOCK_PARTS = 1000

_TRIES = 20
"""How often a listing begins anew when a compaction removes what was just listed."""


@dataclass(frozen=True)
class CompactedFile:
    """A compacted file that the index names."""

    name: str
    path: str
    columns: frozenset[str]
    """Those that it has; one of an older schema lacks some."""


@dataclass(frozen=True)
class StoredTable:
    """The files of a table at one moment. The same object as long as they do not change."""

    table: str
    own: pa.Table
    """Rows of parts read into memory, in the table's schema."""
    streamed: tuple[str, ...]
    """Paths of parts too large for that."""
    files: tuple[CompactedFile, ...]
    index: pa.Table
    """What the compacted files hold that counts, in INDEX_SCHEMA."""
    hidden: pa.Array
    """Names of parts whose rows in compacted files do not count, since they are files of their own again."""
    hidden_in: frozenset[str]
    """Names of the files with such rows."""


@dataclass
class _Loaded:
    """What is known of one table's files."""

    names: frozenset[str] = frozenset()
    """Parts as last listed, unreadable ones included."""
    infos: Mapping[str, PartInfo] = field(default_factory=dict)
    """Part name to the version of it whose rows are in `rows`, or that is streamed."""
    rows: pa.Table | None = None
    """With PART_COLUMN."""
    streamed: Mapping[str, PartInfo] = field(default_factory=dict)
    index: pa.Table | None = None
    index_stamp: tuple[int, int] | None = None
    stored: StoredTable | None = None
    """None after a change of the others."""


@dataclass
class _Opened:
    """Parts as they were read, joined block by block: as tables of their own, 100,000 would take a gigabyte."""

    streamed: dict[str, PartInfo]
    kept: pa.Table | None
    infos: dict[str, PartInfo] = field(default_factory=dict)
    blocks: list[pa.Table] = field(default_factory=list)
    faults: list[tuple[PartInfo, str]] = field(default_factory=list)
    num_gone: int = 0

    def add(self, infos: list[PartInfo], contents: Iterable[pa.Table | bool | str | None]) -> None:
        """Takes what `_open_part` returned for each of `infos`."""
        tables = []
        for info, content in zip(infos, contents, strict=True):
            if content is None:
                self.num_gone += 1
            elif isinstance(content, str):
                self.faults.append((info, content))
            else:
                self.infos[info.name] = info
                if isinstance(content, bool):
                    self.streamed[info.name] = info
                else:
                    tables.append(content.append_column(PART_COLUMN, _repeat(info.name, content.num_rows)))
        if tables:
            self.blocks.append(pa.concat_tables(tables).combine_chunks())

    def rows(self) -> pa.Table | None:
        """All rows, those kept from before included."""
        blocks = self.blocks if self.kept is None else [self.kept, *self.blocks]
        return pa.concat_tables(blocks).combine_chunks() if blocks else None


def _texts(values: Sequence[str]) -> pa.Array:
    """`values` as an Arrow array. `pa.array` and `pa.scalar` would import pandas, which takes as long as all the rest."""
    contents = [value.encode() for value in values]
    ends = accumulate((len(content) for content in contents), initial=0)
    offsets = b"".join(end.to_bytes(4, sys.byteorder) for end in ends)
    return pa.StringArray.from_buffers(len(contents), pa.py_buffer(offsets), pa.py_buffer(b"".join(contents)))


def _repeat(text: str, count: int) -> pa.Array:
    """`count` times `text`."""
    return _texts([text]).take(pa.Array.from_buffers(pa.int32(), count, [None, pa.py_buffer(bytes(4 * count))]))


class PartReader:
    """Reads a storage's files, each version of one once; remembers which ones it had to skip and why."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._loaded: dict[str, _Loaded] = {}
        self._files: dict[str, CompactedFile] = {}
        self._skipped: dict[str, tuple[PartInfo | None, str]] = {}
        self._has_advised = False

    @property
    def skipped(self) -> Mapping[str, str]:
        """The files that could not be read: path to reason."""
        return MappingProxyType({path: reason for path, (_, reason) in self._skipped.items()})

    def read(self, table: str) -> StoredTable:
        """The table as its files are now.

        Raises NewerSchemaError for a file that a later version of this package wrote; LedgerError for an index that is lost.
        """
        loaded = self._loaded.setdefault(table, _Loaded())
        for _ in range(_TRIES):
            parts = self._storage.parts(table)
            # After the parts: what a compaction removed before they were listed is in the index by now.
            self._load_index(table, loaded)
            if self._load_parts(table, loaded, parts) and (files := self._open_files(table, loaded)) is not None:
                return self._stored(table, loaded, files)
        raise OSError(f"the parts of {table} in {self._storage.shown} change all the time; ask again")

    def skip_corrupt(self, table: str) -> list[str]:
        """Read every page of the large parts and compacted files and skip those where that fails; returns their paths."""
        stored = self.read(table)
        found = []
        for path in (*stored.streamed, *(file.path for file in stored.files)):
            reason = self._fault_of(path)
            if reason:
                parts = (info for info in self._loaded[table].streamed.values() if info.path == path)
                self._skip(path, next(parts, None), reason)
                found.append(path)
        return found

    def _fault_of(self, path: str) -> str:
        """Why the file cannot be read; empty where it can, or is gone."""
        try:
            with self._storage.filesystem.open_input_file(path) as source:
                file = pq.ParquetFile(source, page_checksum_verification=True)
                for _ in file.iter_batches(use_threads=False):
                    pass
        except FileNotFoundError:
            return ""
        except UNREADABLE as error:
            return _reason(error)
        return ""

    def _load_index(self, table: str, loaded: _Loaded) -> None:
        stamp = self._storage.stamp(index_path(self._storage, table))
        if loaded.index is None or stamp != loaded.index_stamp:
            loaded.index, loaded.index_stamp, loaded.stored = read_index(self._storage, table), stamp, None

    def _load_parts(self, table: str, loaded: _Loaded, parts: list[PartInfo]) -> bool:
        """Brings the rows up to date with the listed parts; False when one of them is gone by now."""
        self._advise(table, len(parts))
        listed = {info.name: info for info in parts if self._skipped.get(info.path, (None,))[0] != info}
        kept = {name: info for name, info in loaded.infos.items() if listed.get(name) == info}
        fresh = [info for name, info in listed.items() if name not in kept]
        names = frozenset(info.name for info in parts)
        if not fresh and len(kept) == len(loaded.infos) and names == loaded.names:
            return True
        opened = _Opened(
            {n: i for n, i in loaded.streamed.items() if n in kept}, _without(loaded.rows, loaded.infos.keys() - kept)
        )
        for start in range(0, len(fresh), _BLOCK_PARTS):
            block = fresh[start : start + _BLOCK_PARTS]
            opened.add(block, self._open_parts(block))
        for info, reason in opened.faults:
            self._skip(info.path, info, reason)
        loaded.names, loaded.infos, loaded.streamed = names, kept | opened.infos, opened.streamed
        loaded.rows, loaded.stored = opened.rows(), None
        return not opened.num_gone

    def _open_parts(self, infos: list[PartInfo]) -> Iterable[pa.Table | bool | str | None]:
        if self._storage.is_local:
            # Decoding a small part is Python's work for the most part, which threads only slow down.
            return map(self._open_part, infos)
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            return list(pool.map(self._open_part, infos))

    def _open_part(self, info: PartInfo) -> pa.Table | bool | str | None:
        """The rows, or True when the part is to be streamed, or why it cannot be read, or None when it is gone by now."""
        try:
            if info.table in _STREAMED_TABLES and info.num_bytes >= _STREAMED_FROM_BYTES:
                with self._storage.filesystem.open_input_file(info.path) as file:
                    _check_schema(info.table, info.path, pq.read_schema(file))
                return True
            return decode(info, self._storage.read(info.path))
        except FileNotFoundError:
            return None
        except UNREADABLE as error:
            if not (means_damage(error) or self._storage.is_local):  # rows that a throttling store withholds are not gone
                raise
            return _reason(error)

    def _open_files(self, table: str, loaded: _Loaded) -> list[CompactedFile] | None:
        """The readable compacted files; None when one of them is gone, which a later compaction does."""
        assert loaded.index is not None
        opened = []
        for name in sorted(loaded.index["file"].unique().to_pylist()):
            path = compacted_path(self._storage, table, name)
            if path in self._skipped:
                continue
            try:
                if path not in self._files:
                    with self._storage.filesystem.open_input_file(path) as source:
                        schema = pq.read_schema(source)
                    _check_schema(table, path, schema)
                    self._files[path] = CompactedFile(name, path, frozenset(schema.names))
                elif self._storage.stamp(path) is None:
                    return None
                opened.append(self._files[path])
            except FileNotFoundError:
                return None
            except UNREADABLE as error:
                self._skip(path, None, _reason(error))
        return opened

    def _stored(self, table: str, loaded: _Loaded, files: list[CompactedFile]) -> StoredTable:
        if loaded.stored is None or loaded.stored.files != tuple(files):
            assert loaded.index is not None
            is_hidden = pc.is_in(loaded.index["part"], _texts(sorted(loaded.names)))
            hidden = loaded.index.filter(is_hidden)
            loaded.stored = StoredTable(
                table=table,
                own=pa.Table.from_batches([], arrow_schema(table).remove_metadata())
                if loaded.rows is None
                else loaded.rows.drop(PART_COLUMN),
                streamed=tuple(info.path for info in loaded.streamed.values()),
                files=tuple(files),
                index=loaded.index.filter(pc.invert(is_hidden)),
                hidden=hidden["part"].unique(),
                hidden_in=frozenset(hidden["file"].to_pylist()),
            )
        return loaded.stored

    def _advise(self, table: str, num_parts: int) -> None:
        if num_parts > COMPACT_ABOVE_PARTS and not self._has_advised:
            self._has_advised = True
            message = f"{table} has {num_parts} parts, which takes long to read; run `python -m results compact` to merge them"
            warnings.warn(message, LedgerWarning, stacklevel=2)

    def _skip(self, path: str, info: PartInfo | None, reason: str) -> None:
        self._skipped[path] = (info, reason)
        kind = "part" if info is not None else "compacted file"
        message = f"skipped the unreadable {kind} {path}: {reason}; the answer is without its rows"
        warnings.warn(message, LedgerWarning, stacklevel=2)


def decode(info: PartInfo, content: pa.Buffer) -> pa.Table:
    """The part's rows in its table's schema. Raises one of UNREADABLE, or NewerSchemaError."""
    file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
    present, schema = file.schema_arrow, arrow_schema(info.table)
    _check_schema(info.table, info.path, present)
    rows = file.read(use_threads=False)
    return rows.replace_schema_metadata() if present.equals(schema) else conform(rows, schema)


def conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows with the columns of `schema`; a column that they lack is null."""
    present = set(rows.column_names)
    columns = [rows[f.name] if f.name in present else pa.nulls(rows.num_rows, f.type) for f in schema]
    return pa.Table.from_arrays(columns, schema=schema.remove_metadata())


def _without(rows: pa.Table | None, names: Collection[str]) -> pa.Table | None:
    if rows is None or not names:
        return rows
    return rows.filter(pc.invert(pc.is_in(rows[PART_COLUMN], pa.array(sorted(names), pa.string()))))


def _check_schema(table: str, path: str, schema: pa.Schema) -> None:
    """Raises NewerSchemaError for a later version, ValueError for columns that are not this table's."""
    check_version(path, schema.metadata)
    if schema.equals(arrow_schema(table)):  # nearly always, and looking at each column takes as long as reading them
        return
    for wanted in arrow_schema(table):
        index = schema.get_field_index(wanted.name)
        if index >= 0 and not schema.field(index).type.equals(wanted.type):
            raise ValueError(f"column {wanted.name} is {schema.field(index).type}, not {wanted.type}")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())
