"""The ledger as SQL: DuckDB over Arrow datasets, read-only, with no access to files or extensions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from results.errors import LedgerMissingError, QueryError
from results.guard import QueryLimits, check_reading, connect, ctrl_c, explain, lock, read_answer, unknown_name
from results.parts import Storage, open_storage
from results.scan import PartReader
from results.schema import TABLES, arrow_schema
from results.views import COLUMNS, VIEWS, columns_table, needed_tables, raw_name

__all__ = ["Ledger"]

_STREAM_FAILED = "reading the stream"


class Ledger:
    """Everything that was measured under a storage, as it is at the moment of each query.

    A ledger nobody has written to has every table, with no rows. A part that cannot be read is skipped with a
    LedgerWarning that names it.
    """

    def __init__(self, storage: str | Path | Storage, *, limits: QueryLimits | None = None) -> None:
        self.storage = open_storage(storage)
        self._limits = limits or QueryLimits()
        self._parts = PartReader(self.storage)

    def __repr__(self) -> str:
        return f"Ledger({self.storage.shown!r})"

    def _repr_html_(self) -> str:
        """For a notebook: how many rows each table has now, and what to ask."""
        counts = " UNION ALL ".join(f"SELECT '{name}' AS name, count(*) AS num FROM {name}" for name in (*TABLES, *VIEWS))
        found = self.sql(f"SELECT name, any_value(num) AS num FROM ({counts}) GROUP BY name ORDER BY name").to_pylist()
        rows = "".join(f"<tr><td>{row['name']}</td><td>{row['num']:,}</td></tr>" for row in found)
        head = "<tr><th>table</th><th>rows</th></tr>"
        return f"<p>Ledger at <code>{escape(self.storage.shown)}</code></p><table>{head}{rows}</table>"

    @property
    def skipped(self) -> Mapping[str, str]:
        """The parts that could not be read so far: path to reason."""
        return self._parts.skipped

    def require(self) -> None:
        """Raises LedgerMissingError, which says what to do, where nothing was ever written."""
        if not self.storage.has_ledger():
            raise LedgerMissingError(
                f"no ledger at {self.storage.shown}; run `python -m orchestrator.run grid` first, "
                "or name another with --storage"
            )

    def tables_read(self, query: str) -> list[str]:
        """The stored tables whose parts `query` may read."""
        return needed_tables(set(re.findall(r"\w+", query.lower())))

    def table(self, name: str) -> pa.Table:
        """All rows of one table or view. Raises QueryError for a name that is not one of `results.views.COLUMNS`."""
        if name not in COLUMNS:
            raise QueryError(unknown_name(name, "table", list(COLUMNS)))
        return self.sql(f'SELECT * FROM "{name}"')

    def sql(self, query: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """The answer to one reading statement; `$name` in it takes its value from `parameters`.

        `.to_pandas()` makes a data frame of it, where pandas is installed.

        Raises QueryError for a statement that writes or reaches outside the ledger, for more than one statement, and
        for names that do not exist; NewerSchemaError for a part of a later version.
        """
        check_reading(query)
        tables = self.tables_read(query)
        try:
            return self._answer(query, parameters, tables)
        except duckdb.Error as error:
            # Footers are checked before a query, pages only while it runs: find the bad part, then answer without it.
            if _STREAM_FAILED in str(error) and any(self._parts.skip_corrupt(table) for table in tables):
                return self.sql(query, parameters)
            raise QueryError(explain(error, query, self._limits)) from error

    def relation(self, query: str) -> duckdb.DuckDBPyRelation:
        """A reading statement as a DuckDB relation, to go on from (`.filter`, `.aggregate`, `.df()`), over the ledger as it is
        now; nothing runs before its rows are asked for.

        Raises QueryError as `sql` does; duckdb.Error where something goes wrong later.
        """
        check_reading(query)
        try:
            return self.connection().sql(query)
        except duckdb.Error as error:
            raise QueryError(explain(error, query, self._limits)) from error

    def columns(self, table: str | None = None) -> pa.Table:
        """Every column of one table, or of all: table, column, type, meaning. Raises ValueError for an unknown table."""
        return columns_table(table)

    def verify(self) -> tuple[Mapping[str, str], int]:
        """Read every page of every part: the unreadable ones with the reason, and how many parts there are."""
        for table in TABLES:
            self._parts.skip_corrupt(table)
        return self.skipped, sum(len(self.storage.parts(table)) for table in TABLES)

    def connection(self) -> duckdb.DuckDBPyConnection:
        """A locked DuckDB connection over the whole ledger as it is now; the caller closes it."""
        return self._connect(list(TABLES))

    def _answer(self, query: str, parameters: Mapping[str, Any] | None, tables: list[str]) -> pa.Table:
        with self._connect(tables) as connection:
            return read_answer(connection, query, parameters, self._limits)

    def _connect(self, tables: list[str]) -> duckdb.DuckDBPyConnection:
        datasets = {table: self._parts.dataset(table) for table in tables}
        with ctrl_c():
            connection = connect()
            for table in TABLES:
                rows = datasets[table] if table in tables else pa.Table.from_batches([], arrow_schema(table))
                connection.register(raw_name(table), rows)
            for name, query in VIEWS.items():
                connection.execute(f"CREATE VIEW {name} AS {query}")
            lock(connection, self._limits)
        return connection
