"""How compacted files are laid out: order of rows, size of row groups and files, encoding of each column."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from results.compacted import PART_COLUMN
from results.schema import TABLES

__all__ = ["FULL_FILE_BYTES", "row_group_rows", "writer_options"]

FULL_FILE_BYTES = 128 * 1024**2
"""A compacted file of this size is not written again for the sake of new parts, so that compacting costs what is new."""

_ROW_GROUP_ROWS = 122_880
"""DuckDB's own row group size, and so what one of its threads takes at a time."""

_LOOKED_UP_ROWS = 4096
"""Row groups of `attempts`: every worker reads the one that holds its trial."""

_COUNTED = {"step", "samples_seen", "sequence"}
"""They rise by equal amounts from row to row, which is what delta encoding makes nothing of."""

_FEW_VALUES = {"epoch", "learning_rate", "em", "f1", "em_raw", "contains_gold", "gpus_per_trial", "rung", "moe_dropout"}
"""Real numbers of which few differ within a row group."""

_DICTIONARY_BYTES = 8 * 1024**2
"""Room for the test questions of a sweep, which every one of its trials answers."""


def row_group_rows(table: str) -> int:
    """Most rows of a row group."""
    return _LOOKED_UP_ROWS if table == "attempts" else _ROW_GROUP_ROWS


def writer_options(table: str) -> dict[str, Any]:
    """Arguments of `pyarrow.parquet.ParquetWriter` for compacted files of a table.

    Text and numbers of few values take a dictionary; measured numbers have their bytes split into streams, which zstd then
    makes smaller; counters and times are stored as differences.
    """
    types = {column.name: column.type for column in TABLES[table]}
    differences = {name for name, kind in types.items() if name in _COUNTED or pa.types.is_timestamp(kind)}
    measured = {name for name, kind in types.items() if pa.types.is_floating(kind) and name not in _FEW_VALUES}
    plain = {name for name in types if name not in differences | measured}
    return {
        "compression": "zstd",
        "use_dictionary": [leaf for name in sorted(plain) for leaf in _leaves(name, types[name])] + [PART_COLUMN],
        "column_encoding": {
            **dict.fromkeys(sorted(differences), "DELTA_BINARY_PACKED"),
            **dict.fromkeys(sorted(measured), "BYTE_STREAM_SPLIT"),
        },
        "dictionary_pagesize_limit": _DICTIONARY_BYTES,
        "write_statistics": True,
        "write_page_checksum": True,
    }


def _leaves(name: str, kind: pa.DataType) -> list[str]:
    """The Parquet columns that hold a column whose values are lists or maps, else its own."""
    if pa.types.is_list(kind):
        return [f"{name}.list.element"]
    if pa.types.is_map(kind):
        return [f"{name}.key_value.key"]
    return [name]
