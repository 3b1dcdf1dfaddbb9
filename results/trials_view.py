"""The view `trials`: how each trial stands, from its plans, events and attempts, as SQL.

A trial is completed when an attempt's own row says so. A `completed` event alone is no proof: the row that the worker wrote
after all others is, and where it is lost nothing shows any more that the trial's scores are whole. Such a trial counts as lost,
which the next run of its sweep puts right.
"""

from __future__ import annotations

import pyarrow as pa

from results.schema import TABLES, Column

__all__ = ["COUNTING", "JUDGED", "RECORD_MISSING", "TRIALS", "TRIALS_COLUMNS"]

_FROM_LATEST_PLAN = ("sweep_id", "sweep_kind", "preset")
_FROM_FIRST_PLAN = tuple(
    column.name for column in TABLES["plans"] if column.name not in (*_FROM_LATEST_PLAN, "trial_key", "planned_at")
)

_TRIALS_EXTRA = (
    Column("status", pa.string(), "planned | running | completed | stopped | failed | lost"),
    Column("stop_reason", pa.string(), "why the trial stopped or was lost; null when completed"),
    Column("failure_class", pa.string(), "class of the newest failure, as in attempts; null when completed"),
    Column("error_type", pa.string(), "exception class of the newest failure; null when completed"),
    Column("error_signature", pa.string(), "short hash of the newest failure's error; null when completed"),
    Column("error", pa.string(), "traceback of the newest failure; null when completed"),
    Column("attempts", pa.int64(), "tries at the trial so far"),
    Column("params_total", pa.int64(), "parameters of the model, by the newest attempt"),
    Column("params_active", pa.int64(), "parameters that one token's pass uses, by the newest attempt"),
    Column("params_trainable", pa.int64(), "parameters that training changes, by the newest attempt"),
    Column("started_at", pa.timestamp("us", tz="UTC"), "when the first attempt started"),
    Column("finished_at", pa.timestamp("us", tz="UTC"), "when the trial reached its status; null while planned or running"),
    Column("train_seconds", pa.float64(), "wall seconds inside the trainable, sum over attempts"),
    Column("startup_seconds", pa.float64(), "wall seconds until the trainable began, sum over attempts"),
    Column("gpu_seconds", pa.float64(), "GPUs held x wall seconds, sum over attempts"),
    Column("cpu_seconds", pa.float64(), "CPU seconds of the workers, sum over attempts"),
    Column("checkpoint", pa.string(), "newest checkpoint or final weights, below the storage, of the newest attempt"),
    Column("host", pa.string(), "worker's host name, of the newest attempt"),
    Column("device", pa.string(), "cpu, or the GPU's name, of the newest attempt"),
    Column("git_commit", pa.string(), "commit of the checkout, of the newest attempt"),
    Column("versions", pa.string(), "versions of Python and the packages that matter, of the newest attempt, JSON"),
)


# A completed attempt is the last that counts: whatever was begun after it can only repeat it.
COUNTING = """
    SELECT * FROM attempts
    QUALIFY attempt <= coalesce(min(attempt) FILTER (status = 'completed') OVER (PARTITION BY trial_key), attempt)
"""

RECORD_MISSING = "its completed attempt has no record any more"
"""The reason of a trial that only an event calls completed."""

_FAILURE = ("failure_class", "error_type", "error_signature", "error")
_FIRST_KNOWN = ", ".join(
    f"first({name} ORDER BY first_hand DESC, happened_at DESC) FILTER ({name} IS NOT NULL) AS {name}" for name in _FAILURE
)

_JUDGING = f"""
    keys AS (
        SELECT trial_key FROM plans UNION SELECT trial_key FROM events UNION SELECT trial_key FROM attempts
    ),
    latest_event AS (
        SELECT * FROM events QUALIFY row_number() OVER (
            PARTITION BY trial_key
            ORDER BY happened_at DESC, attempt DESC,
                     list_position(['planned', 'running', 'lost', 'failed', 'stopped', 'completed'], status) DESC
        ) = 1
    ),
    completed AS (SELECT DISTINCT trial_key FROM attempts WHERE status = 'completed'),
    judged AS (
        SELECT keys.trial_key, completed.trial_key IS NOT NULL AS is_completed,
               CASE WHEN completed.trial_key IS NOT NULL THEN 'completed'
                    WHEN latest_event.status = 'completed' THEN 'lost'
                    ELSE coalesce(latest_event.status, 'planned') END AS status,
               CASE WHEN latest_event.status = 'completed' THEN '{RECORD_MISSING}' ELSE latest_event.reason END AS reason,
               latest_event.happened_at
        FROM keys LEFT JOIN completed USING (trial_key) LEFT JOIN latest_event USING (trial_key)
    )
"""

