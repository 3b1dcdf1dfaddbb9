"""Values and Arrow types as DuckDB's SQL spells them."""

from __future__ import annotations

import pyarrow as pa

__all__ = ["sql_text", "sql_type"]

_SCALARS = {
    pa.string(): "VARCHAR",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ",
}


def sql_text(value: str) -> str:
    """A text literal."""
    return "'" + value.replace("'", "''") + "'"


def sql_type(kind: pa.DataType) -> str:
    """The type of a column of `results.schema`."""
    if pa.types.is_list(kind):
        return f"{sql_type(kind.value_type)}[]"
    if pa.types.is_map(kind):
        return f"MAP({sql_type(kind.key_type)}, {sql_type(kind.item_type)})"
    return _SCALARS[kind]
