"""Synthetic sweeps for the ledger's benchmark: seeded, vectorised, in the proportions of real ones.

A sweep is a grid of 96 trials with up to 120 reports each, about 10,600 report rows in all: 78 % of its trials completed, the
others stopped, failed, lost or still running; one trial in ten was preempted and went on from a checkpoint in a second attempt,
so that some rows are superseded. Losses are doubles of full precision, as real ones are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from ledger_design import (
    ARCHITECTURES,
    EPOCHS,
    FINGERPRINT,
    REPORTS,
    REPORTS_PER_EPOCH,
    STEPS_PER_REPORT,
    TRIALS,
    Attempts,
    Trials,
    make_attempts,
    make_trials,
    planned_at,
    sweep_id,
)
from ledger_texts import ERROR, EXAMPLES, SIGNATURES, answers, example_columns

from results.schema import arrow_schema

__all__ = ["DOMAINS", "EXPERTS", "STEPS_PER_EPOCH", "Asked", "Tables", "asked", "make_sweeps"]

Tables = dict[str, pa.Table]
"""The rows of one sweep, by ledger table."""

DOMAINS = ("squad", "bioasq")
EXPERTS = 8
STEPS_PER_EPOCH = REPORTS_PER_EPOCH * STEPS_PER_REPORT


@dataclass(frozen=True)
class Asked:
    """What the questions about single trials name: two completed trials and a test example."""

    trial: str
    other: str
    example: str


def make_sweeps(report_rows: int, seed: int) -> Iterator[Tables]:
    """Sweeps until they have at least `report_rows` rows in `reports`; the same seed gives the same bytes."""
    made = 0
    number = 0
    while made < report_rows:
        tables = _make_sweep(seed, number)
        made += tables["reports"].num_rows
        number += 1
        yield tables


def asked(seed: int) -> Asked:
    """Two trials that differ in architecture alone, both completed, the first one with experts; of the first sweep."""
    trials = make_trials(np.random.default_rng([seed, 0]), 0)
    done = trials.fate == "completed"
    pair = next(i for i in range(0, TRIALS, 2) if done[i] and done[i + 1])
    return Asked(trials.keys[pair + 1].as_py(), trials.keys[pair].as_py(), "bioasq-3")


def _make_sweep(seed: int, number: int) -> Tables:
    rng = np.random.default_rng([seed, number])
    trials = make_trials(rng, number)
    attempts = make_attempts(rng, trials)
    length = attempts.end - attempts.begin
    of_attempt = np.repeat(np.arange(len(length)), length)  # the attempt of each report
    report = attempts.begin[of_attempt] + 1 + np.arange(len(of_attempt)) - np.repeat(np.cumsum(length) - length, length)
    return {
        "plans": _plans(trials),
        "runs": _runs(trials, attempts),
        "events": _events(trials, attempts),
        "attempts": _attempt_rows(trials, attempts, rng),
        "reports": _reports(trials, attempts, of_attempt, report, rng),
        "evaluations": _evaluations(trials, attempts, of_attempt, report, rng),
        "routing": _routing(trials, attempts, of_attempt, report, rng),
        "predictions": _predictions(trials, attempts, rng),
    }


def _plans(trials: Trials) -> pa.Table:
    names = pa.array(ARCHITECTURES[trials.is_expert.astype(int)])
    return _table(
        "plans",
        TRIALS,
        trial_key=trials.keys,
        sweep_id=sweep_id(trials),
        sweep_kind="grid",
        preset="synthetic",
        planned_at=planned_at(trials),
        trainable=names,
        trainable_version=1,
        architecture=names,
        variant="",
        seed=trials.seed,
        config=trials.configs,
        data="{}",
        data_fingerprint=FINGERPRINT,
        domains=[list(DOMAINS)] * TRIALS,
        squad_share=trials.share,
        data_order=trials.order,
        mixture_size=4000,
        num_experts=pa.array(np.full(TRIALS, EXPERTS), mask=~trials.is_expert),
        learning_rate=trials.learning_rate,
        epochs=EPOCHS,
        batch_size=16,
        stage=1,
        parent_keys=[[]] * TRIALS,
    )


def _runs(trials: Trials, attempts: Attempts) -> pa.Table:
    wall = float((attempts.finished_at.max() - attempts.started_at.min()) / np.timedelta64(1, "s"))
    ended_at = attempts.finished_at.max().item().replace(tzinfo=UTC)
    return _table(
        "runs",
        1,
        run_id=f"{sweep_id(trials)}-run",
        sweep_id=sweep_id(trials),
        started_at=planned_at(trials),
        updated_at=ended_at,
        finished_at=ended_at,
        wall_seconds=wall,
        slots=16,
        gpus_per_trial=1.0,
        host="driver",
        pid=4242,
        ended="finished",
    )


def _events(trials: Trials, attempts: Attempts) -> pa.Table:
    """Each attempt's start, and its end where it has one."""
    ended = np.flatnonzero(attempts.status != "running")
    row = np.concatenate([np.arange(len(attempts.trial)), ended])
    is_end = np.arange(len(row)) >= len(attempts.trial)
    status = np.where(is_end, attempts.status[row], "running")
    reason = np.select([status == "stopped", status == "lost"], ["budget", "its worker vanished"], "")
    return _table(
        "events",
        len(row),
        trial_key=trials.keys.take(attempts.trial[row]),
        sweep_id=sweep_id(trials),
        attempt=attempts.attempt[row],
        status=status,
        happened_at=np.where(is_end, attempts.finished_at[row], attempts.started_at[row]),
        host="driver",
        reason=pa.array(reason, mask=reason == ""),
    )


