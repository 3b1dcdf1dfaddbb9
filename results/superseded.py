"""Which rows a later attempt replaced: found from the attempts alone, so that the rows themselves need no window over them all.

Nearly every trial is done in one attempt, and all of its rows count. Of the others the attempts say up to which step each one's
rows count. Only where they contradict the rows, because something was lost, are those rows compared one with another.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import pyarrow as pa

from results.scan import StoredTable
from results.schema import TABLES
from results.trials_view import COUNTING

__all__ = ["SUPERSEDED", "Superseded", "current_rows", "find_superseded", "is_clean"]

SUPERSEDED: dict[str, tuple[str, ...]] = {
    "reports": ("trial_key", "step"),
    "evaluations": ("trial_key", "step", "split", "domain"),
    "predictions": (),
    "routing": ("trial_key", "step", "split", "domain", "layer", "expert"),
}
"""Tables in which a later attempt's rows replace an earlier one's, and what identifies a row; predictions go by attempt."""


@dataclass(frozen=True)
class Superseded:
    """What does not count of one table."""

    limits: pa.Table
    """trial_key, attempt, keep_until: the latest step of its rows that counts, null where none does."""
    compared: pa.Table
    """trial_key of each trial whose rows have to be compared; none of its rows count by `limits`."""
    in_files: frozenset[str]
    """Names of compacted files with rows that `limits` is about."""
    in_own: bool
    """Whether other parts have such rows."""


# The latest step an attempt's rows may have: no later attempt began before it. A null resumed_step began from 0.
_KEPT_STEPS = f"""
    SELECT trial_key, attempt,
           min(coalesce(resumed_step, 0)) OVER (
               PARTITION BY trial_key ORDER BY attempt ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
           ) AS keep_until
    FROM ({COUNTING})
"""

_BY_STEP = f"""
    WITH held AS (
        SELECT trial_key, attempt, min(first_step) AS first_step, bool_and(is_clean) AND count(*) = 1 AS is_clean
        FROM pairs GROUP BY trial_key, attempt
    ),
    several AS (
        SELECT trial_key FROM (SELECT trial_key, attempt FROM held UNION ALL SELECT trial_key, attempt FROM attempts)
        GROUP BY trial_key HAVING min(attempt) <> max(attempt)
        UNION SELECT trial_key FROM held WHERE attempt IS NULL OR is_clean IS NOT TRUE
    ),
    counting AS (
        SELECT trial_key, attempt, max(coalesce(resumed_step, 0)) AS began_at
        FROM ({COUNTING}) SEMI JOIN several USING (trial_key) GROUP BY trial_key, attempt
    ),
    done AS (SELECT trial_key, min(attempt) AS completed FROM attempts WHERE status = 'completed' GROUP BY trial_key),
    judged AS (
        SELECT held.*, coalesce(done.completed < held.attempt, false) AS is_repeat, later.keep_until,
               coalesce(held.first_step > counting.began_at, false) AS begins_after,
               coalesce(held.attempt > min(held.attempt) OVER (PARTITION BY held.trial_key), false) AS is_later
        FROM held SEMI JOIN several USING (trial_key)
        LEFT JOIN done USING (trial_key)
        LEFT JOIN counting USING (trial_key, attempt)
        ASOF LEFT JOIN ({_KEPT_STEPS}) AS later ON held.trial_key = later.trial_key AND held.attempt < later.attempt
    ),
    compared AS (
        SELECT DISTINCT trial_key FROM judged
        WHERE attempt IS NULL OR is_clean IS NOT TRUE OR (is_later AND NOT is_repeat AND NOT begins_after)
    )
    SELECT trial_key, attempt, CASE WHEN NOT is_repeat AND NOT is_compared THEN keep_until END AS keep_until, is_compared
    FROM (SELECT judged.*, trial_key IN (FROM compared) AS is_compared FROM judged)
    WHERE is_repeat OR is_compared OR keep_until IS NOT NULL
"""

_BY_ATTEMPT = """
    WITH held AS (SELECT DISTINCT trial_key, attempt FROM pairs),
    newest AS (
        SELECT trial_key, coalesce(min(attempt) FILTER (status = 'completed'), max(attempt)) AS attempt
        FROM (SELECT trial_key, attempt, NULL AS status FROM held UNION ALL SELECT trial_key, attempt, status FROM attempts)
        GROUP BY trial_key
    )
    SELECT trial_key, held.attempt, NULL::BIGINT AS keep_until, false AS is_compared
    FROM held JOIN newest USING (trial_key) WHERE held.attempt IS DISTINCT FROM newest.attempt OR held.attempt IS NULL
