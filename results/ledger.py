"""The ledger as SQL: DuckDB over the parts and compacted files, read-only, with no access to other files or extensions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from results.compacted import read_index
from results.errors import LedgerMissingError, QueryError
from results.guard import QueryLimits, check_reading, connect, ctrl_c, explain, lock, read_answer
from results.relations import create_relations, create_views, local_files
from results.scan import PartReader, StoredTable
from results.schema import TABLES
from results.storage import Storage, open_storage
from results.superseded import Superseded, find_superseded
from results.views import COLUMNS, VIEWS, columns_table, needed_tables, no_table

__all__ = ["Ledger"]

_FILE_ERRORS = (duckdb.IOException, duckdb.InvalidInputException, duckdb.SerializationException, duckdb.InternalException)
"""What DuckDB raises when a file that it reads is gone or damaged, and sometimes for other reasons."""

_TABLES_AT_A_TIME = 8

_TRIES = 20
"""How often a query is asked again when a file that it reads is replaced or turns out to be damaged."""


@dataclass(frozen=True)
class _Opened:
    """A connection and the tables that it sees; queries of a report share one, since opening costs more than most of them."""

    read: Mapping[str, StoredTable]
    connection: duckdb.DuckDBPyConnection

    def sees(self, read: Mapping[str, StoredTable]) -> bool:
        """True when it sees these tables as they are now."""
        return all(self.read.get(table) is stored for table, stored in read.items())


class Ledger:
    """Everything that was measured under a storage, as it is at the moment of each query.

    A part that cannot be read is skipped with a LedgerWarning that names it.

    Raises LedgerMissingError, which says what to do, where nothing was ever written; without `must_exist` such a ledger has
    every table, with no rows.
    """

    def __init__(self, storage: str | Path | Storage, *, limits: QueryLimits | None = None, must_exist: bool = True) -> None:
        self.storage = open_storage(storage)
        if must_exist and not self.storage.has_ledger():
            raise LedgerMissingError(
                f"no ledger at {self.storage.shown}; run `python -m orchestrator.run grid` first, "
                "or name another with --storage"
            )
        self._limits = limits or QueryLimits()
        self._parts = PartReader(self.storage)
        self._superseded: dict[str, tuple[StoredTable, StoredTable, Superseded]] = {}
        self._idle: _Opened | None = None
        self._answers: dict[str, pa.Table] | None = None

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

    def tables_read(self, query: str) -> list[str]:
        """The stored tables whose parts `query` may read."""
        return needed_tables(set(re.findall(r"\w+", query.lower())))

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Within it a question that was asked before has the answer it had: what a report says twice agrees, and costs once."""
        before, self._answers = self._answers, {}
        try:
            yield
        finally:
            self._answers = before

    def table(self, name: str) -> pa.Table:
        """All rows of one table or view. Raises QueryError for a name that is not one of `results.views.COLUMNS`."""
        if name not in COLUMNS:
            raise QueryError(no_table(name))
        return self.sql(f'SELECT * FROM "{name}"')

    def sql(self, query: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """The answer to one reading statement; `$name` in it takes its value from `parameters`.

        `.to_pandas()` makes a data frame of it, where pandas is installed.

        Raises QueryError for a statement that writes or reaches outside the ledger, for more than one statement, and
        for names that do not exist; NewerSchemaError for a part of a later version.
        """
        if self._answers is None:
            return self._ask(query, parameters)
        question = json.dumps([query, parameters], default=str)
        if question not in self._answers:
            self._answers[question] = self._ask(query, parameters)
        return self._answers[question]

    def _ask(self, query: str, parameters: Mapping[str, Any] | None) -> pa.Table:
        check_reading(query)
        # Who asks many questions asks of all tables, and opening a connection costs more than most answers.
        tables = self.tables_read(query) if self._answers is None else list(TABLES)
        for tries_left in reversed(range(_TRIES)):
            idle, self._idle = self._idle, None  # another thread meanwhile opens its own
            if not tables:  # of the catalogue, which an idle connection may not have whole
                idle = None
            read = self._read(tables)
            if idle is not None and not idle.sees(read):
                read, idle = self._read(sorted({*tables, *idle.read})), None
            try:
                with self._opened(idle, read) as connection:
                    return read_answer(connection, query, parameters, self._limits)
            except duckdb.Error as error:
                # Footers are checked before a query, pages only while it runs: find the bad file, then answer without it.
                if not (tries_left and (self._is_outdated(read, error) or self._is_damaged(read, error))):
                    raise QueryError(explain(error, query, self._limits)) from error
        raise AssertionError

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
        """Every column of one table, or of all: table, column, type, meaning. Raises QueryError for an unknown table."""
        return columns_table(table)

    def verify(self) -> tuple[Mapping[str, str], int]:
        """Read every page of every part and compacted file: the unreadable ones with the reason, and how many there are."""
        for table in TABLES:
            self._parts.skip_corrupt(table)
        files = {(table, file) for table in TABLES for file in read_index(self.storage, table)["file"].to_pylist()}
        return self.skipped, sum(len(self.storage.parts(table)) for table in TABLES) + len(files)

    def connection(self) -> duckdb.DuckDBPyConnection:
        """A locked DuckDB connection over the whole ledger as it is now; the caller closes it.

        A compaction meanwhile can take away the files that it reads; ask for another one then.
        """
        return self._connect(self._read(list(TABLES)))

    def _read(self, tables: list[str]) -> dict[str, StoredTable]:
        if self.storage.is_local:
            return {table: self._parts.read(table) for table in tables}
        with ThreadPoolExecutor(_TABLES_AT_A_TIME) as pool:  # each waits for several answers, one after the other
            return dict(zip(tables, pool.map(self._parts.read, tables), strict=True))

    def _is_outdated(self, read: Mapping[str, StoredTable], error: duckdb.Error) -> bool:
        """True when a compaction has taken away what a query was about to read."""
        if not isinstance(error, (*_FILE_ERRORS, duckdb.PermissionException)):  # a missing file's name is tried as a pattern
            return False
        return any(self._parts.read(table) is not stored for table, stored in read.items())

    def _is_damaged(self, read: Mapping[str, StoredTable], error: duckdb.Error) -> bool:
        """True when files that a query read are damaged; they are skipped from now on."""
        return isinstance(error, _FILE_ERRORS) and sum(len(self._parts.skip_corrupt(table)) for table in read) > 0

    @contextmanager
    def _opened(self, idle: _Opened | None, read: Mapping[str, StoredTable]) -> Iterator[duckdb.DuckDBPyConnection]:
        """The idle connection, else a new one over `read`; kept for the next query unless this one fails."""
        opened = idle or _Opened(read, self._connect(read))
        try:
            yield opened.connection
        except BaseException:
            opened.connection.close()
            raise
        self._idle = opened

    def _connect(self, read: Mapping[str, StoredTable]) -> duckdb.DuckDBPyConnection:
        with ctrl_c():
            connection = connect()
            create_relations(connection, self.storage, read)
            create_views(connection, self.storage, read, lambda table: self._find_superseded(connection, table, read))
            lock(connection, self._limits, local_files(self.storage, read.values()))
        return connection

    def _find_superseded(
        self, connection: duckdb.DuckDBPyConnection, table: str, read: Mapping[str, StoredTable]
    ) -> Superseded:
        """Found anew only when the table or the attempts have changed."""
        stored, attempts = read[table], read["attempts"]
        known = self._superseded.get(table)
        if known is None or known[0] is not stored or known[1] is not attempts:
            known = (stored, attempts, find_superseded(connection, stored, f"_uncompacted_{table}"))
            self._superseded[table] = known
        return known[2]
