"""Searches with plausible numbers, written row by row: one with early stopping at rungs, and a small narrowing.

python tests/results/synthetic_search.py /tmp/storage        # to look at figures and the report
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from synthetic_ledger import DOMAINS, EXAMPLES, FINGERPRINT, START

from results import identity
from results.parts import attempt_part, write_part

NUM_TRIALS = 36
RUNGS = (1.0, 3.0)
ETA = 3
MAX_EPOCHS = 5
FAILED = 11
DIVERGED = 17
RUNNING = NUM_TRIALS - 1
SEARCH_ID = "search-1"
NARROWING_ID = "narrowing-1"

Point = dict[str, Any]

SPACE = {
    "name": "exbert",
    "trainable": "exbert",
    "fixed": {"training.batch_size": 16},
    "dimensions": {
        "model.n_layers": {"kind": "int", "low": 3, "high": 6, "step": 1, "log": False, "when": None},
        "training.learning_rate": {"kind": "float", "low": 1e-5, "high": 1.1e-4, "log": True, "when": None},
        "model.dropout_placement": {"kind": "choice", "values": ["none", "before", "after"], "when": None},
        "model.moe_dropout": {
            "kind": "choice",
            "values": [0.1, 0.3],
            "when": {"dimension": "model.dropout_placement", "values": ["before", "after"]},
        },
    },
}

NARROWING_START = {"model.n_layers": 6, "training.learning_rate": 2e-5, "model.num_experts": 8}
STAGES = {"blocks": ("model.n_layers", [3, 4, 5, 6]), "learning_rate": ("training.learning_rate", [1e-5, 2e-5, 4e-5, 1e-4])}


def val_loss(point: Point, epoch: float) -> float:
    """Nats; lowest with 4 blocks and a rate of 6e-5, and rising after epoch 3 where the rate is high."""
    rate = math.log(point["training.learning_rate"] / 6e-5)
    floor = 1.2 + 0.09 * abs(point["model.n_layers"] - 4) + 0.16 * rate**2
    floor += {"none": 0.05, "before": 0.0, "after": 0.03}[point.get("model.dropout_placement", "none")]
    floor += 0.04 if point.get("model.moe_dropout") == 0.3 else 0.0
    noise = random.Random(f"{sorted(point.items())}/{epoch}").uniform(-0.03, 0.03)
    overfits = 0.05 * max(0.0, epoch - 3) * max(0.0, rate + 0.5)
    return round(floor + 1.8 * math.exp(-1.1 * epoch) + overfits + noise, 4)


class _Writer:
    """Rows of one search in the order in which its driver decided."""

    def __init__(self, sweep_id: str, storage: Path, began_at: datetime) -> None:
        self.sweep_id, self.storage, self.now = sweep_id, storage, began_at
        self.decisions: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.num_plans = 0

    def decide(self, kind: str, number: int, key: str, **columns: Any) -> None:
        self.now += timedelta(seconds=5)
        row = {"sweep_id": self.sweep_id, "sequence": len(self.decisions), "run_id": f"{self.sweep_id}-run", "kind": kind}
        self.decisions.append({**row, "happened_at": self.now, "number": number, "trial_key": key, **columns})

    def event(self, key: str, status: str, **columns: Any) -> None:
        row = {"trial_key": key, "sweep_id": self.sweep_id, "attempt": 1, "host": "driver", "happened_at": self.now}
        self.events.append({**row, "status": status, **columns})

    def plan(self, point: Point) -> str:
        """Puts the trial into `plans`, in a part of its own."""
        config = {"epochs": MAX_EPOCHS, **point}
        key = identity.trial_key("exbert", 1, config, FINGERPRINT, 0, ())
        row = {
            "trial_key": key,
            "sweep_id": self.sweep_id,
            "sweep_kind": "search",
            "preset": "synthetic",
            "planned_at": self.now,
            "trainable": "exbert",
            "trainable_version": 1,
            "architecture": "exbert",
            "variant": "",
            "seed": 0,
            "config": identity.canonical_json(config),
            "data_fingerprint": FINGERPRINT,
            "domains": list(DOMAINS),
            "squad_share": 80,
            "data_order": "shuffled",
            "mixture_size": 4000,
            "n_layers": point["model.n_layers"],
            "num_experts": 8,
            "learning_rate": point["training.learning_rate"],
            "epochs": MAX_EPOCHS,
            "batch_size": 16,
            "stage": 1,
            "parent_keys": [],
        }
        write_part(self.storage, "plans", f"{self.sweep_id}-{self.num_plans}", [row])
        self.num_plans += 1
        return key

    def attempt(self, key: str, status: str, point: Point, epochs: float, stop_reason: str | None = None) -> None:
        name, steps = attempt_part(key, 1), [125 * half for half in range(1, int(2 * epochs) + 1)]
        row = {
            "trial_key": key,
            "attempt": 1,
            "sweep_id": self.sweep_id,
            "run_id": f"{self.sweep_id}-run",
            "status": status,
            "stop_reason": stop_reason,
            "resumed_step": 0,
            "params_active": 66_000_000 + 7_087_872 * (point["model.n_layers"] - 3),
            "started_at": self.now,
            "train_seconds": epochs * (8.0 + 2 * point["model.n_layers"]),
            "gpu_seconds": epochs * (9.0 + 2 * point["model.n_layers"]),
            "host": "worker-1",
            "device": "NVIDIA H200",
        }
        write_part(self.storage, "attempts", name, [row])
        write_part(self.storage, "reports", name, [_report(key, step, point) for step in steps])
        if status == "completed":
            write_part(self.storage, "evaluations", name, [_test(key, domain, steps[-1]) for domain in DOMAINS])
            answers = [_answer(key, domain, number) for domain in DOMAINS for number in range(EXAMPLES)]
            write_part(self.storage, "predictions", name, answers)

    def finish(self, **columns: Any) -> None:
        write_part(self.storage, "decisions", f"{self.sweep_id}-0", self.decisions)
        write_part(self.storage, "events", f"driver-{self.sweep_id}", self.events)
        write_part(self.storage, "searches", self.sweep_id, [{"sweep_id": self.sweep_id, "trainable": "exbert", **columns}])


def synthetic_search(
    storage: Path, *, num_trials: int = NUM_TRIALS, objectives: Sequence[str] = ("val_qa_loss",), began_at: datetime = START
) -> Path:
    """Asynchronous successive halving, one trial after the other; trial FAILED fails, DIVERGED diverges, RUNNING runs."""
    writer = _Writer(SEARCH_ID, storage, began_at)
    generator = random.Random(7)
    rungs: dict[float, list[float]] = {rung: [] for rung in RUNGS}
    warm = _point(generator)
    warm_key = writer.plan(warm)
    parameters = identity.canonical_json(warm)
    writer.decide("warm", -1, warm_key, parameters=parameters, value=val_loss(warm, MAX_EPOCHS))
    writer.attempt(warm_key, "completed", warm, MAX_EPOCHS)
    writer.event(warm_key, "completed")
    for number in range(num_trials):
        _try(writer, number, _point(generator), rungs)
    settings = {"sampler": "tpe", "seed": 0, "grace": 1, "eta": ETA, "variant": "stopping", "max_epochs": 5, "share": 80}
    writer.finish(
        strategy="asha",
        space=json.dumps(SPACE),  # canonical JSON would sort the dimensions
        settings=identity.canonical_json(settings),
        objectives=list(objectives),
        rungs=list(RUNGS),
        max_epochs=MAX_EPOCHS,
        max_trials=num_trials,
        created_at=began_at,
    )
    return storage


def _point(generator: random.Random) -> Point:
    point = {
        "model.n_layers": generator.randint(3, 6),
        "training.learning_rate": float(f"{1e-5 * 11 ** generator.random():.3g}"),
        "model.dropout_placement": generator.choice(["none", "before", "after"]),
    }
    return point if point["model.dropout_placement"] == "none" else {**point, "model.moe_dropout": generator.choice([0.1, 0.3])}


def _try(writer: _Writer, number: int, point: Point, rungs: Mapping[float, list[float]]) -> None:
    key = writer.plan(point)
    writer.decide("suggested", number, key, parameters=identity.canonical_json(point))
    writer.event(key, "running")
    for epoch in range(1, MAX_EPOCHS + 1):
        if (number, epoch) == (FAILED, 2):
            writer.decide("ended", number, key, action="failed")
            writer.attempt(key, "failed", point, 1.5)
            writer.event(key, "failed", reason="code")
            return
        action, rung, reason = _judge(number, epoch, val_loss(point, epoch), rungs)
        value = None if reason == "asha (diverged)" else val_loss(point, epoch)
        writer.decide("judged", number, key, epoch=float(epoch), value=value, action=action, rung=rung, reason=reason)
        if action == "stop":
            writer.attempt(key, "stopped", point, epoch, reason)
            writer.event(key, "stopped", reason=reason)
            return
        if (number, epoch) == (RUNNING, 1):
            writer.attempt(key, "running", point, 1.5)
            return
    writer.decide("ended", number, key, action="completed", value=val_loss(point, MAX_EPOCHS))
    writer.attempt(key, "completed", point, MAX_EPOCHS)
    writer.event(key, "completed")


def _judge(number: int, epoch: float, value: float, rungs: Mapping[float, list[float]]) -> tuple[str, float | None, str | None]:
    """Action, rung and reason: at a rung the best third of those that came so far go on."""
    if (number, epoch) == (DIVERGED, 2):
        return "stop", None, "asha (diverged)"
    if epoch in rungs and number != RUNNING:
        rungs[epoch].append(value)
        rank = sorted(rungs[epoch]).index(value)
        goes_on = rank < max(1, len(rungs[epoch]) // ETA) or number in (FAILED, DIVERGED)
        return ("go on", epoch, None) if goes_on else ("stop", epoch, f"asha (rung {epoch})")
    return ("finished" if epoch == MAX_EPOCHS else "go on"), None, None


def synthetic_narrowing(storage: Path, *, began_at: datetime = START + timedelta(hours=8)) -> Path:
    """Two stages, each of which begins from the winner of the one before; every trial is completed."""
    writer = _Writer(NARROWING_ID, storage, began_at)
    point, parent, number = dict(NARROWING_START), None, 0
    for stage, (name, values) in STAGES.items():
        points = [{**point, name: value} for value in values]
        keys = [_train(writer, number + index, each, stage, parent) for index, each in enumerate(points)]
        number += len(points)
        best = min(range(len(points)), key=lambda index: val_loss(points[index], MAX_EPOCHS))
        point, parent = points[best], keys[best]
    stages = [{"name": stage, "dimensions": {name: _choice(values)}} for stage, (name, values) in STAGES.items()]
    space = {"name": "paper", "trainable": "exbert", "start": NARROWING_START, "stages": stages}
    writer.finish(
        strategy="narrowing",
        space=json.dumps(space),
        settings=identity.canonical_json({"seed": 0, "max_epochs": MAX_EPOCHS, "share": 80}),
        objectives=["val_qa_loss"],
        rungs=[],
        max_epochs=MAX_EPOCHS,
        max_trials=number,
        created_at=began_at,
    )
    return storage


def _train(writer: _Writer, number: int, point: Point, stage: str, parent: str | None) -> str:
    key = writer.plan(point)
    columns = {"stage": stage, "parent_key": parent}
    writer.decide("suggested", number, key, parameters=identity.canonical_json(point), **columns)
    for epoch in range(1, MAX_EPOCHS + 1):
        action = "finished" if epoch == MAX_EPOCHS else "go on"
        writer.decide("judged", number, key, epoch=float(epoch), value=val_loss(point, epoch), action=action, **columns)
    writer.decide("ended", number, key, action="completed", value=val_loss(point, MAX_EPOCHS), **columns)
    writer.attempt(key, "completed", point, MAX_EPOCHS)
    writer.event(key, "completed")
    return key


def _choice(values: list[Any]) -> dict[str, Any]:
    return {"kind": "choice", "values": values, "when": None}


def _report(key: str, step: int, point: Point) -> dict[str, Any]:
    """Every half epoch, validated at whole ones."""
    epoch = step / 250
    return {
        "trial_key": key,
        "attempt": 1,
        "step": step,
        "epoch": epoch,
        "samples_seen": step * 16,
        "wall_seconds": step / 20,
        "train_qa_loss": round(val_loss(point, 0.8 * epoch) - 0.15 * epoch, 4),
        "val_qa_loss": val_loss(point, epoch) if epoch % 1 == 0 else None,
        "learning_rate": point["training.learning_rate"],
    }


def _test(key: str, domain: str, step: int) -> dict[str, Any]:
    scores = {"examples": EXAMPLES, "qa_loss": 1.5, "em": 50.0, "f1": 58.0}
    return {"trial_key": key, "attempt": 1, "step": step, "split": "test", "domain": domain, **scores}


def _answer(key: str, domain: str, number: int) -> dict[str, Any]:
    text = f"answer {number}"
    row = {"trial_key": key, "attempt": 1, "domain": domain, "example_id": f"{domain}-{number}", "question": "What is it?"}
    return {**row, "gold": [text], "prediction": text, "score": 7.5, "em": 1.0, "f1": 1.0}


if __name__ == "__main__":
    synthetic_search(Path(sys.argv[1]), objectives=("val_qa_loss", "train_seconds"))
    synthetic_narrowing(Path(sys.argv[1]))