"""


def find_superseded(connection: duckdb.DuckDBPyConnection, stored: StoredTable, uncompacted: str) -> Superseded:
    """What does not count of `stored`.

    The connection has `attempts`, and a relation `uncompacted` of the parts' own rows; it is left as it was.
    """
    identity = [name for name in SUPERSEDED[stored.table] if name != "trial_key"]
    connection.register("_index", stored.index)
    pairs = "SELECT trial_key, attempt, first_step, is_clean FROM _index UNION ALL " + _pairs(uncompacted, identity)
    connection.execute(f"CREATE TEMP TABLE pairs AS {pairs}")
    connection.execute(f"CREATE TEMP TABLE limits AS {_BY_STEP if identity else _BY_ATTEMPT}")
    # Whatever an attempt holds in several files, a limit on it is a limit on all of them.
    files = "SELECT DISTINCT file FROM _index JOIN limits ON {on}".format(on=_SAME_ATTEMPT.format(left="_index"))
    own = f"SELECT count(*) > 0 FROM {uncompacted} AS own JOIN limits ON {_SAME_ATTEMPT.format(left='own')}"
    found = Superseded(
        limits=connection.sql("SELECT trial_key, attempt, keep_until FROM limits").to_arrow_table(),
        compared=connection.sql("SELECT DISTINCT trial_key FROM limits WHERE is_compared").to_arrow_table(),
        in_files=frozenset(name for (name,) in connection.sql(files).fetchall()),
        in_own=bool(connection.sql(own).fetchall()[0][0]),
    )
    connection.execute("DROP TABLE pairs; DROP TABLE limits")
    connection.unregister("_index")
    return found


_SAME_ATTEMPT = "{left}.trial_key = limits.trial_key AND {left}.attempt IS NOT DISTINCT FROM limits.attempt"


def _pairs(source: str, identity: list[str]) -> str:
    """The attempts whose rows `source` has, as the index of compacted files would say it."""
    if not identity:
        return f"SELECT DISTINCT trial_key, attempt, NULL::BIGINT, NULL::BOOLEAN FROM {source}"
    return f"SELECT trial_key, attempt, min(step), {is_clean(identity)} FROM {source} GROUP BY trial_key, attempt"


def is_clean(identity: list[str]) -> str:
    """SQL of an aggregate over one attempt's rows: every one has a step, and no two are the same measurement."""
    return f"count(step) = count(*) AND count(DISTINCT hash({', '.join(identity)})) = count(*)"


def current_rows(table: str, found: Superseded, untouched: list[str], limited: list[str]) -> str:
    """SQL of the rows that count: all of the queries `untouched`, and of `limited` what the relation `_limits_<table>` leaves.

    Rows of trials in the relation `_compared_<table>` are compared one with another.
    """
    queries = list(untouched)
    if limited:
        until = "OR rows.step <= limits.keep_until" if SUPERSEDED[table] else ""
        queries.append(f"""
            SELECT {_columns(table)} FROM ({" UNION ALL ".join(limited)}) AS rows
            LEFT JOIN _limits_{table} AS limits ON {_SAME_ATTEMPT.format(left="rows")}
            WHERE limits.trial_key IS NULL {until}
        """)
    if found.compared.num_rows:
        queries.append(_compared_rows(table))
    return " UNION ALL ".join(queries)


def _compared_rows(table: str) -> str:
    """Rows up to every later attempt's starting step; QUALIFY decides where the attempts table itself lost a part."""
    identity = ", ".join(f"rows.{name}" for name in SUPERSEDED[table])
    return f"""
    SELECT {_columns(table)} FROM (FROM all_{table} SEMI JOIN _compared_{table} USING (trial_key)) AS rows
    ASOF LEFT JOIN ({_KEPT_STEPS}) AS later ON rows.trial_key = later.trial_key AND rows.attempt < later.attempt
    WHERE (later.keep_until IS NULL OR rows.step <= later.keep_until)
      AND NOT EXISTS (
          FROM attempts AS done
          WHERE done.trial_key = rows.trial_key AND done.status = 'completed' AND done.attempt < rows.attempt
      )
    QUALIFY row_number() OVER (PARTITION BY {identity} ORDER BY rows.attempt DESC) = 1
    """


def _columns(table: str) -> str:
    return ", ".join(f"rows.{column.name}" for column in TABLES[table])
