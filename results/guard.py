"""What a query may do and how much it may take: it only reads, sees no file, changes no setting, and ends.

Three lines of defence, each enough against most attacks: the kind of statement is checked before anything runs; DuckDB runs
it in a read-only transaction without access to files, extensions and settings; memory, spilled bytes, time and the size of
the answer have limits, so that a mistake in a join does not take the notebook with it.
"""

from __future__ import annotations

import os
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from results.errors import QueryError
from results.sql_text import sql_text
from results.views import COLUMNS, no_column, no_table

__all__ = ["QueryLimits", "check_reading", "connect", "ctrl_c", "explain", "lock", "read_answer"]

_READING = {"SELECT", "MULTI"}
"""Statement types that only read: DESCRIBE, SHOW and SUMMARIZE parse as SELECT, PIVOT as MULTI."""

_GAP = r"(?>\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*+"
"""White space and comments; possessive, so that a thousand comments cost no more than their length."""

_EXPLAIN = re.compile(rf"{_GAP}EXPLAIN\b{_GAP}(?:ANALYZE\b|\({_GAP}(?:ANALYZE|FORMAT)\b[^()]*\))?", re.IGNORECASE | re.DOTALL)
_READING_WORD = re.compile(rf"{_GAP}(?:\(|(?:PIVOT|UNPIVOT|SELECT|FROM|WITH)\b)", re.IGNORECASE | re.DOTALL)

_UNKNOWN_COLUMN = re.compile(r'(?:Referenced column |have a column named |Column (?="[^"]+" does not exist))"(?P<name>[^"]+)"')
_UNKNOWN_TABLE = re.compile(r'(?:Table with name |Referenced table )"?(?P<name>[^"\s]+)"? (?:does not exist|not found)')
_SIZE = re.compile(r"\d+(\.\d+)?\s*(%|[KMGT]i?B)")
_BATCH_ROWS = 100_000
_REFUSED = "the ledger is read-only: allowed are SELECT, WITH, DESCRIBE, SHOW and EXPLAIN, got"


@dataclass(frozen=True, kw_only=True)
class QueryLimits:
    """What one query may take. Raises ValueError for a size or a time that cannot be."""

    memory: str = "40%"
    """Of DuckDB while it works, and once more of the answer: a share of the machine's memory, or a size such as 2GiB."""
    spill: str = "4GiB"
    """What does not fit into memory goes to the system's temporary folder, up to this size, and is deleted afterwards."""
    seconds: float = 600.0
    """Wall seconds."""

    def __post_init__(self) -> None:
        for name, size in (("memory", self.memory), ("spill", self.spill)):
            if not _SIZE.fullmatch(size):
                raise ValueError(f"{name} must be a size such as 512MB, 2GiB or 40%, got {size!r}")
        if not self.seconds >= 0.001:
            raise ValueError(f"seconds must be at least 0.001, got {self.seconds}")


@contextmanager
def ctrl_c() -> Iterator[None]:
    """Makes a KeyboardInterrupt of what DuckDB raises when Ctrl-C finds it at work."""
    try:
        yield
    except RuntimeError as error:
        if str(error) != "Query interrupted":
            raise
        raise KeyboardInterrupt from error


def connect() -> duckdb.DuckDBPyConnection:
    """An empty database in memory that loads no extension and sees no Python variable; to be filled, then locked."""
    offline = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    # Without this, a name in a query would also find Python variables of the calling frames.
    return duckdb.connect(config={**offline, "python_enable_replacements": False})


def lock(connection: duckdb.DuckDBPyConnection, limits: QueryLimits, files: Iterable[str] = ()) -> None:
    """From now on the connection reaches no file but `files`, takes no more than `limits`, and none of this can be changed."""
    # By default DuckDB would spill into the working directory.
    spill = Path(tempfile.gettempdir()) / f"ledger-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    settings = {
        "TimeZone": "UTC",
        "enable_progress_bar": False,
        "memory_limit": limits.memory,
        "temp_directory": str(spill),
        "max_temp_directory_size": limits.spill,
        "max_execution_time": max(1, round(limits.seconds * 1000)),
        "enable_external_access": False,
        "lock_configuration": True,
    }
    connection.execute(f"SET allowed_paths = [{', '.join(sql_text(path) for path in files)}]")
    for name, value in settings.items():
        connection.execute(f"SET {name} = {sql_text(str(value))}")


