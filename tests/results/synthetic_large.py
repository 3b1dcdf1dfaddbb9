"""A grid of thousands of trials in a few parts: many seeds of the synthetic grid.

python tests/results/synthetic_large.py /tmp/storage 10000        # grid trials; what benchmarks/report.py measures
"""

from __future__ import annotations

import itertools
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from synthetic_ledger import DOMAINS, ORDERS, SHARES, START, SWEEP_ID, exact_match, plan_row, trial_key

from results.parts import write_part

_MODELS = ("distilbert", "exbert")
_WITH_PREDICTIONS = 96
_EXAMPLES = 100


def large_ledger(storage: Path, num_trials: int = 10_000) -> Path:
    """`num_trials` completed trials with three reports and two tests each; the first 96 also have answers."""
    cells = list(itertools.product(_MODELS, SHARES, ORDERS))
    trials = [(*cells[number % len(cells)], number // len(cells)) for number in range(num_trials)]
    keys = [trial_key(*trial) for trial in trials]
    named = list(zip(keys, trials, strict=True))
    write_part(storage, "plans", SWEEP_ID, [plan_row(*trial, SWEEP_ID) for trial in trials])
    write_part(storage, "attempts", "large-1", [_attempt(key, number) for number, key in enumerate(keys)])
    write_part(storage, "reports", "large-1", [_report(key, trial, epoch) for key, trial in named for epoch in (1, 2, 3)])
    write_part(storage, "evaluations", "large-1", [_evaluation(key, trial, d) for key, trial in named for d in DOMAINS])
    answers = [_answer(key, trial, d, i) for key, trial in named[:_WITH_PREDICTIONS] for d in DOMAINS for i in range(_EXAMPLES)]
    write_part(storage, "predictions", "large-1", answers)
    return storage


def _attempt(key: str, number: int) -> dict[str, Any]:
    began_at = START + timedelta(minutes=number)
    return {
        "trial_key": key,
        "attempt": 1,
        "sweep_id": SWEEP_ID,
        "status": "completed",
        "resumed_step": 0,
        "started_at": began_at,
        "finished_at": began_at + timedelta(seconds=50),
        "train_seconds": 45.0 + number % 10,
        "startup_seconds": 2.5,
        "gpu_seconds": 50.0,
        "cpu_seconds": 60.0,
        "host": "worker-1",
        "device": "NVIDIA H200",
        "git_commit": "0123abc",
        "versions": '{"python": "3.11.7"}',
    }


def _report(key: str, trial: tuple[str, int, str, int], epoch: int) -> dict[str, Any]:
    loss = 3.0 / (1 + epoch) + trial[1] / 1000
    losses = {"train_qa_loss": loss, "val_qa_loss": loss + 0.1}
    return {"trial_key": key, "attempt": 1, "step": 250 * epoch, "epoch": float(epoch), "wall_seconds": 15.0 * epoch, **losses}


def _evaluation(key: str, trial: tuple[str, int, str, int], domain: str) -> dict[str, Any]:
    em = exact_match(*trial, domain)
    scores = {"em": em, "f1": em + 8, "qa_loss": 1.5}
    return {"trial_key": key, "attempt": 1, "step": 750, "split": "test", "domain": domain, "examples": _EXAMPLES, **scores}


def _answer(key: str, trial: tuple[str, int, str, int], domain: str, number: int) -> dict[str, Any]:
    right = (number + trial[1] + len(trial[0])) % 3 != 0
    texts = {"question": f"What is question {number} of {domain}?", "gold": [f"answer {number}"]}
    answer = f"answer {number}" if right else f"another answer {number} by {trial[0]}"
    scores = {"prediction": answer, "score": 7.5, "em": float(right), "f1": 1.0 if right else 0.4}
    return {"trial_key": key, "attempt": 1, "domain": domain, "example_id": f"{domain}-{number}", **texts, **scores}


if __name__ == "__main__":
    large_ledger(Path(sys.argv[1]), int(sys.argv[2]))
