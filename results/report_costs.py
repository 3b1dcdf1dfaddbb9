"""The report's sections on what was spent, and on what failed."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from results.efficiency import efficiency_table
from results.report_frame import Section, Subject, html_table, ledger_figures
from results.spending import spending_table

__all__ = ["costs_section", "failures_section"]

_MOST_GROUPS = 20
_LONGEST_ERROR = 4_000
"""Characters of a traceback; its end says most."""


def costs_section(subject: Subject) -> Section | None:
    """What the slots of every sweep of the ledger were held for; None where nothing was planned."""
    table, notes = spending_table(subject.ledger)
    if not table.num_rows:
        return None
    efficiency, more = efficiency_table(subject.ledger, subject.sweep_id, by="model")
    values = {
        "efficiency": html_table(_named(efficiency), "Scores beside what they cost, by model", ".4g")
        if efficiency.num_rows
        else None,
        "spending": html_table(_by_sweep(table), "Where the slots' hours of each sweep went", ".2f"),
        "by_model": html_table(_without_zeros(subject.ledger.sql(_BY_MODEL)), "Hours by model and outcome, all sweeps", ".2f"),
        "notes": [*more, *notes],
    }
    return Section(name="costs", title="Cost", values=values, figures=ledger_figures(subject, _FIGURES))


_FIGURES = {
    "efficiency": "Points: exact match of each trial against the hours that it rests on; the line joins the Pareto set.",
    "spending": "Bars: where the hours of each sweep's slots went.",
}


_BY_MODEL = """
    SELECT coalesce(trainable, '?') AS model, status AS outcome, count(*) AS trials, sum(attempts)::BIGINT AS attempts,
           sum(train_seconds) / 3600 AS "training hours", sum(cpu_seconds) / 3600 AS "CPU hours",
           sum(gpu_seconds) / 3600 AS "GPU hours"
    FROM trials GROUP BY ALL ORDER BY ALL
"""


def _named(table: pa.Table) -> pa.Table:
    """Names that people read, and no columns without a value."""
    kept = [name for name in table.column_names if table[name].null_count < table.num_rows]
    return table.select(kept).rename_columns([name.replace("_", " ").replace("trainable", "model") for name in kept])


def _by_sweep(table: pa.Table) -> pa.Table:
    """One row a sweep, one column a kind."""
    rows: dict[str, dict[str, Any]] = {}
    for each in table.to_pylist():
        row = rows.setdefault(each["sweep_id"], {"sweep": each["sweep_id"], "hours": 0.0})
        row["hours"] += each["seconds"] / 3600
        row[f"{each['kind']} %"] = each["share"]
    return pa.Table.from_pylist(list(rows.values()))


def _without_zeros(table: pa.Table) -> pa.Table:
    """GPU hours only where there were GPUs."""
    return table if any(table["GPU hours"].to_pylist()) else table.drop_columns("GPU hours")


def failures_section(subject: Subject) -> Section | None:
    """The attempts that failed or were lost, grouped by the signature of their error; None where none did."""
    groups = subject.ledger.sql(_GROUPS, {"longest": _LONGEST_ERROR}).to_pylist()
    if not groups:
        return None
    values = {"groups": groups[:_MOST_GROUPS], "num_more": max(0, len(groups) - _MOST_GROUPS)}
    return Section(name="failures", title="Failures", values=values)


_GROUPS = """
    WITH ended AS (
        SELECT trial_key, coalesce(failure_class, status) AS class, error_type, error_signature AS signature, error, stop_reason
        FROM attempts WHERE status IN ('failed', 'lost')
        UNION ALL
        -- Trials that the driver gave up before a worker wrote a row.
        SELECT trial_key, coalesce(failure_class, status), error_type, error_signature, error, stop_reason
        FROM trials WHERE status IN ('failed', 'lost')
          AND trial_key NOT IN (SELECT trial_key FROM attempts WHERE status IN ('failed', 'lost'))
    )
    SELECT coalesce(signature, '') AS signature, class, coalesce(ended.error_type, '') AS error_type,
           count(*) AS attempts, count(DISTINCT trial_key) AS trials,
           count(DISTINCT trial_key) FILTER (trials.status = 'completed') AS completed,
           list_sort(list(DISTINCT trial_key))[:5] AS keys,
           list_sort(list(DISTINCT coalesce(trials.trainable, '?'))) AS models,
           max(right(ended.error, $longest)) AS error, max(ended.stop_reason) AS reason
    FROM ended JOIN trials USING (trial_key)
    GROUP BY ended.signature, ended.class, ended.error_type
    ORDER BY attempts DESC, signature, class, error_type
"""
