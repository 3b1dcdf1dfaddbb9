"""A grid whose every answer is known: a model answers an example right where the example is easy enough for its EM.

`em` gives percent for each trial and domain. Models meet the same examples, so that a better one has right what a worse one
has, but for a share of answers that are drawn anew for each trial.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from pathlib import Path

from synthetic_ledger import DOMAINS, ORDERS, SHARES, plan_row, trial_key

from results.parts import attempt_part, write_part

Trial = tuple[str, int, str, int]
"""Trainable, share, order, seed."""

SWEEP_ID = "answers-1"
NOISE = 0.04


def answers_ledger(
    storage: Path,
    em: Callable[[str, int, str, str], float],
    *,
    trainables: Collection[str] = ("distilbert", "exbert"),
    orders: Collection[str] = ORDERS,
    seeds: Collection[int] = (0,),
    num_questions: int = 250,
) -> Path:
    """Write the grid to `storage`; `em(trainable, share, order, domain)`. Every two examples form a group.

    V-DB's answers have four words more than needed, the others' one.
    """
    trials = [(t, share, order, seed) for t in trainables for order in orders for share in SHARES for seed in seeds]
    write_part(storage, "plans", SWEEP_ID, [plan_row(*trial, SWEEP_ID) for trial in trials])
    for trial in trials:
        key = trial_key(*trial)
        name = attempt_part(key, 1)
        attempt = {"trial_key": key, "attempt": 1, "sweep_id": SWEEP_ID, "status": "completed", "resumed_step": 0}
        write_part(storage, "attempts", name, [attempt])
        write_part(storage, "reports", name, _reports(key, trial[0]))
        rows = {d: _predictions(trial, d, em(*trial[:3], d), num_questions) for d in DOMAINS}
        write_part(storage, "predictions", name, [row for d in DOMAINS for row in rows[d]])
        write_part(storage, "evaluations", name, [_evaluation(key, d, [row["em"] for row in rows[d]]) for d in DOMAINS])
    return storage


def _predictions(trial: Trial, domain: str, em: float, num_questions: int) -> list[dict[str, object]]:
    common, own = random.Random(domain), random.Random(f"{trial}/{domain}")
    hardness = list(range(num_questions))
    common.shuffle(hardness)
    rows = []
    for number in range(2 * num_questions):
        right = hardness[number // 2] < em / 100 * num_questions
        if own.random() < NOISE:
            right = own.random() < em / 100
        extra = " and more words than needed" if trial[0] == "distilbert" else " more"
        rows.append(
            {
                "trial_key": trial_key(*trial),
                "attempt": 1,
                "domain": domain,
                "example_id": f"{domain}-{number:04}",
                "group_id": f"{domain}-{number // 2}",
                "question": f"What is {domain} {number}?",
                "gold": [f"the answer {number}"],
                "prediction": f"Answer {number}" + ("" if right else extra),
                "score": 1.0,
                "em": float(right),
                "f1": 1.0 if right else 0.5,
            }
        )
    return rows


def _evaluation(key: str, domain: str, right: list[object]) -> dict[str, object]:
    em = 100 * sum(float(str(value)) for value in right) / len(right)
    row = {"trial_key": key, "attempt": 1, "step": 9, "split": "test", "domain": domain}
    return {**row, "examples": len(right), "em": em, "f1": em + 1}


def _reports(key: str, trainable: str) -> list[dict[str, object]]:
    """Four epochs; the validation loss is lowest at epoch 3 for V-DB, at epoch 2 for the others."""
    lowest = 3 if trainable == "distilbert" else 2
    return [
        {"trial_key": key, "attempt": 1, "step": epoch, "epoch": float(epoch), "val_qa_loss": 1 + 0.1 * abs(epoch - lowest)}
        for epoch in (1, 2, 3, 4)
    ]
