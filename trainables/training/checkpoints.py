"""Checkpoints of a trial: one file each, complete or absent.

A checkpoint holds model, optimiser, schedule, random-number generators and the position in the data, so that a resumed trial
reports bit for bit what an uninterrupted one would have (on one CPU). Reading: only files that `torch.save` finished and
`os.replace` put in place have the final name.
"""

from __future__ import annotations

import os
import pickle
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = [
    "FINAL_WEIGHTS",
    "load_newest",
    "newest_step",
    "restore_generators",
    "save",
    "save_final_weights",
    "state_of_generators",
]

FINAL_WEIGHTS = "final.pt"
_NAME = re.compile(r"step-(\d{8})\.pt")


def save(directory: Path, step: int, state: dict[str, Any]) -> Path:
    """Writes the checkpoint of `step`; of the older ones the newest stays, should this one prove unreadable."""
    path = _write(directory / f"step-{step:08d}.pt", state)
    for _, older in sorted(_listing(directory))[:-2]:
        older.unlink(missing_ok=True)
    return path


def save_final_weights(directory: Path, model: torch.nn.Module) -> Path:
    """Writes the finished model's weights and removes the checkpoints, which nothing needs any more."""
    path = _write(directory / FINAL_WEIGHTS, model.state_dict())
    for _, checkpoint in _listing(directory):
        checkpoint.unlink(missing_ok=True)
    return path


def load_newest(directory: Path, device: str) -> dict[str, Any] | None:
    """The state saved last, or None. A file that cannot be read is passed over for the one before it."""
    for _, path in sorted(_listing(directory), reverse=True):
        try:
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=False)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError):
            continue
        return state
    return None


def newest_step(directory: Path) -> int:
    """The step of the newest checkpoint, 0 without one."""
    return max((step for step, _ in _listing(directory)), default=0)


def _listing(directory: Path) -> list[tuple[int, Path]]:
    matches = [(_NAME.fullmatch(path.name), path) for path in directory.glob("step-*.pt")]
    return [(int(match[1]), path) for match, path in matches if match]


def _write(path: Path, state: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in path.parent.glob(".*.tmp"):  # of an attempt that was killed while it wrote
        abandoned.unlink(missing_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    with unfinished.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
    return path


def state_of_generators(device: str) -> dict[str, Any]:
    """The states of all generators that a training step on `device` may draw from."""
    states: dict[str, Any] = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}  # noqa: NPY002
    return states if device == "cpu" else {**states, "cuda": torch.cuda.get_rng_state(device)}


def restore_generators(states: dict[str, Any], device: str) -> None:
    """Puts the generators back where `state_of_generators` found them."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["torch"].cpu())
    if "cuda" in states and device != "cpu":
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