JUDGED = f"""
    WITH {_JUDGING}
    SELECT trial_key, status, CASE WHEN NOT is_completed THEN reason END AS stop_reason FROM judged
"""
"""These columns of `trials` alone, in a third of the time."""

TRIALS = f"""
    WITH {_JUDGING},
    first_plan AS (
        SELECT * FROM plans QUALIFY row_number() OVER (PARTITION BY trial_key ORDER BY planned_at, sweep_id) = 1
    ),
    latest_plan AS (
        SELECT * FROM plans QUALIFY row_number() OVER (PARTITION BY trial_key ORDER BY planned_at DESC, sweep_id DESC) = 1
    ),
    latest_attempt AS (
        SELECT * FROM ({COUNTING}) QUALIFY row_number() OVER (PARTITION BY trial_key ORDER BY attempt DESC) = 1
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
    failures AS (
        SELECT trial_key, attempt, 1 AS first_hand, finished_at AS happened_at,
               failure_class, error_type, error_signature, error
        FROM attempts WHERE status = 'failed' OR coalesce(failure_class, error_type, error) IS NOT NULL
        UNION ALL
        -- A planned trial with an error is one that is tried again.
        SELECT trial_key, attempt, 0, happened_at, failure_class, error_type, NULL, error
        FROM events
        WHERE status IN ('failed', 'lost', 'planned') AND coalesce(failure_class, error_type, error) IS NOT NULL
    ),
    -- A worker's own traceback says more than what the driver saw, so it comes first within an attempt.
    latest_failure AS (
        SELECT trial_key, attempt,
               {_FIRST_KNOWN}
        FROM failures GROUP BY trial_key, attempt
        QUALIFY row_number() OVER (PARTITION BY trial_key ORDER BY attempt DESC NULLS LAST) = 1
    )
    SELECT judged.trial_key,
           {", ".join(f"latest_plan.{name}" for name in _FROM_LATEST_PLAN)},
           {", ".join(f"first_plan.{name}" for name in _FROM_FIRST_PLAN)},
           judged.status,
           CASE WHEN NOT is_completed THEN judged.reason END AS stop_reason,
           {", ".join(f"CASE WHEN NOT is_completed THEN latest_failure.{name} END AS {name}" for name in _FAILURE)},
           coalesce(tries.attempts, 0) AS attempts,
           latest_attempt.params_total, latest_attempt.params_active, latest_attempt.params_trainable,
           spent.started_at,
           CASE WHEN judged.status NOT IN ('planned', 'running')
                THEN coalesce(latest_attempt.finished_at, judged.happened_at) END AS finished_at,
           spent.train_seconds, spent.startup_seconds, spent.gpu_seconds, spent.cpu_seconds,
           latest_attempt.checkpoint, latest_attempt.host, latest_attempt.device,
           latest_attempt.git_commit, latest_attempt.versions
    FROM judged
    LEFT JOIN first_plan USING (trial_key) LEFT JOIN latest_plan USING (trial_key)
    LEFT JOIN tries USING (trial_key) LEFT JOIN spent USING (trial_key)
    LEFT JOIN latest_attempt USING (trial_key) LEFT JOIN latest_failure USING (trial_key)
"""

_PLANNED = {column.name: column for column in TABLES["plans"]}

TRIALS_COLUMNS: tuple[Column, ...] = (
    *(_PLANNED[name] for name in ("trial_key", *_FROM_LATEST_PLAN, *_FROM_FIRST_PLAN)),
    *_TRIALS_EXTRA,
)
"""What the view's columns hold."""
