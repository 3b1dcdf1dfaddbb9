"""What must hold between the ledger's rows, as checks that name each exception.

`results.verify` adds what must hold of the files.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from results.compacted import compacted_attempts
from results.identity import trial_key
from results.ledger import Ledger
from results.parts import attempt_part
from results.schema import TABLES
from results.storage import Storage
from results.trials_view import RECORD_MISSING
from results.views import raw_name

__all__ = ["Finding", "check_rows", "completed_paths", "step_checkpoints"]

_STATUSES = ("planned", "running", "completed", "stopped", "failed", "lost")
_STEP = "step-"  # what the names of a trial's checkpoints begin with; the steps have leading zeros


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `moves` and `unplanned` tell a repair what to put away."""

    kind: str
    where: str
    """A path below the storage, a trial or a sweep."""
    what: str
    todo: str
    moves: tuple[str, ...] = ()
    """Files below the storage that must not count any more; parts also where they have become rows of a compacted file."""
    unplanned: str | None = None
    """A trial key whose rows must not count any more, wherever they are."""


def check_rows(ledger: Ledger, frozen_keys: Mapping[str, Collection[str]]) -> Iterator[Finding]:
    """Everything that is wrong with the readable rows; `frozen_keys` are the trials of each readable `sweep.json`."""
    yield from _wrong_keys(ledger)
    yield from _unplanned(ledger, frozen_keys)
    yield from _unplanned_decisions(ledger)
    yield from _unaccounted(ledger)
    yield from _incomplete(ledger)
    yield from _step_order(ledger)
    yield from _missing_checkpoints(ledger)


def completed_paths(storage: Storage, key: str, attempts: Collection[int]) -> tuple[str, ...]:
    """The parts of a trial's completed attempts, compacted or not, relative to the storage: without them it begins anew.

    Checkpoints of steps are among them, should any be left: going on from one, the trial would lack the reports before it.
    """
    tables = [table for table, columns in TABLES.items() if "attempt" in {column.name for column in columns}]
    wanted = {attempt_part(key, number) for number in attempts}
    paths = []
    for table in tables:
        compacted = {held["part"] for held in compacted_attempts(storage, table, key)}
        there = wanted & (storage.part_names(table) | compacted)
        paths += [storage.relative(storage.part_path(table, part)) for part in sorted(there)]
    return (*paths, *step_checkpoints(storage, key))


def step_checkpoints(storage: Storage, key: str) -> tuple[str, ...]:
    """A trial's checkpoints of steps, relative to the storage."""
    files = storage.files(f"checkpoints/{key}")
    return tuple(storage.relative(info.path) for info in files if info.base_name.startswith(_STEP))


def _wrong_keys(ledger: Ledger) -> Iterator[Finding]:
    for plan in ledger.sql("SELECT * FROM plans ORDER BY sweep_id, trial_key").to_pylist():
        derived = _derived_key(plan)
        if derived != plan["trial_key"]:
            yield Finding(
                "wrong key",
                f"plans of {plan['sweep_id']}, trial {plan['trial_key']}",
                f"its configuration, version, data, seed and parents give the key {derived}",
                "do not trust the row; plan the sweep again and compare",
            )


def _derived_key(plan: Mapping[str, Any]) -> str:
    try:
        return trial_key(
            plan["architecture"],
            plan["trainable_version"],
            json.loads(plan["config"] or ""),
            plan["data_fingerprint"],
            plan["seed"],
            plan["parent_keys"] or (),
        )
    except ValueError as error:
        return f"none: {error}"


_ROWS_WITHOUT_PLAN = " UNION ALL ".join(
    f"SELECT trial_key, {'sweep_id' if table in ('events', 'attempts') else 'NULL'} AS sweep_id, '{table}' AS stored "
    f"FROM {raw_name(table)}"
    for table in ("events", "attempts", "reports", "evaluations", "predictions", "routing")
)


