"""What users query: the stored tables with superseded rows left out, and `trials`, as SQL over the parts.

`all_reports`, `all_evaluations`, `all_predictions` and `all_routing` hold the rows of every attempt.
"""

from __future__ import annotations

import pyarrow as pa

from results.schema import TABLES, Column

__all__ = ["COLUMNS", "SUPERSEDED", "VIEWS", "needed_tables", "raw_name"]

SUPERSEDED: dict[str, tuple[str, ...]] = {
    "reports": ("trial_key", "step"),
    "evaluations": ("trial_key", "step", "split", "domain"),
    "predictions": (),
    "routing": ("trial_key", "step", "split", "domain", "layer", "expert"),
}
"""Tables in which a later attempt's rows replace an earlier one's, and what identifies a row; predictions go by attempt."""

_FROM_LATEST_PLAN = ("sweep_id", "sweep_kind", "preset")
_FROM_FIRST_PLAN = tuple(
    column.name for column in TABLES["plans"] if column.name not in (*_FROM_LATEST_PLAN, "trial_key", "planned_at")
)

_TRIALS_EXTRA = (
    Column("status", pa.string(), "planned | running | completed | stopped | failed | lost"),
    Column("stop_reason", pa.string(), "why the trial stopped or was lost; null when completed"),
    Column("error_type", pa.string(), "exception class of the newest failure; null when completed"),
    Column("error", pa.string(), "traceback of the newest failure; null when completed"),
    Column("attempts", pa.int64(), "tries at the trial so far"),
    Column("params_total", pa.int64(), "parameters of the model, by the newest attempt"),
    Column("params_trainable", pa.int64(), "parameters that training changes, by the newest attempt"),
    Column("started_at", pa.timestamp("us", tz="UTC"), "when the first attempt started"),
    Column("finished_at", pa.timestamp("us", tz="UTC"), "when the trial reached its status; null while planned or running"),
    Column("train_seconds", pa.float64(), "wall seconds inside the trainable, sum over attempts"),
    Column("startup_seconds", pa.float64(), "wall seconds before the trainable's first report, sum over attempts"),
    Column("gpu_seconds", pa.float64(), "GPUs held x wall seconds, sum over attempts"),
    Column("cpu_seconds", pa.float64(), "CPU seconds of the workers, sum over attempts"),
    Column("host", pa.string(), "worker's host name, of the newest attempt"),
    Column("device", pa.string(), "cpu, or the GPU's name, of the newest attempt"),
    Column("git_commit", pa.string(), "commit of the checkout, of the newest attempt"),
    Column("versions", pa.string(), "versions of Python and the packages that matter, of the newest attempt, JSON"),
)


def raw_name(table: str) -> str:
    """The name under which a stored table's parts are registered, rows of every attempt included."""
    return f"all_{table}" if table in SUPERSEDED else table


def needed_tables(words: set[str]) -> list[str]:
    """The stored tables whose parts a query that uses these lower-case words may read."""
    needed = {table for table in TABLES if words & {table, raw_name(table)}}
    if needed & set(SUPERSEDED):
        needed.add("attempts")
    if "trials" in words:
        needed |= {"plans", "events", "attempts"}
    return [table for table in TABLES if table in needed]


# A completed attempt is the last that counts: whatever was begun after it can only repeat it.
_COUNTING = """
    SELECT * FROM attempts
    QUALIFY attempt <= coalesce(min(attempt) FILTER (status = 'completed') OVER (PARTITION BY trial_key), attempt)
"""

