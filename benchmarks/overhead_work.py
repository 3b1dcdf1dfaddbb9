"""The trials that all sides of `overhead.py` run: presets for ours, and the same rows as JSON for the others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.plan import plan_grid
from orchestrator.preset import load_preset
from trainables.data.pool import WindowPool
from trainables.embedded import ENCODER_PATH
from trainables.training.task import Task, open_task

__all__ = ["SLOTS", "Work", "make_work"]

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("orchestrator", "results", "search_spaces", "trainables")

SLOTS = 2
"""Trials at a time, of one CPU each."""

_PRESET = f"""
encoder: {ENCODER_PATH}
domains: {{squad: embedded, bioasq: embedded}}
trainables: [TRAINABLE]
mixture_size: 40
shares: [60]
orders: [shuffled]
training: {{epochs: 1, batch_size: 8, learning_rate: 5.0e-4, max_length: 128, stride: 32}}
evaluation: {{validation_examples: 12, test_examples: 12}}
resources: {{cpus_per_trial: 1, gpus_per_trial: 0, max_concurrent: {SLOTS}}}
"""


class Work(NamedTuple):
    """One kind of trial. The files of all kinds lie in one folder, that of a sweep's results is each side's own."""

    kind: str
    trials: int
    steps: int  # of each trial
    tree: Path  # the project's packages
    preset: Path
    rows: Path  # for the others, with everything else that decides the training


def make_work(folder: Path, noop_trials: int, tiny_trials: int) -> list[Work]:
    """Writes what both kinds read into `folder`."""
    tree, rows = folder / "tree", folder / "rows.json"
    for name in _PACKAGES:
        shutil.copytree(_ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(_ROOT / "benchmarks" / "overhead_noop", tree / "trainables" / "noop")
    presets = {trainable: folder / f"{trainable}.yaml" for trainable in ("noop", "distilbert")}
    for trainable, preset in presets.items():
        preset.write_text(_PRESET.replace("TRAINABLE", trainable), encoding="utf-8")
    [trial] = plan_grid(load_preset(str(presets["distilbert"]), (), 1), str(folder / "storage")).trials
    task = open_task(trial.config, trial.data, folder / "prepared")
    steps = len(task.batches(epoch=0, seed=trial.seed))
    settings = trial.config.training.model_dump(mode="json")
    rows.write_text(json.dumps({"encoder": str(ENCODER_PATH), **settings, **_rows_of(task)}), encoding="utf-8")
    tiny = Work("tiny", tiny_trials, steps, tree, presets["distilbert"], rows)
    return [tiny._replace(kind="no-op", trials=noop_trials, steps=1, preset=presets["noop"]), tiny]


def _rows_of(task: Task) -> dict[str, Any]:
    training = sorted(set(task.pool.example_index[task.training.windows].tolist()))
    held_out = {split: [int(i) for part in task.of_split(split) for i in part.examples] for split in ("val", "test")}
    return {name: _texts(task.pool, examples) for name, examples in {"train": training, **held_out}.items()}


def _texts(pool: WindowPool, examples: Sequence[int]) -> list[dict[str, Any]]:
    found = (pool.example(index) for index in examples)
    return [
        {"question": row.question, "context": row.context, "answer": row.answer, "answer_start": row.answer_start}
        for row in found
    ]
