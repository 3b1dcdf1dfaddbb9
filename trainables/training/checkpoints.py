"""Checkpoints of a trial: one file each, complete or absent.

A checkpoint holds model, optimiser, schedule, random-number generators, the position in the data and what is pending for the
next report, so that a resumed trial reports bit for bit what an uninterrupted one would have (on one CPU).

A file is a safetensors file with a checksum (see `trainables.training.state_files`): whoever can write to the storage can
spoil a checkpoint, but cannot make a worker run code, as it could be done where it were unpickled.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from trainables.training.state_files import fault_of, read_state, write_state, write_tensors

__all__ = [
    "FINAL_WEIGHTS",
    "load_newest",
    "newest",
    "newest_step",
    "remove_steps",
    "save",
    "save_final_weights",
]

FINAL_WEIGHTS = "final.safetensors"
_SUFFIX = ".safetensors"
_NAME = re.compile(r"step-(\d{8})\.safetensors")


def save(directory: Path, step: int, state: dict[str, Any]) -> Path:
    """Writes the checkpoint of `step`; of the older ones the newest stays, should this one prove unreadable.

    Later ones go: a trial that comes by `step` again could not read them.

    Raises:
        OSError: it could not be written; what was there before still is.
    """
    path = _write(directory / f"step-{step:08d}{_SUFFIX}", partial(write_state, state=state))
    others = {each: other for each, other in _listing(directory) if each != step}
    kept = max((each for each in others if each < step), default=None)
    for each, other in others.items():
        if each != kept:
            other.unlink(missing_ok=True)
    return path


def save_final_weights(directory: Path, model: torch.nn.Module) -> Path:
    """Writes the finished model's weights. The checkpoints stay until the trial is recorded as complete: `remove_steps`.

    Raises:
        OSError: they could not be written.
    """
    return _write(directory / FINAL_WEIGHTS, partial(write_tensors, tensors=model.state_dict(), metadata={"format": "pt"}))


def load_newest(
    directory: Path, device: str, warn: Callable[[str], None], *, up_to: int | None = None
) -> dict[str, Any] | None:
    """The state that was saved last, of no later step than `up_to`, and can be read; or None.

    `warn` is told once of files passed over.
    """
    path, faults = _newest_whole(directory, up_to)
    if faults:
        instead = f"going on from {path.name}" if path else "starting from the beginning"
        warn(f"unreadable checkpoints in {directory}, {instead}: {'; '.join(faults)}")
    if path is None:
        return None
    state: dict[str, Any] = read_state(path, device)
    return state


def newest_step(directory: Path) -> int:
    """The step that `load_newest` would go on from, 0 without a readable checkpoint."""
    path, _ = _newest_whole(directory)
    return _step(path) if path else 0


def newest(directory: Path) -> Path | None:
    """The newest readable checkpoint, the final weights where there is none, or None."""
    path, _ = _newest_whole(directory)
    final = directory / FINAL_WEIGHTS
    return path or (final if final.exists() else None)


def remove_steps(directory: Path) -> None:
    """Removes all but the final weights. For a trial recorded as complete: nothing can go on from the steps any more."""
    for path in [*directory.glob("step-*"), *directory.glob(".*.tmp")]:
        path.unlink(missing_ok=True)


def _listing(directory: Path) -> list[tuple[int, Path]]:
    """Step and file of each checkpoint, oldest first."""
    return sorted((_step(path), path) for path in directory.glob(f"step-*{_SUFFIX}") if _NAME.fullmatch(path.name))


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-").removesuffix(_SUFFIX))


def _newest_whole(directory: Path, up_to: int | None = None) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that is as it was written, and what is wrong with those that should come before it."""
    faults: list[str] = []
    for step, path in reversed(_listing(directory)):
        if up_to is not None and step > up_to:  # of a former holder of the trial, whose write came too late
            continue
        fault = fault_of(path)
        if fault is None:
            return path, faults
        faults.append(f"{path.name} {fault}")
    return None, faults


def _write(path: Path, write: Callable[[Path], None]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in path.parent.glob(".*.tmp"):  # of an attempt that was killed while it wrote
        abandoned.unlink(missing_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        write(unfinished)
        os.replace(unfinished, path)
    except BaseException:
        with suppress(OSError):  # the first error says more
            unfinished.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    return path


def _sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
