"""Checkpoints of a trial: one file each, complete or absent.

A checkpoint holds model, optimiser, schedule, random-number generators, the position in the data and what is pending for the
next report, so that a resumed trial reports bit for bit what an uninterrupted one would have (on one CPU).

A file is what `torch.save` wrote and then the SHA-256 of that, 32 bytes, which `torch.load` passes over. The zip format's own
checksums do not cover its directory: with one byte of it flipped, `torch.load` can return other tensors without complaint.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch

__all__ = [
    "FINAL_WEIGHTS",
    "load_newest",
    "newest",
    "newest_step",
    "remove_steps",
    "save",
    "save_final_weights",
]

FINAL_WEIGHTS = "final.pt"
_NAME = re.compile(r"step-(\d{8})\.pt")
_DIGEST_BYTES = hashlib.sha256().digest_size


def save(directory: Path, step: int, state: dict[str, Any]) -> Path:
    """Writes the checkpoint of `step`; of the older ones the newest stays, should this one prove unreadable.

    Later ones go: a trial that comes by `step` again could not read them.

    Raises:
        OSError: it could not be written; what was there before still is.
    """
    path = _write(directory / f"step-{step:08d}.pt", state)
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
    return _write(directory / FINAL_WEIGHTS, model.state_dict())


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
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=False)
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
    for path in [*directory.glob("step-*.pt"), *directory.glob(".*.tmp")]:
        path.unlink(missing_ok=True)


def _listing(directory: Path) -> list[tuple[int, Path]]:
    """Step and file of each checkpoint, oldest first."""
    return sorted((_step(path), path) for path in directory.glob("step-*.pt") if _NAME.fullmatch(path.name))


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _newest_whole(directory: Path, up_to: int | None = None) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that is as it was written, and what is wrong with those that should come before it."""
    faults: list[str] = []
    for step, path in reversed(_listing(directory)):
        if up_to is not None and step > up_to:  # of a former holder of the trial, whose write came too late
            continue
        fault = _fault(path)
        if fault is None:
            return path, faults
        faults.append(f"{path.name} {fault}")
    return None, faults


def _fault(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None. Reads it once, at about 1 GB/s (SHA-256)."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= _DIGEST_BYTES:
                return f"has only {size} bytes"
            digest = _digest(file, size - _DIGEST_BYTES)
            return None if file.read() == digest else "is torn or was changed: its checksum does not match"
    except OSError as error:
        return f"cannot be read: {error}"


def _digest(file: BinaryIO, num_bytes: int) -> bytes:
    """SHA-256 of the next `num_bytes`."""
    digest = hashlib.sha256()
    while num_bytes and (block := file.read(min(num_bytes, 1 << 20))):
        digest.update(block)
        num_bytes -= len(block)
    return digest.digest()


def _write(path: Path, state: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in path.parent.glob(".*.tmp"):  # of an attempt that was killed while it wrote
        abandoned.unlink(missing_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        with unfinished.open("wb") as file:
            _write_with_digest(file, state)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        with suppress(OSError):  # the first error says more
            unfinished.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    return path


def _write_with_digest(file: BinaryIO, state: Any) -> None:
    hashing = _Hashing(file)
    try:
        torch.save(state, hashing)
    except RuntimeError as error:  # torch's word for a failed write; a driver waits on the storage's own
        raise hashing.failure or error from error
    file.write(hashing.digest.digest())


class _Hashing:
    """A file that `torch.save` can write to, with the SHA-256 of what was written and the first failure."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.failure: OSError | None = None

    def write(self, block: bytes) -> int:
        try:
            self._file.write(block)
        except OSError as error:
            self.failure = self.failure or error
            raise
        self.digest.update(block)
        return len(block)

    def flush(self) -> None:
        self._file.flush()


def _sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