def _attempt_rows(trials: Trials, attempts: Attempts, rng: np.random.Generator) -> pa.Table:
    status = attempts.status
    size = len(status)
    signature = np.array(list(SIGNATURES))[rng.integers(0, len(SIGNATURES), size)]
    classes = np.array([SIGNATURES[name] for name in signature])
    has_class = np.isin(status, ["failed", "lost"])
    held = attempts.startup_seconds + attempts.train_seconds
    is_running, is_ok = status == "running", status != "failed"
    return _table(
        "attempts",
        size,
        trial_key=trials.keys.take(attempts.trial),
        attempt=attempts.attempt,
        sweep_id=sweep_id(trials),
        run_id=f"{sweep_id(trials)}-run",
        status=status,
        stop_reason=pa.array(np.full(size, "budget"), mask=status != "stopped"),
        resumed_step=attempts.begin * STEPS_PER_REPORT,
        params_total=np.where(trials.is_expert[attempts.trial], 94_725_890, 66_364_418),
        params_active=66_364_418,
        params_trainable=66_364_418,
        started_at=attempts.started_at,
        finished_at=pa.array(attempts.finished_at, mask=is_running),
        train_seconds=attempts.train_seconds,
        startup_seconds=attempts.startup_seconds,
        gpu_seconds=held,
        cpu_seconds=held * rng.uniform(1.0, 1.2, size),
        peak_memory_bytes=rng.integers(2_000_000_000, 3_000_000_000, size),
        host=np.array([f"worker-{i}" for i in range(16)])[rng.integers(0, 16, size)],
        device="NVIDIA H200",
        num_threads=1,
        micro_batches=1,
        code_hash="c" * 64,
        git_commit="0123abc",
        versions='{"python": "3.11.7", "torch": "2.13.0"}',
        failure_class=pa.array(np.where(status == "failed", classes, "preempted"), mask=~has_class),
        error_type=pa.array(np.full(size, "RuntimeError"), mask=is_ok),
        error_signature=pa.array(signature, mask=is_ok),
        error=pa.array([ERROR.format(name) for name in signature], mask=is_ok),
    )


def _reports(
    trials: Trials, attempts: Attempts, of_attempt: np.ndarray, report: np.ndarray, rng: np.random.Generator
) -> pa.Table:
    """A repeated report has the bits of the first one: a value depends on trial and report alone."""
    trial = attempts.trial[of_attempt]
    at = (trial, report - 1)
    noise = rng.normal(0, 0.05, (5, TRIALS, REPORTS))
    floor = rng.uniform(1.0, 1.6, TRIALS)[trial]
    fitted = floor + 2.5 * np.exp(-report / 40) - 0.1 * trials.is_expert[trial]
    is_dense = ~trials.is_expert[trial]
    share = (report - attempts.begin[of_attempt]) / (attempts.end - attempts.begin)[of_attempt]
    return _table(
        "reports",
        len(report),
        **_ids(trials, attempts, of_attempt, report),
        epoch=report / REPORTS_PER_EPOCH,
        samples_seen=report * STEPS_PER_REPORT * 16,
        wall_seconds=attempts.train_seconds[of_attempt] * share,
        train_qa_loss=fitted + noise[0][at],
        train_aux_loss=pa.array(0.01 + 0.02 * np.abs(noise[1][at]), mask=is_dense),
        balance_loss=pa.array(0.5 + noise[2][at], mask=is_dense),
        router_z_loss=pa.array(2.0 + noise[3][at], mask=is_dense),
        val_qa_loss=fitted + 0.15 + 0.004 * np.maximum(report - 50, 0) + noise[4][at],
        learning_rate=trials.learning_rate * (1 - report / REPORTS),
        extra=pa.MapArray.from_arrays(
            np.zeros(len(report) + 1, np.int32), pa.array([], pa.string()), pa.array([], pa.float64())
        ),
    )


