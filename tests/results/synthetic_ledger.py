"""A ledger with plausible numbers, written through `write_part`: the grid's 24 trials, or a damaged subset of them.

python tests/results/synthetic_ledger.py /tmp/storage        # to look at figures and the report
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from results import identity
from results.parts import attempt_part, write_part

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
SHARES = (0, 20, 40, 60, 80, 100)
ORDERS = ("concatenated", "shuffled")
DOMAINS = ("squad", "bioasq")
EXAMPLES = 12
SWEEP_ID = "grid-1"
RUN_ID = "grid-1-run"
FINGERPRINT = "f" * 64


def trial_key(trainable: str, share: int, order: str, seed: int) -> str:
    """The key that the trial's plan row gives."""
    architecture, _, variant = trainable.partition(":")
    return identity.trial_key(architecture, 1, _config(variant, share, order), FINGERPRINT, seed, ())


def _config(variant: str, share: int, order: str) -> dict[str, Any]:
    return {"epochs": 3, "order": order, "share": share, "variant": variant}


def plan_row(trainable: str, share: int, order: str, seed: int, sweep_id: str, planned_at: datetime = START) -> dict[str, Any]:
    """One row of `plans`."""
    architecture, _, variant = trainable.partition(":")
    return {
        "trial_key": trial_key(trainable, share, order, seed),
        "sweep_id": sweep_id,
        "sweep_kind": "grid",
        "preset": "synthetic",
        "planned_at": planned_at,
        "trainable": trainable,
        "trainable_version": 1,
        "architecture": architecture,
        "variant": variant,
        "seed": seed,
        "config": identity.canonical_json(_config(variant, share, order)),
        "data_fingerprint": FINGERPRINT,
        "domains": list(DOMAINS),
        "squad_share": share,
        "domain_examples": [40 * share, 4000 - 40 * share],
        "data_order": order,
        "mixture_size": 4000,
        "num_experts": 8 if architecture == "exbert" else None,
        "learning_rate": 2e-5,
        "epochs": 3,
        "batch_size": 16,
        "stage": 1,
        "parent_keys": [],
    }


def exact_match(trainable: str, share: int, order: str, seed: int, domain: str) -> float:
    """Percent; rises with the domain's share, a little higher for ExBERT, with noise from a seeded generator."""
    own = share if domain == "squad" else 100 - share
    top, floor = (52.0, 5.0) if domain == "squad" else (68.0, 38.0)
    gains = {"distilbert": 0.0, "exbert": 1.0, "exbert:tuned": 9.0, "distilbert:searched": 3.0, "exbert:searched": 8.0}
    gain = gains[trainable]
    noise = random.Random(f"{trainable}/{share}/{order}/{seed}/{domain}").uniform(-0.6, 0.6)
    return round(floor + (top - floor) * (own / 100) ** 0.4 + gain + noise, 3)


def synthetic_ledger(
    storage: Path,
    *,
    trainables: Collection[str] = ("distilbert", "exbert"),
    orders: Collection[str] = ORDERS,
    shares: Collection[int] = SHARES,
    seeds: Collection[int] = (0,),
    failed: Collection[tuple[str, int, str, int]] = (),
    planned: Collection[tuple[str, int, str, int]] = (),
) -> Path:
    """Write a grid's ledger to `storage`; the trials in `failed` end with an error, those in `planned` never start."""
    trials = [(t, share, order, seed) for t in trainables for order in orders for share in shares for seed in seeds]
    write_part(storage, "plans", SWEEP_ID, [plan_row(*trial, SWEEP_ID) for trial in trials])
    events = []
    for number, trial in enumerate(trials):
        if trial not in planned:
            status = "failed" if trial in failed else "completed"
            events += _events(trial, status, START + timedelta(minutes=number))
            _write_attempt(storage, trial, status, START + timedelta(minutes=number))
    write_part(storage, "events", f"driver-{SWEEP_ID}", events)
    write_part(storage, "runs", RUN_ID, [_run_row(len(trials))])
    return storage


