"""Parts as one Arrow dataset per table: torn parts are skipped by name, parts of a newer schema refused by name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from results.errors import LedgerWarning, NewerSchemaError
from results.parts import PartInfo, Storage
from results.schema import SCHEMA_VERSION, arrow_schema

if TYPE_CHECKING:
    import pyarrow.dataset as ds

__all__ = ["PartReader"]

_STREAMED_TABLES = {"predictions"}
"""Their parts are large and written once, so they are scanned where they lie. All others are small and replaced while
their trial runs: those are read whole, which gives one version of the part and not the footer of one with the pages of
the next, and kept decoded until they change."""

_STREAMED_FROM_BYTES = 256 * 1024
_READ_THREADS = 8

_UNREADABLE = (pa.ArrowException, OSError, ValueError)


@dataclass(frozen=True)
class _OpenPart:
    info: PartInfo
    rows: pa.Table | None
    """Decoded, in the table's schema; None when the part is to be streamed."""


class PartReader:
    """Reads a storage's parts, each version of a part once; remembers which ones it had to skip and why."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._open: dict[str, _OpenPart] = {}
        self._merged: dict[str, tuple[list[PartInfo], pa.Table]] = {}
        self._skipped: dict[PartInfo, str] = {}

    @property
    def skipped(self) -> Mapping[str, str]:
        """The parts that could not be read: path to reason."""
        return MappingProxyType({info.path: reason for info, reason in self._skipped.items()})

    def dataset(self, table: str) -> pa.Table | ds.Dataset:
        """All rows of `table` as its parts are now; a column that an older part lacks is null.

        Raises NewerSchemaError for a part that a later version of this package wrote.
        """
        parts = self._current_parts(table)
        rows = self._merge(table, [part for part in parts if part.rows is not None])
        streamed = [part.info.path for part in parts if part.rows is None]
        if not streamed:
            return rows
        # Importing it costs a quarter of a second, which most queries need not pay.
        import pyarrow.dataset as ds

        options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
        parquet = ds.ParquetFileFormat(default_fragment_scan_options=options)
        filesystem = self._storage.filesystem
        fragments = [parquet.make_fragment(path, filesystem=filesystem) for path in streamed]
        files = ds.FileSystemDataset(fragments, rows.schema, parquet, filesystem)
        return ds.UnionDataset(rows.schema, [ds.dataset(rows), files])

    def skip_corrupt(self, table: str) -> list[str]:
        """Read every page of the streamed parts and skip those where that fails; returns their paths."""
        found = []
        for part in self._current_parts(table):
            try:
                if part.rows is None:
                    _decode(part.info, self._storage.read(part.info.path))
            except _UNREADABLE as error:
                self._skip(part.info, _reason(error))
                found.append(part.info.path)
        return found

    def _merge(self, table: str, parts: list[_OpenPart]) -> pa.Table:
        infos = [part.info for part in parts]
        if table not in self._merged or self._merged[table][0] != infos:
            schema = arrow_schema(table).remove_metadata()
            rows = pa.concat_tables([pa.Table.from_batches([], schema), *(part.rows for part in parts)]).combine_chunks()
            self._merged[table] = (infos, rows)
        return self._merged[table][1]

    def _current_parts(self, table: str) -> list[_OpenPart]:
        listed = [info for info in self._storage.parts(table) if info not in self._skipped]
        fresh = [i for i in listed if i.path not in self._open or self._open[i.path].info != i]
        if fresh:
            with ThreadPoolExecutor(_READ_THREADS) as pool:
                for info, opened in zip(fresh, pool.map(self._open_part, fresh), strict=True):
                    self._take(info, opened)
        return [self._open[info.path] for info in listed if info.path in self._open]

    def _take(self, info: PartInfo, opened: _OpenPart | str | None) -> None:
        self._open.pop(info.path, None)
        if isinstance(opened, _OpenPart):
            self._open[info.path] = opened
        elif opened is not None:
            self._skip(info, opened)

    def _open_part(self, info: PartInfo) -> _OpenPart | str | None:
        """The part, or why it cannot be read, or None when it was removed since it was listed."""
        try:
            if info.table in _STREAMED_TABLES and info.num_bytes >= _STREAMED_FROM_BYTES:
                with self._storage.filesystem.open_input_file(info.path) as file:
                    _check_schema(info, pq.read_schema(file))
                return _OpenPart(info, None)
            return _OpenPart(info, _decode(info, self._storage.read(info.path)))
        except FileNotFoundError:
            return None
        except _UNREADABLE as error:
            return _reason(error)

    def _skip(self, info: PartInfo, reason: str) -> None:
        self._skipped[info] = reason
        self._open.pop(info.path, None)
        message = f"skipped the unreadable part {info.path}: {reason}; the answer is without its rows"
        warnings.warn(message, LedgerWarning, stacklevel=2)


def _decode(info: PartInfo, content: pa.Buffer) -> pa.Table:
    """The part's rows in its table's schema. Raises one of _UNREADABLE, or NewerSchemaError."""
    file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
    _check_schema(info, file.schema_arrow)
    rows = file.read(use_threads=False)
    schema = arrow_schema(info.table).remove_metadata()
    present = set(rows.column_names)
    columns = [rows[f.name] if f.name in present else pa.nulls(rows.num_rows, f.type) for f in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _check_schema(info: PartInfo, schema: pa.Schema) -> None:
    """Raises NewerSchemaError for a later version, ValueError for columns that are not this table's."""
    version = int((schema.metadata or {}).get(b"schema_version", b"0"))
    if version > SCHEMA_VERSION:
        raise NewerSchemaError(
            f"{info.path} has schema version {version}, this package reads up to {SCHEMA_VERSION}: "
            "upgrade the package, or query with the version that wrote it"
        )
    for field in arrow_schema(info.table):
        index = schema.get_field_index(field.name)
        if index >= 0 and not schema.field(index).type.equals(field.type):
            raise ValueError(f"column {field.name} is {schema.field(index).type}, not {field.type}")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())
