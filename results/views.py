"""What users query: the stored tables with superseded rows left out, `trials` and `spending`, and what their columns hold.

`all_reports`, `all_evaluations`, `all_predictions` and `all_routing` hold the rows of every attempt; which of them count is
told by `results.superseded`.
"""

from __future__ import annotations

from results.schema import TABLES, Column
from results.spending_view import SPENDING, SPENDING_COLUMNS
from results.superseded import SUPERSEDED
from results.trials_view import TRIALS, TRIALS_COLUMNS

__all__ = ["COLUMNS", "SUPERSEDED", "VIEWS", "needed_tables", "raw_name"]


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