def _unplanned(ledger: Ledger, frozen_keys: Mapping[str, Collection[str]]) -> Iterator[Finding]:
    """Rows of trials in no plan. Where the sweep they name has no plan at all, it is the plan that is missing, not a trial."""
    sweeps = set(ledger.sql("SELECT DISTINCT sweep_id FROM plans").column(0).to_pylist()) | set(frozen_keys)
    planned = {key for keys in frozen_keys.values() for key in keys}
    rows = ledger.sql(f"""
        SELECT trial_key, list(DISTINCT sweep_id) FILTER (sweep_id IS NOT NULL) AS sweeps,
               list_sort(list(DISTINCT stored)) AS tables, count(*) AS num_rows
        FROM ({_ROWS_WITHOUT_PLAN}) WHERE trial_key NOT IN (SELECT trial_key FROM plans) GROUP BY trial_key ORDER BY trial_key
    """).to_pylist()
    without_plan: dict[str, int] = {}
    for row in rows:
        lost_plans = [sweep for sweep in row["sweeps"] or () if sweep not in sweeps]
        for sweep in lost_plans:
            without_plan[sweep] = without_plan.get(sweep, 0) + 1
        if not lost_plans and row["trial_key"] not in planned:
            yield Finding(
                "nobody planned it",
                f"trial {row['trial_key']}",
                f"{row['num_rows']} rows in {', '.join(row['tables'])}, and no plan has the trial",
                "--repair puts the rows away",
                unplanned=row["trial_key"],
            )
    for sweep, count in sorted(without_plan.items()):
        yield Finding(
            "plan missing",
            f"sweep {sweep}",
            f"{count} trials were run for it, and the ledger has no plan of it",
            "run the sweep's command again: it writes the plan, and nothing that is done runs again",
        )


def _unplanned_decisions(ledger: Ledger) -> Iterator[Finding]:
    """Decisions on trials in no plan, and those of a search that has no row of its own."""
    rows = ledger.sql("""
        SELECT sweep_id, trial_key, count(*) AS num_rows FROM decisions
        WHERE trial_key NOT IN (SELECT trial_key FROM plans) GROUP BY ALL ORDER BY ALL
    """).to_pylist()
    for row in rows:
        yield Finding(
            "decision without plan",
            f"search {row['sweep_id']}, trial {row['trial_key']}",
            f"{row['num_rows']} decisions on it, and no plan has the trial",
            "run the search's command again: it plans what it suggested",
        )
    query = "SELECT DISTINCT sweep_id FROM decisions WHERE sweep_id NOT IN (SELECT sweep_id FROM searches) ORDER BY sweep_id"
    for sweep_id in ledger.sql(query).column(0).to_pylist():
        yield Finding(
            "search missing",
            f"search {sweep_id}",
            "its decisions are there, and what it searches is not",
            "run the search's command again: it writes the row",
        )


def _unaccounted(ledger: Ledger) -> Iterator[Finding]:
    """Each planned trial has one status of the known ones, and what its events call complete has a record."""
    rows = ledger.sql("""
        SELECT DISTINCT trial_key, status, stop_reason
        FROM (SELECT DISTINCT trial_key FROM plans) LEFT JOIN trials USING (trial_key) ORDER BY trial_key, status
    """).to_pylist()
    put_away = {info.base_name.rpartition("-")[0] for info in ledger.storage.files("quarantine/ledger/attempts")}
    for row in rows:
        key = row["trial_key"]
        if row["status"] not in _STATUSES:
            known = ", ".join(_STATUSES)
            yield Finding(
                "not accounted for",
                f"trial {key}",
                f"its status must be one of {known}, got {row['status']!r}",
                "look at its events",
            )
        elif row["stop_reason"] == RECORD_MISSING and key not in put_away:
            yield Finding(
                "record missing",
                f"trial {key}",
                "its events say that it was completed, and no attempt of it does",
                "run the sweep again: the trial counts as lost and runs again",
            )