def check_reading(query: str) -> None:
    """Raises QueryError for anything but one statement that reads."""
    prefix = _EXPLAIN.match(query)
    rest = query[prefix.end() :] if prefix else query
    kind = _kind(query)
    if kind == "EXPLAIN":  # EXPLAIN ANALYZE runs what it explains
        kind = _kind(rest)
    # Any statement over a PIVOT parses as MULTI, CREATE TABLE and COPY too.
    if kind == "MULTI" and not _READING_WORD.match(rest):
        kind = "a PIVOT inside a statement that writes"
    if kind not in _READING:
        raise QueryError(f"{_REFUSED} {kind}")


def read_answer(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: Mapping[str, Any] | None, limits: QueryLimits
) -> pa.Table:
    """All rows of the answer. Ctrl-C stops the query.

    Raises QueryError for an answer that is larger than the limit, duckdb.Error for everything that DuckDB finds wrong.
    """
    # The main thread has to stay free: a signal is not handled before a call into DuckDB returns.
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(_read, connection, query, parameters, limits)
        try:
            return answer.result()
        except BaseException:
            connection.interrupt()
            raise


def explain(error: duckdb.Error, query: str, limits: QueryLimits) -> str:
    """DuckDB's message in one line, and for an unknown name the nearest known one."""
    lines = str(error).split("\n\n")[0].splitlines()
    message = " ".join(line.strip() for line in lines if not line.startswith("Candidate bindings"))
    more = "narrow it, or allow more: Ledger(storage, limits=QueryLimits(...)), `sql --timeout SECONDS --memory SIZE`"
    if "maximum execution time" in message:
        return f"the query was stopped after {limits.seconds:g} seconds: {more}"
    if "Out of Memory" in message:
        return f"the query needs more than {limits.memory} of memory and {limits.spill} on disk: {more}"
    if "read-only mode" in message:
        return f"{_REFUSED} one that writes"
    if isinstance(error, duckdb.PermissionException):
        return f"{message}; a query sees only the ledger's tables: {', '.join(COLUMNS)}"
    if found := _UNKNOWN_TABLE.search(message):
        return no_table(found["name"])
    if found := _UNKNOWN_COLUMN.search(message):
        return no_column(found["name"], set(re.findall(r"\w+", query.lower())))
    return message


def _kind(query: str) -> str:
    """The type of the one statement that `query` is."""
    try:
        statements = duckdb.extract_statements(query)
        kinds = [statement.type.name for statement in statements]
    except duckdb.Error as error:
        raise QueryError(explain(error, query, QueryLimits())) from error
    except ValueError as error:  # a type that the Python client has no name for; none of those reads
        raise QueryError(f"{_REFUSED} {query.split()[0].upper()}") from error
    if len(kinds) != 1:
        raise QueryError(f"one statement at a time, got {len(kinds)}")
    return kinds[0]


def _read(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: Mapping[str, Any] | None, limits: QueryLimits
) -> pa.Table:
    [(most_bytes,)] = connection.execute("SELECT parse_formatted_bytes(current_setting('memory_limit'))").fetchall()
    connection.execute("BEGIN TRANSACTION READ ONLY")
    batches, num_bytes = [], 0
    try:
        with connection.sql(query, params=dict(parameters) if parameters else None).to_arrow_reader(_BATCH_ROWS) as reader:
            for batch in reader:
                batches.append(batch)
                num_bytes += batch.nbytes
                if num_bytes > most_bytes:
                    raise QueryError(
                        f"the answer is larger than {limits.memory} of memory ({most_bytes:,} bytes): aggregate, add LIMIT, "
                        "or allow more: Ledger(storage, limits=QueryLimits(...)), `sql --memory SIZE`"
                    )
            answer = pa.Table.from_batches(batches, reader.schema)
        connection.execute("ROLLBACK")
        return answer
    except (pa.ArrowException, OSError, RuntimeError) as error:
        if isinstance(error, duckdb.Error):
            raise
        raise duckdb.Error(str(error)) from error  # DuckDB's own, which came through Arrow's stream
