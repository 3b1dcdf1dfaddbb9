"""The ledger as SQL: DuckDB over the parts and compacted files, read-only, with no access to other files or extensions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from results.compacted import read_index
from results.errors import LedgerMissingError, QueryError
from results.parts import Storage, open_storage
from results.relations import create_relations, create_views, local_files
from results.scan import PartReader, StoredTable
from results.schema import TABLES
from results.sql_text import sql_text
from results.superseded import Superseded, find_superseded
from results.views import COLUMNS, needed_tables

__all__ = ["Ledger"]

_READING = {"SELECT", "EXPLAIN", "MULTI"}
"""Statement types that only read: DESCRIBE, SHOW and SUMMARIZE parse as SELECT, PIVOT as MULTI."""

_UNKNOWN = re.compile(r"(Referenced column|Table with name|Table|column named)\s+\"?([^\"\s!]+)\"?", re.IGNORECASE)
_FILE_ERRORS = (duckdb.IOException, duckdb.InvalidInputException, duckdb.SerializationException, duckdb.InternalException)
"""What DuckDB raises when a file that it reads is gone or damaged, and sometimes for other reasons."""

_TRIES = 20
"""How often a query is asked again when a file that it reads is replaced or turns out to be damaged."""


class Ledger:
    """Everything that was measured under a storage, as it is at the moment of each query.

    A ledger nobody has written to has every table, with no rows. A part that cannot be read is skipped with a
    LedgerWarning that names it.
    """

    def __init__(self, storage: str | Path | Storage) -> None:
        self.storage = open_storage(storage)
        self._parts = PartReader(self.storage)
        self._superseded: dict[str, tuple[StoredTable, StoredTable, Superseded]] = {}

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
            raise QueryError(_unknown_name(name, "table", list(COLUMNS)))
        return self.sql(f'SELECT * FROM "{name}"')

    def sql(self, query: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """The answer to one reading statement; `$name` in it takes its value from `parameters`.

        Raises QueryError for a statement that writes or reaches outside the ledger, for more than one statement, and
        for names that do not exist; NewerSchemaError for a part of a later version.
        """
        _check_reading(query)
        tables = self.tables_read(query)
        for tries_left in reversed(range(_TRIES)):
            read = self._read(tables)
            try:
                return self._answer(query, parameters, read)
            except duckdb.Error as error:
                # Footers are checked before a query, pages only while it runs: find the bad file, then answer without it.
                if not (tries_left and (self._is_outdated(read, error) or self._is_damaged(read, error))):
                    raise QueryError(_explain(error, query)) from error
        raise AssertionError

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
        return {table: self._parts.read(table) for table in tables}

    def _is_outdated(self, read: Mapping[str, StoredTable], error: duckdb.Error) -> bool:
        """True when a compaction has taken away what a query was about to read."""
        if not isinstance(error, (*_FILE_ERRORS, duckdb.PermissionException)):  # a missing file's name is tried as a pattern
            return False
        return any(self._parts.read(table) is not stored for table, stored in read.items())

    def _is_damaged(self, read: Mapping[str, StoredTable], error: duckdb.Error) -> bool:
        """True when files that a query read are damaged; they are skipped from now on."""
        return isinstance(error, _FILE_ERRORS) and sum(len(self._parts.skip_corrupt(table)) for table in read) > 0

    def _answer(self, query: str, parameters: Mapping[str, Any] | None, read: Mapping[str, StoredTable]) -> pa.Table:
        with self._connect(read) as connection:
            relation = connection.sql(query, params=dict(parameters) if parameters else None)
            return relation.to_arrow_table()

    def _connect(self, read: Mapping[str, StoredTable]) -> duckdb.DuckDBPyConnection:
        offline = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
        # Without this, a name in a query would also find Python variables of the calling frames.
        connection = duckdb.connect(config={**offline, "python_enable_replacements": False})
        create_relations(connection, self.storage, read)
        create_views(connection, self.storage, read, lambda table: self._find_superseded(table, read))
        connection.execute("SET TimeZone = 'UTC'")
        allowed = ", ".join(sql_text(path) for path in local_files(self.storage, read.values()))
        connection.execute(f"SET allowed_paths = [{allowed}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        return connection

    def _find_superseded(self, table: str, read: Mapping[str, StoredTable]) -> Superseded:
        """Found anew only when the table or the attempts have changed."""
        stored, attempts = read[table], read["attempts"]
        known = self._superseded.get(table)
        if known is None or known[0] is not stored or known[1] is not attempts:
            with duckdb.connect() as connection:
                create_relations(connection, self.storage, {table: stored, "attempts": attempts})
                known = (stored, attempts, find_superseded(connection, stored, f"_uncompacted_{table}"))
            self._superseded[table] = known
        return known[2]


def _check_reading(query: str) -> None:
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise QueryError(_explain(error, query)) from error
    if len(statements) != 1:
        raise QueryError(f"one statement at a time, got {len(statements)}")
    kind = statements[0].type.name
    if kind not in _READING:
        raise QueryError(f"the ledger is read-only: allowed are SELECT, WITH, DESCRIBE, SHOW and EXPLAIN, got {kind}")


def _explain(error: duckdb.Error, query: str) -> str:
    """DuckDB's message in one line, and for an unknown name the nearest known one."""
    lines = str(error).split("\n\n")[0].splitlines()
    message = " ".join(line.strip() for line in lines if not line.startswith(("Candidate bindings", "Did you mean")))
    words = set(re.findall(r"\w+", query.lower()))
    found = _UNKNOWN.search(message)
    if isinstance(error, duckdb.PermissionException):
        return f"{message}; a query sees only the ledger's tables: {', '.join(COLUMNS)}"
    if isinstance(error, duckdb.CatalogException) and found and "Table" in message:
        return _unknown_name(found.group(2), "table", list(COLUMNS))
    if isinstance(error, duckdb.BinderException) and found:
        homes = [table for table, columns in COLUMNS.items() if found.group(2) in {column.name for column in columns}]
        if homes:
            return f"the tables of this query have no column {found.group(2)!r}; it is in {', '.join(homes)}"
        read = [columns for table, columns in COLUMNS.items() if table in words] or list(COLUMNS.values())
        return _unknown_name(found.group(2), "column", sorted({column.name for columns in read for column in columns}))
    return message


def _unknown_name(name: str, kind: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    nearest = f", the nearest is {close[0]!r}" if close else ""
    return f"no {kind} {name!r}{nearest}; the tables are {', '.join(COLUMNS)} (`python -m results columns TABLE` lists columns)"