_COMPLETED_SCORES = """
    WITH done AS (
        SELECT trial_key, min(attempt) AS attempt, list(attempt) AS attempts
        FROM attempts WHERE status = 'completed' GROUP BY trial_key
    ),
    tested AS (
        SELECT trial_key, domain, step, examples FROM evaluations WHERE split = 'test'
        QUALIFY row_number() OVER (PARTITION BY trial_key, domain ORDER BY step DESC) = 1
    ),
    answered AS (SELECT trial_key, domain, count(*) AS answers FROM predictions GROUP BY trial_key, domain),
    expected AS (
        SELECT trial_key, unnest(domains) AS domain FROM plans
        UNION SELECT trial_key, domain FROM tested UNION SELECT trial_key, domain FROM answered
    )
    SELECT trial_key, done.attempts, domain, tested.examples, coalesce(answered.answers, 0) AS answers,
           reports.step IS NOT NULL AS is_reported
    FROM done JOIN expected USING (trial_key)
    LEFT JOIN tested USING (trial_key, domain) LEFT JOIN answered USING (trial_key, domain)
    LEFT JOIN reports ON reports.trial_key = done.trial_key AND reports.step = tested.step
    ORDER BY trial_key, domain
"""


def _incomplete(ledger: Ledger) -> Iterator[Finding]:
    """Completed trials without all of their test scores and answers."""
    missing: dict[str, list[str]] = {}
    attempts: dict[str, list[int]] = {}
    for row in ledger.sql(_COMPLETED_SCORES).to_pylist():
        for what in _missing_of(row):
            missing.setdefault(row["trial_key"], []).append(f"{row['domain']}: {what}")
            attempts[row["trial_key"]] = row["attempts"]
    for key, faults in missing.items():
        yield Finding(
            "incomplete trial",
            f"trial {key}",
            f"it counts as completed, but {'; '.join(faults)}",
            "--repair puts that attempt away; the sweep's command then runs the trial again",
            moves=completed_paths(ledger.storage, key, attempts[key]),
        )


def _missing_of(row: Mapping[str, Any]) -> Iterator[str]:
    if row["examples"] is None:
        yield "no test evaluation"
    elif row["answers"] != row["examples"]:
        yield f"{row['answers']} predictions for {row['examples']} examples"
    if row["examples"] is not None and not row["is_reported"]:
        yield "no report at the step of its test"


def _step_order(ledger: Ledger) -> Iterator[Finding]:
    """Steps strictly increase, by the clock of the attempt that reported them, beginning after the step it resumed from."""
    rows = ledger.sql("""
        SELECT trial_key, attempt, step, before FROM (
            SELECT trial_key, attempt, step, coalesce(lag(step) OVER in_time, resumed_step, 0) AS before
            FROM all_reports LEFT JOIN (SELECT trial_key, attempt, resumed_step FROM attempts) USING (trial_key, attempt)
            WINDOW in_time AS (PARTITION BY trial_key, attempt ORDER BY wall_seconds, step)
        ) WHERE step <= before
        QUALIFY row_number() OVER (PARTITION BY trial_key, attempt ORDER BY step) = 1 ORDER BY trial_key, attempt
    """).to_pylist()
    for row in rows:
        yield Finding(
            "steps not in order",
            f"trial {row['trial_key']}, attempt {row['attempt']}",
            f"a report at step {row['step']} follows step {row['before']}",
            "look at its rows in all_reports; its trainable must report increasing steps",
        )


def _missing_checkpoints(ledger: Ledger) -> Iterator[Finding]:
    rows = ledger.sql("""
        SELECT trial_key, trials.status, attempts.checkpoint
        FROM attempts JOIN trials USING (trial_key)
        QUALIFY row_number() OVER (PARTITION BY trial_key ORDER BY attempt DESC) = 1 ORDER BY trial_key
    """).to_pylist()
    for row in rows:
        if row["checkpoint"] and not _is_there(ledger.storage, row["checkpoint"]):
            done = row["status"] == "completed"
            yield Finding(
                "checkpoint missing",
                row["checkpoint"],
                f"attempts names it as the newest of trial {row['trial_key']}, which is {row['status']}",
                "put it back if anything is to use its weights; its scores stand" if done else "nothing: the trial starts over",
            )


def _is_there(storage: Storage, checkpoint: str) -> bool:
    """True also for a checkpoint that its trial has replaced since: the row is written with the next report."""
    if storage.stamp(storage.path(checkpoint)) is not None:
        return True
    folder, _, name = checkpoint.rpartition("/")
    steps = [info.base_name for info in storage.files(folder) if info.base_name.startswith(_STEP)]
    return name.startswith(_STEP) and any(step > name for step in steps)