# The latest step an attempt's rows may have: no later attempt began before it. A null resumed_step began from 0.
_KEPT_STEPS = f"""
    SELECT trial_key, attempt,
           min(coalesce(resumed_step, 0)) OVER (
               PARTITION BY trial_key ORDER BY attempt ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
           ) AS keep_until
    FROM ({_COUNTING})
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

_TRIALS = f"""
    WITH keys AS (
        SELECT trial_key FROM plans UNION SELECT trial_key FROM events UNION SELECT trial_key FROM attempts
    ),
    first_plan AS (
        SELECT * FROM plans QUALIFY row_number() OVER (PARTITION BY trial_key ORDER BY planned_at, sweep_id) = 1
    ),
    latest_plan AS (
        SELECT * FROM plans QUALIFY row_number() OVER (PARTITION BY trial_key ORDER BY planned_at DESC, sweep_id DESC) = 1
    ),
    latest_event AS (
        SELECT * FROM events QUALIFY row_number() OVER (
            PARTITION BY trial_key
            ORDER BY happened_at DESC, attempt DESC,
                     list_position(['planned', 'running', 'lost', 'failed', 'stopped', 'completed'], status) DESC
        ) = 1
    ),
    latest_attempt AS (
        SELECT * FROM ({_COUNTING}) QUALIFY row_number() OVER (PARTITION BY trial_key ORDER BY attempt DESC) = 1
    ),
    tries AS (
        SELECT trial_key, count(DISTINCT attempt) AS attempts FROM (
            SELECT trial_key, attempt FROM attempts
            UNION SELECT trial_key, attempt FROM events WHERE status <> 'planned' AND attempt > 0
        ) GROUP BY trial_key
    ),
    spent AS (
        SELECT trial_key, min(started_at) AS started_at, sum(train_seconds) AS train_seconds,
               sum(startup_seconds) AS startup_seconds, sum(gpu_seconds) AS gpu_seconds, sum(cpu_seconds) AS cpu_seconds
        FROM attempts GROUP BY trial_key
    ),
    completed AS (
        SELECT trial_key FROM attempts WHERE status = 'completed'
        UNION SELECT trial_key FROM events WHERE status = 'completed'
    ),
    -- A worker's own traceback says more than what the driver saw, so it comes first within an attempt.
    latest_failure AS (
        SELECT trial_key, error_type, error FROM (
            SELECT trial_key, attempt, 1 AS first_hand, finished_at AS happened_at, error_type, error
            FROM attempts WHERE status = 'failed'
            UNION ALL
            SELECT trial_key, attempt, 0, happened_at, error_type, error
            FROM events WHERE status IN ('failed', 'lost') AND (error_type IS NOT NULL OR error IS NOT NULL)
        ) QUALIFY row_number() OVER (PARTITION BY trial_key ORDER BY attempt DESC, first_hand DESC, happened_at DESC) = 1
    ),
    judged AS (
        SELECT keys.trial_key, completed.trial_key IS NOT NULL AS is_completed,
               CASE WHEN completed.trial_key IS NOT NULL THEN 'completed'
                    ELSE coalesce(latest_event.status, 'planned') END AS status,
               latest_event.reason, latest_event.happened_at
        FROM keys LEFT JOIN completed USING (trial_key) LEFT JOIN latest_event USING (trial_key)
    )
    SELECT judged.trial_key,
           {", ".join(f"latest_plan.{name}" for name in _FROM_LATEST_PLAN)},
           {", ".join(f"first_plan.{name}" for name in _FROM_FIRST_PLAN)},
           judged.status,
           CASE WHEN NOT is_completed THEN judged.reason END AS stop_reason,
           CASE WHEN NOT is_completed THEN latest_failure.error_type END AS error_type,
           CASE WHEN NOT is_completed THEN latest_failure.error END AS error,
           coalesce(tries.attempts, 0) AS attempts,
           latest_attempt.params_total, latest_attempt.params_trainable,
           spent.started_at,
           CASE WHEN judged.status NOT IN ('planned', 'running')
                THEN coalesce(latest_attempt.finished_at, judged.happened_at) END AS finished_at,
           spent.train_seconds, spent.startup_seconds, spent.gpu_seconds, spent.cpu_seconds,
           latest_attempt.host, latest_attempt.device, latest_attempt.git_commit, latest_attempt.versions
    FROM judged
    LEFT JOIN first_plan USING (trial_key) LEFT JOIN latest_plan USING (trial_key)
    LEFT JOIN tries USING (trial_key) LEFT JOIN spent USING (trial_key)
    LEFT JOIN latest_attempt USING (trial_key) LEFT JOIN latest_failure USING (trial_key)
"""

VIEWS: dict[str, str] = {
    **{table: _current_rows(table, identity) for table, identity in SUPERSEDED.items() if identity},
    "predictions": _PREDICTIONS,
    "trials": _TRIALS,
}
"""Each view's query over the registered parts."""

_PLANNED = {column.name: column for column in TABLES["plans"]}

COLUMNS: dict[str, tuple[Column, ...]] = {
    "trials": (*(_PLANNED[name] for name in ("trial_key", *_FROM_LATEST_PLAN, *_FROM_FIRST_PLAN)), *_TRIALS_EXTRA),
    **TABLES,
    **{raw_name(table): TABLES[table] for table in SUPERSEDED},
}
"""Every table that can be queried and what its columns hold."""
