"""Compacted files of the ledger: the rows of many parts in one file, and the index that says which.

    <storage>/ledger/<table>/compacted/<generation>-<number>.parquet    rows of many parts; the column `part` names each row's
    <storage>/ledger/<table>/~compacted.parquet                         the index: which files count, and what they hold

Replacing the index is the moment at which a compaction takes effect. A part that exists as a file of its own, empty or not,
wins over the rows of its name in compacted files. The index lies among the parts so that a version of this package that does
not know compacted files refuses the ledger instead of overlooking them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from results.errors import LedgerError, NewerSchemaError
from results.schema import SCHEMA_VERSION, arrow_schema

if TYPE_CHECKING:
    from results.storage import Storage

__all__ = [
    "COMPACTED_FOLDER",
    "INDEX_NAME",
    "INDEX_SCHEMA",
    "PART_COLUMN",
    "UNREADABLE",
    "check_version",
    "compacted_attempts",
    "compacted_folder",
    "compacted_path",
    "compacted_rows",
    "compacted_schema",
    "has_torn_rows",
    "index_path",
    "means_damage",
    "read_index",
    "to_index_file",
]

COMPACTED_FOLDER = "compacted"

INDEX_NAME = "~compacted"
"""No part can have this name."""

PART_COLUMN = "part"

INDEX_SCHEMA = pa.schema(
    [
        ("part", pa.string()),
        ("file", pa.string()),
        ("sweep_id", pa.string()),
        ("trial_key", pa.string()),
        ("attempt", pa.int64()),
        ("num_rows", pa.int64()),
        ("first_step", pa.int64()),
        ("is_clean", pa.bool_()),
    ]
)
"""In `attempts` and the tables of SUPERSEDED one row for each attempt whose rows a part holds; in the others one for each part.

sweep_id: the sweep that the part was sorted by. first_step: the smallest. is_clean: every row has a step, and no two are the
same measurement. The last two are null where the table has no steps.
"""

_INDEX_GROUP_ROWS = 8192


UNREADABLE = (pa.ArrowException, OSError, ValueError)
"""What reading a damaged Parquet file raises."""


def means_damage(error: Exception) -> bool:
    """False when it was the storage that failed, which says nothing of the file: such errors carry an error number."""
    return not isinstance(error, OSError) or error.errno is None


def compacted_folder(place: Storage, table: str) -> str:
    """Where the compacted files of a table lie."""
    return place.path(f"ledger/{table}/{COMPACTED_FOLDER}")


def compacted_path(place: Storage, table: str, file: str) -> str:
    """The path of a compacted file that the index names."""
    return f"{compacted_folder(place, table)}/{file}"


def index_path(place: Storage, table: str) -> str:
    """The path of a table's index."""
    return place.path(f"ledger/{table}/{INDEX_NAME}.parquet")


def compacted_schema(table: str) -> pa.Schema:
    """The schema of a compacted file: the table's, and the part that a row came from."""
    return arrow_schema(table).append(pa.field(PART_COLUMN, pa.string()))


def read_index(place: Storage, table: str) -> pa.Table:
    """The index of a table, sorted by part; without rows where nothing was ever compacted.

    Raises LedgerError, which says what to do, where it is gone or cannot be read; NewerSchemaError for a later version's.
    """
    file = _open_index(place, table)
    return pa.Table.from_batches([], INDEX_SCHEMA) if file is None else file.read(use_threads=False).cast(INDEX_SCHEMA)


def to_index_file(table: str, rows: pa.Table) -> pa.Buffer:
    """The content of an index file."""
    metadata = {"table": table, "schema_version": str(SCHEMA_VERSION)}
    sink = pa.BufferOutputStream()
    sorted_rows = rows.sort_by([("part", "ascending"), ("trial_key", "ascending"), ("attempt", "ascending")])
    pq.write_table(
        sorted_rows.replace_schema_metadata(metadata),
        sink,
        compression="zstd",
        row_group_size=_INDEX_GROUP_ROWS,
        write_page_checksum=True,
    )
    return sink.getvalue()


def check_version(path: str, metadata: dict[bytes, bytes] | None) -> None:
    """Raises NewerSchemaError for a file that a later version of this package wrote."""
    version = int((metadata or {}).get(b"schema_version", b"0"))
    if version > SCHEMA_VERSION:
        raise NewerSchemaError(
            f"{path} has schema version {version}, this package reads up to {SCHEMA_VERSION}: "
            "upgrade the package, or query with the version that wrote it"
        )


def compacted_attempts(place: Storage, table: str, trial_key: str) -> list[dict[str, Any]]:
    """The index rows of one trial in a table whose parts are named after attempts; without reading the whole index."""
    file = _open_index(place, table)
    if file is None:
        return []
    # The names of a trial's parts begin with its key, and "~" sorts after whatever follows it there.
    groups = list(_groups_within(file.metadata, "part", trial_key, f"{trial_key}~"))
    rows = file.read_row_groups(groups, use_threads=False) if groups else pa.Table.from_batches([], INDEX_SCHEMA)
    return list(rows.filter(pc.equal(rows["trial_key"], trial_key)).to_pylist())


def compacted_rows(place: Storage, table: str, held: dict[str, Any]) -> pa.Table:
    """The rows of a part that are in the file that the index row `held` names; without PART_COLUMN.

    Raises one of UNREADABLE; see `means_damage`.
    """
    with place.filesystem.open_input_file(compacted_path(place, table, held["file"])) as source:
        file = pq.ParquetFile(source, page_checksum_verification=True)
        groups = list(_groups_within(file.metadata, PART_COLUMN, held["part"], held["part"]))
        rows = file.read_row_groups(groups, use_threads=False)
    return rows.filter(pc.equal(rows[PART_COLUMN], held["part"])).drop_columns(PART_COLUMN)


def has_torn_rows(place: Storage, table: str, held: dict[str, Any]) -> bool:
    """True when the rows of the part that the index row `held` names cannot be read. Raises FileNotFoundError."""
    try:
        return bool(compacted_rows(place, table, held).num_rows < held["num_rows"])
    except UNREADABLE as error:
        if not means_damage(error):
            raise
        return True


def _open_index(place: Storage, table: str) -> pq.ParquetFile | None:
    path = index_path(place, table)
    try:
        file = pq.ParquetFile(pa.BufferReader(place.read(path)), page_checksum_verification=True)
    except FileNotFoundError:
        if place.files(place.relative(compacted_folder(place, table)), recursive=False):
            raise _lost(place, table, "is gone") from None
        return None
    except UNREADABLE as error:
        if not means_damage(error):
            raise
        raise _lost(place, table, f"cannot be read ({' '.join(str(error).split())})") from error
    check_version(path, file.metadata.metadata)
    return file


def _lost(place: Storage, table: str, what: str) -> LedgerError:
    return LedgerError(
        f"the index {index_path(place, table)} {what}; run `python -m results compact`, which writes it again from the files"
    )


def _groups_within(metadata: pq.FileMetaData, column: str, low: str, high: str) -> Iterator[int]:
    """The row groups that may have a value between `low` and `high`, both inclusive, in a text column."""
    index = metadata.schema.names.index(column)
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(index).statistics
        if statistics is None or not statistics.has_min_max or (statistics.min <= high and statistics.max >= low):
            yield group
