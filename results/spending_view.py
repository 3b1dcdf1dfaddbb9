"""The view `spending`: what each attempt's seconds were spent on, as SQL.

An attempt's time in the trainable is split at the point that the trial went on from afterwards. What came before that point is
kept, and is worth what became of the trial; the rest is worth what became of the attempt.
"""

from __future__ import annotations

import pyarrow as pa

from results.schema import TABLES, Column

__all__ = ["SPENDING", "SPENDING_COLUMNS"]

_ATTEMPTS = {column.name: column for column in TABLES["attempts"]}

SPENDING_COLUMNS: tuple[Column, ...] = (
    *(_ATTEMPTS[name] for name in ("trial_key", "attempt", "sweep_id", "run_id", "startup_seconds")),
    Column("useful_seconds", pa.float64(), "wall seconds in the trainable that a result rests on, or may yet"),
    Column("stopped_seconds", pa.float64(), "wall seconds in the trainable for trials that were stopped early"),
    Column("failed_seconds", pa.float64(), "wall seconds in the trainable that ended in an error"),
    Column("lost_seconds", pa.float64(), "wall seconds in the trainable that had to be repeated"),
)
"""What the view's columns hold."""

SPENDING = (
    """
    WITH counted AS (
        SELECT *, coalesce(train_seconds, 0) AS trained, coalesce(resumed_step, 0) AS began_at,
               status = 'stopped' AND NOT starts_with(coalesce(stop_reason, ''), 'asha') AS is_resumable,
               -- What was begun after the trial was complete can only repeat it.
               attempt <= coalesce(min(attempt) FILTER (status = 'completed') OVER (PARTITION BY trial_key), attempt) AS counts
        FROM attempts
    ),
    followed AS (
        -- The earliest point that any later attempt went back to; null where none came later.
        SELECT *, min(began_at) FILTER (counts) OVER (
            PARTITION BY trial_key ORDER BY attempt ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING
        ) AS resumed_at
        FROM counted
    ),
    reported AS (
        SELECT trial_key, attempt, max(step) AS last_step, max(wall_seconds) FILTER (step <= resumed_at) AS seconds_until
        FROM followed JOIN all_reports USING (trial_key, attempt) GROUP BY trial_key, attempt
    ),
    divided AS (
        SELECT followed.*, CASE
            WHEN NOT counts THEN 0
            WHEN resumed_at IS NULL THEN CASE WHEN status = 'running' OR is_resumable THEN trained ELSE 0 END
            WHEN resumed_at <= began_at THEN 0
            -- It wrote a checkpoint where it stopped, which is after its last report.
            WHEN is_resumable AND resumed_at >= coalesce(last_step, 0) THEN trained
            ELSE least(trained, coalesce(seconds_until, 0))
        END AS kept
        FROM followed LEFT JOIN reported USING (trial_key, attempt)
    ),
    labelled AS (
        SELECT divided.*,
               CASE WHEN trials.status = 'failed' THEN 'failed'
                    WHEN trials.status = 'stopped' AND starts_with(coalesce(trials.stop_reason, ''), 'asha') THEN 'stopped'
                    ELSE 'useful' END AS kept_as,
               CASE WHEN NOT counts THEN 'lost'
                    WHEN divided.status = 'completed' THEN 'useful'
                    WHEN divided.status IN ('failed', 'stopped') THEN divided.status
                    ELSE 'lost' END AS rest_as
        FROM divided LEFT JOIN trials USING (trial_key)
    )
    SELECT trial_key, attempt, sweep_id, run_id, coalesce(startup_seconds, 0) AS startup_seconds,
"""
    + ",\n".join(
        f"           CASE kept_as WHEN '{label}' THEN kept ELSE 0 END"
        f" + CASE rest_as WHEN '{label}' THEN trained - kept ELSE 0 END AS {label}_seconds"
        for label in ("useful", "stopped", "failed", "lost")
    )
    + "\n    FROM labelled\n"
)
