"""A checksum of rows that does not depend on their order: the sum of every row's hash, and how many rows there are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from results.compacted import PART_COLUMN
from results.schema import TABLES
from results.sql_text import sql_text, sql_type

__all__ = ["Checksum"]

_MODULUS = 2**64


@dataclass
class Checksum:
    """Of all rows added so far. The hash is DuckDB's (64 bits), over all columns."""

    columns: tuple[str, ...]
    num_rows: int = 0
    total: int = 0
    _connection: duckdb.DuckDBPyConnection = field(default_factory=duckdb.connect, repr=False, compare=False)

    def add_rows(self, rows: pa.Table) -> None:
        """Adds rows in memory, which have all columns."""
        self._connection.register("rows", rows)
        self._add("rows", "", {})
        self._connection.unregister("rows")

    def add_file(self, table: str, path: str, *, without: Collection[str] = ()) -> None:
        """Adds the rows of a compacted file of `table`, except those of the parts `without`."""
        self._connection.register("excluded", pa.table({"part": pa.array(sorted(without), pa.string())}))
        where = f"WHERE {PART_COLUMN} NOT IN (SELECT part FROM excluded)" if without else ""
        present = set(pq.read_schema(path).names)
        missing = {column.name: f"NULL::{sql_type(column.type)}" for column in TABLES[table] if column.name not in present}
        self._add(f"read_parquet({sql_text(path)})", where, missing)
        self._connection.unregister("excluded")

    def _add(self, source: str, where: str, missing: Mapping[str, str]) -> None:
        # A null's hash depends on its type.
        columns = ", ".join(missing.get(name, name) for name in self.columns)
        query = f"SELECT count(*), coalesce(sum(hash({columns})::HUGEINT), 0) FROM {source} {where}"
        [(num_rows, total)] = self._connection.sql(query).fetchall()
        self.num_rows += num_rows
        self.total = (self.total + total) % _MODULUS
