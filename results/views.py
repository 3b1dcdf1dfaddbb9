"""What users query: the stored tables with superseded rows left out, `trials` and `spending`, as SQL over the parts.

`all_reports`, `all_evaluations`, `all_predictions` and `all_routing` hold the rows of every attempt.
"""

from __future__ import annotations

import pyarrow as pa

from results.schema import TABLES, Column
from results.spending_view import SPENDING, SPENDING_COLUMNS
from results.trials_view import COUNTING, TRIALS, TRIALS_COLUMNS

__all__ = ["COLUMNS", "SUPERSEDED", "VIEWS", "columns_table", "needed_tables", "raw_name"]

SUPERSEDED: dict[str, tuple[str, ...]] = {
    "reports": ("trial_key", "step"),
    "evaluations": ("trial_key", "step", "split", "domain"),
    "predictions": (),
    "routing": ("trial_key", "step", "split", "domain", "layer", "expert"),
}
"""Tables in which a later attempt's rows replace an earlier one's, and what identifies a row; predictions go by attempt."""


def raw_name(table: str) -> str:
    """The name under which a stored table's parts are registered, rows of every attempt included."""
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


# The latest step an attempt's rows may have: no later attempt began before it. A null resumed_step began from 0.
_KEPT_STEPS = f"""
    SELECT trial_key, attempt,
           min(coalesce(resumed_step, 0)) OVER (
               PARTITION BY trial_key ORDER BY attempt ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
           ) AS keep_until
    FROM ({COUNTING})
"""


def _current_rows(table: str, identity: tuple[str, ...]) -> str:
    """Rows up to every later attempt's starting step; QUALIFY decides where the attempts table itself lost a part."""
    return f"""
    SELECT rows.* FROM all_{table} AS rows
    ASOF LEFT JOIN ({_KEPT_STEPS}) AS later ON rows.trial_key = later.trial_key AND rows.attempt < later.attempt
    WHERE (later.keep_until IS NULL OR rows.step <= later.keep_until)
      AND NOT EXISTS (
          FROM attempts AS done
          WHERE done.trial_key = rows.trial_key AND done.status = 'completed' AND done.attempt < rows.attempt
      )
    QUALIFY row_number() OVER (PARTITION BY {", ".join(f"rows.{name}" for name in identity)} ORDER BY rows.attempt DESC) = 1
    """


_PREDICTIONS = """
    WITH newest AS (
        SELECT trial_key, coalesce(min(attempt) FILTER (status = 'completed'), max(attempt)) AS attempt
        FROM (
            SELECT trial_key, attempt, NULL AS status FROM all_predictions
            UNION SELECT trial_key, attempt, status FROM attempts
        )
        GROUP BY trial_key
    )
    SELECT rows.* FROM all_predictions AS rows SEMI JOIN newest USING (trial_key, attempt)
"""

VIEWS: dict[str, str] = {
    **{table: _current_rows(table, identity) for table, identity in SUPERSEDED.items() if identity},
    "predictions": _PREDICTIONS,
    "trials": TRIALS,
    "spending": SPENDING,
}
"""Each view's query over the registered parts."""

COLUMNS: dict[str, tuple[Column, ...]] = {
    "trials": TRIALS_COLUMNS,
    **TABLES,
    "spending": SPENDING_COLUMNS,
    **{raw_name(table): TABLES[table] for table in SUPERSEDED},
}
"""Every table that can be queried and what its columns hold."""


def columns_table(table: str | None = None) -> pa.Table:
    """Every column of one table, or of all: table, column, type, meaning. Raises ValueError for an unknown table."""
    if table is not None and table not in COLUMNS:
        raise ValueError(f"table must be one of {', '.join(COLUMNS)}, got {table!r}")
    chosen = [table] if table else list(COLUMNS)
    rows = [(name, column.name, str(column.type), column.about) for name in chosen for column in COLUMNS[name]]
    return pa.table([list(values) for values in zip(*rows, strict=True)], names=("table", "column", "type", "meaning"))
