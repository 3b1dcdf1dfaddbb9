"""Runs a function in a fresh process: nothing is warm, and its memory is its own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

__all__ = ["ChildError", "bytes_read", "evict", "in_child", "peak_memory_bytes", "stored_bytes"]


class ChildError(Exception):
    """The process failed, or took too long; the message is one line."""


def in_child(function: Callable[..., Any], *arguments: Any, limit_seconds: float) -> Any:
    """What `function`, which a module holds, returns in a new process. Raises ChildError."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        if not ours.poll(limit_seconds):
            raise ChildError(f"over {limit_seconds:.0f} s")
        answer, error = ours.recv()
    except EOFError as lost:
        raise ChildError("the process died") from lost
    finally:
        process.kill()
        process.join()
    if error:
        raise ChildError(error)
    return answer


def _call(answer: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        answer.send((function(*arguments), ""))
    except Exception as error:
        answer.send((None, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"))


def evict(place: Path) -> None:
    """Asks the system to forget what it has of these files in memory, so that the next reader reads from the disk."""
    for path in place.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def stored_bytes(place: Path) -> int:
    """Sum of the sizes of all files below."""
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


def bytes_read() -> int:
    """Bytes that this process has read from files so far, from the disk or from the system's memory."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar"))


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far.

    Not by `resource.getrusage`, whose ru_maxrss a new process inherits from the one that started it.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
