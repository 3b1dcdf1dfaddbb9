"""What users query: the stored tables with superseded rows left out, `trials` and `spending`, and what their columns hold.

`all_reports`, `all_evaluations`, `all_predictions` and `all_routing` hold the rows of every attempt; which of them count is
told by `results.superseded`.
"""

from __future__ import annotations

import pyarrow as pa

from results.errors import QueryError
from results.naming import nearest_of
from results.schema import TABLES, Column
from results.spending_view import SPENDING, SPENDING_COLUMNS
from results.superseded import SUPERSEDED
from results.trials_view import TRIALS, TRIALS_COLUMNS

__all__ = ["COLUMNS", "SUPERSEDED", "VIEWS", "columns_table", "needed_tables", "no_column", "no_table", "raw_name"]


def raw_name(table: str) -> str:
    """The name under which a stored table's rows are found, those of every attempt included."""
    return f"all_{table}" if table in SUPERSEDED else table


def needed_tables(words: set[str]) -> list[str]:
    """The stored tables whose parts a query that uses these lower-case words may read."""
    needed = {table for table in TABLES if words & {table, raw_name(table)}}
    if needed & set(SUPERSEDED):
        needed.add("attempts")
    if words & {"trials", "spending"}:
        needed |= {"plans", "events", "attempts"}
    if "spending" in words:
        needed.add("reports")
    return [table for table in TABLES if table in needed]


VIEWS: dict[str, str] = {"trials": TRIALS, "spending": SPENDING}
"""Each view's query over the stored tables."""

COLUMNS: dict[str, tuple[Column, ...]] = {
    "trials": TRIALS_COLUMNS,
    **TABLES,
    "spending": SPENDING_COLUMNS,
    **{raw_name(table): TABLES[table] for table in SUPERSEDED},
}
"""Every table that can be queried and what its columns hold."""


def columns_table(table: str | None = None) -> pa.Table:
    """Every column of one table, or of all: table, column, type, meaning. Raises QueryError for an unknown table."""
    if table is not None and table not in COLUMNS:
        raise QueryError(no_table(table))
    chosen = [table] if table else list(COLUMNS)
    rows = [(name, column.name, str(column.type), column.about) for name in chosen for column in COLUMNS[name]]
    return pa.table([list(values) for values in zip(*rows, strict=True)], names=("table", "column", "type", "meaning"))


def no_table(name: str) -> str:
    """One line on a table that cannot be queried: the nearest, and all that can."""
    how = "`python -m results columns TABLE` lists columns, `python -m results table --help` what is computed from them"
    return f"no table {name!r}{nearest_of(name, COLUMNS)}; the tables are {', '.join(COLUMNS)} ({how})"


def no_column(name: str, words: set[str]) -> str:
    """One line on a column that a query of these lower-case words has not: its home, the nearest, or all that there are."""
    homes = [table for table, columns in COLUMNS.items() if name in {column.name for column in columns}]
    if homes:
        return f"the tables of this query have no column {name!r}; it is in {', '.join(homes)}"
    tables = [table for table in COLUMNS if table in words]
    known = sorted({column.name for table in tables or COLUMNS for column in COLUMNS[table]})
    nearest = nearest_of(name, known)
    if nearest or not tables:
        return f"no column {name!r}{nearest} (`python -m results columns` lists all)"
    has = "; ".join(f"{table} has {', '.join(column.name for column in COLUMNS[table])}" for table in tables)
    return f"no column {name!r}; {has}"