def _evaluations(
    trials: Trials, attempts: Attempts, of_attempt: np.ndarray, report: np.ndarray, rng: np.random.Generator
) -> pa.Table:
    """At the end of each epoch on validation, at the end of a trial on test; once for each domain."""
    levels = rng.normal(0, 1.5, (TRIALS, EPOCHS, 2, 2))
    parts = [(row, "val") for row in [np.flatnonzero(report % REPORTS_PER_EPOCH == 0)]]
    parts.append((np.flatnonzero(report == REPORTS), "test"))
    row = np.repeat(np.concatenate([rows for rows, _ in parts]), 2)
    split = np.repeat(np.concatenate([np.full(len(rows), name) for rows, name in parts]), 2)
    domain = np.tile([0, 1], len(row) // 2)
    trial = attempts.trial[of_attempt[row]]
    own = np.where(domain == 0, trials.share[trial], 100 - trials.share[trial]) / 100
    shift = levels[trial, report[row] // REPORTS_PER_EPOCH - 1, domain, (split == "test").astype(int)]
    em = np.clip(np.round(10 + 55 * own**0.4 + 4 * trials.is_expert[trial] + shift, 3), 0, 100)
    order = np.lexsort([domain, split, report[row], of_attempt[row]])
    columns: dict[str, Any] = {
        "examples": np.where(split == "test", 1000, 400),
        "qa_loss": 4.0 - em / 30,
        "em": em,
        "f1": em + 8.25,
        "em_raw": em - 2.5,
        "contains_gold": em + 5.0,
        "mean_answer_tokens": 3.0 + shift / 10,
    }
    return _table(
        "evaluations",
        len(row),
        **_ids(trials, attempts, of_attempt[row[order]], report[row[order]]),
        split=split[order],
        domain=np.array(DOMAINS)[domain[order]],
        **{name: values[order] for name, values in columns.items()},
    )


def _routing(
    trials: Trials, attempts: Attempts, of_attempt: np.ndarray, report: np.ndarray, rng: np.random.Generator
) -> pa.Table:
    """One expert layer, at the end of each epoch, for each domain and expert."""
    load, gate = (rng.dirichlet(np.full(EXPERTS, 2.0), (TRIALS, EPOCHS, 2)) for _ in range(2))
    at_epoch = np.flatnonzero((report % REPORTS_PER_EPOCH == 0) & trials.is_expert[attempts.trial[of_attempt]])
    row = np.repeat(at_epoch, 2 * EXPERTS)
    domain, expert = (np.tile(grid.ravel(), len(at_epoch)) for grid in np.indices((2, EXPERTS)))
    at = (attempts.trial[of_attempt[row]], report[row] // REPORTS_PER_EPOCH - 1, domain, expert)
    return _table(
        "routing",
        len(row),
        **_ids(trials, attempts, of_attempt[row], report[row]),
        split="val",
        domain=np.array(DOMAINS)[domain],
        layer=0,
        expert=expert,
        load_share=load[at],
        mean_gate=gate[at],
        dropped_share=np.maximum(0.0, load[at] - 0.2),
    )


def _predictions(trials: Trials, attempts: Attempts, rng: np.random.Generator) -> pa.Table:
    """Of the attempts that completed, on the same test examples."""
    done = np.flatnonzero(attempts.status == "completed")
    row = np.repeat(done, 2 * EXAMPLES)
    example = np.tile(np.arange(2 * EXAMPLES), len(done))
    is_right = rng.random(len(row)) < 0.6
    return _table(
        "predictions",
        len(row),
        trial_key=trials.keys.take(attempts.trial[row]),
        attempt=attempts.attempt[row],
        **{name: values.take(example) for name, values in example_columns(DOMAINS).items()},
        prediction=answers(example, is_right, rng),
        score=rng.normal(8, 2, len(row)),
        em=is_right.astype(float),
        f1=np.where(is_right, 1.0, np.round(rng.uniform(0, 0.6, len(row)), 2)),
    )


def _ids(trials: Trials, attempts: Attempts, of_attempt: np.ndarray, report: np.ndarray) -> dict[str, Any]:
    return {
        "trial_key": trials.keys.take(attempts.trial[of_attempt]),
        "attempt": attempts.attempt[of_attempt],
        "step": report * STEPS_PER_REPORT,
    }


def _table(name: str, size: int, **columns: Any) -> pa.Table:
    """Rows of a ledger table; a scalar holds in every row, and a column that is not given is null."""
    schema = arrow_schema(name)
    arrays = []
    for field in schema:
        value = columns.pop(field.name, None)
        if value is None or isinstance(value, str | int | float | datetime):
            arrays.append(pa.repeat(pa.scalar(value, field.type), size))
        else:
            arrays.append(value.cast(field.type) if isinstance(value, pa.Array) else pa.array(value).cast(field.type))
    assert not columns, f"{name} has no {', '.join(columns)}"
    return pa.Table.from_arrays(arrays, schema=schema)