def _run_row(num_trials: int) -> dict[str, Any]:
    """A run on one slot, in which a trial of 48 seconds began every minute."""
    ended_at = START + timedelta(minutes=num_trials)
    return {
        "run_id": RUN_ID,
        "sweep_id": SWEEP_ID,
        "started_at": START,
        "updated_at": ended_at,
        "finished_at": ended_at,
        "wall_seconds": 60.0 * num_trials,
        "slots": 1,
        "gpus_per_trial": 1.0,
        "probed_device": "NVIDIA H200",
        "probed_bytes": 90 * 2**30,
        "probed_total_bytes": 139 * 2**30,
        "host": "driver",
        "pid": 4242,
        "ended": "finished",
    }


def _events(trial: tuple[str, int, str, int], status: str, at: datetime) -> list[dict[str, Any]]:
    row = {"trial_key": trial_key(*trial), "sweep_id": SWEEP_ID, "attempt": 1, "host": "driver"}
    return [
        {**row, "status": "running", "happened_at": at},
        {**row, "status": status, "happened_at": at + timedelta(seconds=50)},
    ]


def _write_attempt(storage: Path, trial: tuple[str, int, str, int], status: str, at: datetime) -> None:
    key = trial_key(*trial)
    name = attempt_part(key, 1)
    attempt = {
        "trial_key": key,
        "attempt": 1,
        "sweep_id": SWEEP_ID,
        "run_id": RUN_ID,
        "status": status,
        "resumed_step": 0,
        "params_total": 94_725_890 if trial[0].startswith("exbert") else 66_364_418,
        "params_trainable": 66_364_418,
        "started_at": at,
        "finished_at": at + timedelta(seconds=50),
        "train_seconds": 45.5,
        "startup_seconds": 2.5,
        "gpu_seconds": 50.0,
        "cpu_seconds": 60.0,
        "host": "worker-1",
        "node_id": "c0ffee",
        "device": "NVIDIA H200",
        "micro_batches": 1,
        "git_commit": "0123abc",
        "versions": json.dumps({"python": "3.11.7", "torch": "2.13.0"}),
        "failure_class": "oom" if status == "failed" else None,
        "error_signature": "0a1b2c3d" if status == "failed" else None,
        "error_type": "RuntimeError" if status == "failed" else None,
        "error": "Traceback …\nRuntimeError: out of <memory>" if status == "failed" else None,
    }
    write_part(storage, "attempts", name, [attempt])
    write_part(storage, "reports", name, [_report(key, step) for step in (250, 500, 750)])
    if status == "completed":
        write_part(storage, "evaluations", name, [_evaluation(trial, domain) for domain in DOMAINS])
        write_part(storage, "predictions", name, [_prediction(trial, d, i) for d in DOMAINS for i in range(EXAMPLES)])


def _report(key: str, step: int) -> dict[str, Any]:
    return {
        "trial_key": key,
        "attempt": 1,
        "step": step,
        "epoch": step / 250,
        "samples_seen": step * 16,
        "wall_seconds": step / 20,
        "train_qa_loss": 3.0 / (1 + step / 250),
        "val_qa_loss": 3.2 / (1 + step / 300),
        "learning_rate": 2e-5,
        "extra": {"grad_norm": 1.5},
    }


def _evaluation(trial: tuple[str, int, str, int], domain: str) -> dict[str, Any]:
    em = exact_match(*trial, domain)
    return {
        "trial_key": trial_key(*trial),
        "attempt": 1,
        "step": 750,
        "split": "test",
        "domain": domain,
        "examples": EXAMPLES,
        "qa_loss": 1.5,
        "em": em,
        "f1": em + 8,
        "em_raw": em - 2,
        "contains_gold": em + 5,
        "mean_answer_tokens": 3.2,
    }


def _prediction(trial: tuple[str, int, str, int], domain: str, number: int) -> dict[str, Any]:
    right = (number + len(trial[0])) % 3 != 0
    return {
        "trial_key": trial_key(*trial),
        "attempt": 1,
        "domain": domain,
        "example_id": f"{domain}-{number}",
        "group_id": f"{number:016x}",
        "question": f"What is <b>answer</b> {number} in {domain}?",
        "gold": [f"answer {number}", f"the answer {number}"],
        "prediction": f"answer {number}" if right else f"a longer answer {number} by {trial[0]}",
        "score": 7.5,
        "em": float(right),
        "f1": 1.0 if right else 0.4,
    }


if __name__ == "__main__":
    synthetic_ledger(Path(sys.argv[1]), trainables=("distilbert", "exbert", "exbert:tuned"), seeds=(0, 1, 2))
