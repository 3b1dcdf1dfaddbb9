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

_IN_MEMORY_BYTES = 4 * 2**20
"""A part up to this size is held in memory: while its trial runs it is replaced under the reader, and Arrow remembers
a file's footer between scans. Larger ones (predictions) are written once and streamed."""

_READ_THREADS = 8

_UNREADABLE = (pa.ArrowException, OSError, ValueError)


@dataclass(frozen=True)
class _OpenPart:
    info: PartInfo
    content: pa.Buffer | None
    """The whole file; None when it is to be streamed."""


class PartReader:
    """Reads a storage's parts, each version of a part once; remembers which ones it had to skip and why."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._open: dict[str, _OpenPart] = {}
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
        schema = arrow_schema(table).remove_metadata()
        if not parts:
            return schema.empty_table()
        # Importing it costs a quarter of a second, which a query over no rows need not pay.
        import pyarrow.dataset as ds

        options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
        parquet = ds.ParquetFileFormat(default_fragment_scan_options=options)
        filesystem = self._storage.filesystem
        fragments = [
            parquet.make_fragment(part.info.path, filesystem=filesystem)
            if part.content is None
            else parquet.make_fragment(part.content)
            for part in parts
        ]
        return ds.FileSystemDataset(fragments, schema, parquet, filesystem)

    def skip_corrupt(self, table: str) -> list[str]:
        """Read every page of `table` and skip the parts where that fails; returns their paths. Costs a full scan."""
        found = []
        for part in self._current_parts(table):
            try:
                source = part.content if part.content is not None else self._storage.read(part.info.path)
                pq.read_table(pa.BufferReader(source), page_checksum_verification=True)
            except _UNREADABLE as error:
                self._skip(part.info, str(error))
                found.append(part.info.path)
        return found

    def _current_parts(self, table: str) -> list[_OpenPart]:
        listed = [info for info in self._storage.parts(table) if info not in self._skipped]
        fresh = [i for i in listed if i.path not in self._open or self._open[i.path].info != i]
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            for info, opened in zip(fresh, pool.map(self._open_part, fresh), strict=True):
                self._open.pop(info.path, None)
                if isinstance(opened, _OpenPart):
                    self._open[info.path] = opened
                elif opened is not None:
                    self._skip(info, opened)
        return [self._open[info.path] for info in listed if info.path in self._open]

    def _open_part(self, info: PartInfo) -> _OpenPart | str | None:
        """The part, or why it cannot be read, or None when it was removed since it was listed."""
        try:
            content = self._storage.read(info.path) if info.num_bytes <= _IN_MEMORY_BYTES else None
            if content is not None:
                schema = pq.read_schema(pa.BufferReader(content))
            else:
                with self._storage.filesystem.open_input_file(info.path) as file:
                    schema = pq.read_schema(file)
            version = int((schema.metadata or {}).get(b"schema_version", b"0"))
        except FileNotFoundError:
            return None
        except _UNREADABLE as error:
            return " ".join(str(error).split())
        if version > SCHEMA_VERSION:
            raise NewerSchemaError(_newer(info, version))
        return _type_clash(info, schema) or _OpenPart(info, content)

    def _skip(self, info: PartInfo, reason: str) -> None:
        self._skipped[info] = reason
        self._open.pop(info.path, None)
        message = f"skipped the unreadable part {info.path}: {reason}; the answer is without its rows"
        warnings.warn(message, LedgerWarning, stacklevel=2)


def _newer(info: PartInfo, version: int) -> str:
    return (
        f"{info.path} has schema version {version}, this package reads up to {SCHEMA_VERSION}: "
        "upgrade the package, or query with the version that wrote it"
    )


def _type_clash(info: PartInfo, schema: pa.Schema) -> str | None:
    for field in arrow_schema(info.table):
        index = schema.get_field_index(field.name)
        if index >= 0 and not schema.field(index).type.equals(field.type):
            return f"column {field.name} is {schema.field(index).type}, not {field.type}"
    return None
