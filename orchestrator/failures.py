"""Why attempts fail, and what is done about each: classes, policies, signatures. Pure functions over what the ledger says.

| class     | what happened                                     | policy                                               |
| --------- | ------------------------------------------------- | ---------------------------------------------------- |
| preempted | told to stop (SIGTERM, a spot machine's notice)   | another attempt, free                                |
| lost      | its worker vanished                               | another attempt, free while it makes new checkpoints |
| storage   | the storage could not be written                  | another attempt, free while it makes new checkpoints |
| oom       | it ran out of memory                              | once more at half the batch, gradients accumulated   |
| timeout   | no report within `recovery.timeout_seconds`       | `recovery.max_retries` more                          |
| code      | any other exception                               | `recovery.max_retries` more                          |
| data      | rows that cannot be used                          | `recovery.max_retries` more                          |
| diverged  | a loss that is not finite                         | none: the same seed would diverge again              |
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from orchestrator.errors import StorageError, TrialTimeoutError
from trainables.contract import DivergedError
from trainables.data.errors import DataError

__all__ = ["FREE", "MAX_STALLED", "Decision", "FailureClass", "class_of_death", "class_of_error", "decide", "signature_of"]

MAX_STALLED = 10
"""Free attempts in a row that may end without a new checkpoint: a trial that kills its worker is not tried for ever."""


class FailureClass(StrEnum):
    """Why an attempt did not end as it should."""

    preempted = "preempted"
    lost = "lost"
    storage = "storage"
    oom = "oom"
    timeout = "timeout"
    code = "code"
    data = "data"
    diverged = "diverged"


_ALLOCATION = re.compile(r"can't allocate memory|bad.alloc|not enough memory|out of memory|cannot allocate|ALLOC_FAILED", re.I)

FREE = frozenset({FailureClass.preempted, FailureClass.lost, FailureClass.storage})
"""Not the trial's fault: another attempt costs none of its retries."""


@dataclass(frozen=True)
class Decision:
    """Whether a trial gets another attempt, and how that one is to run."""

    go_on: bool
    micro_batches: int = 1
    why: str = ""


def decide(attempts: Sequence[Mapping[str, Any]], max_retries: int, run_id: str, counted_from: int = 1) -> Decision:
    """What the attempts so far (rows of the ledger's `attempts`, in order) allow.

    `run_id`: losses of earlier runs do not count, since those may have been killed with their drivers. `counted_from`: failures
    of attempts before this one were forgiven by `retry`.
    """
    counted = [row for row in attempts if row["attempt"] >= counted_from and row["failure_class"]]
    classes = [FailureClass(row["failure_class"]) for row in counted]
    ooms = classes.count(FailureClass.oom)
    own = [each for each in classes if each not in FREE and each is not FailureClass.oom]
    if FailureClass.diverged in own:
        return Decision(False, why="it diverged, and would with the same seed")
    if ooms > 1:
        return Decision(False, why="out of memory also at half the batch")
    if len(own) > max_retries:
        return Decision(False, why=f"{len(own)} attempts failed, and recovery.max_retries is {max_retries}")
    if _stalled([row for row in counted if row["run_id"] == run_id]) >= MAX_STALLED:
        return Decision(False, why=f"{MAX_STALLED} attempts in a row were lost before the first new checkpoint")
    return Decision(True, micro_batches=2**ooms)


def _stalled(rows: Sequence[Mapping[str, Any]]) -> int:
    """Attempts at the end that were lost where the one before them was."""
    count = 0
    for row in reversed(rows):
        if row["failure_class"] not in (FailureClass.lost, FailureClass.storage):
            break
        if row["resumed_step"] != rows[-1]["resumed_step"]:
            break
        count += 1
    return count


def class_of_error(error: BaseException) -> FailureClass:
    """The class of an exception that a worker caught."""
    if isinstance(error, DivergedError):
        return FailureClass.diverged
    if isinstance(error, DataError):
        return FailureClass.data
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _is_allocation(error):
        return FailureClass.oom
    if isinstance(error, TrialTimeoutError):
        return FailureClass.timeout
    if isinstance(error, StorageError):
        return FailureClass.storage
    return FailureClass.code


_DEATHS = {"OutOfMemoryError": FailureClass.oom, StorageError.__name__: FailureClass.storage}


def class_of_death(error_type: str) -> FailureClass:
    """The class of an end that the worker could not record, by what the backend calls it."""
    return _DEATHS.get(error_type, FailureClass.lost)


def _is_allocation(error: BaseException) -> bool:
    """torch's allocators raise RuntimeError, the system's calls OSError."""
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and bool(_ALLOCATION.search(str(error)))


def signature_of(error_type: str, error: str) -> str:
    """The same 8 hex digits for errors that are the same but for numbers, keys and paths in their message and place.

    Looks at the class, the innermost frame of the traceback and the last line.
    """
    frames = re.findall(r'File "[^"]*?([^/"]+)", line \d+, in (\w+)', error)
    message = (error.strip().splitlines() or [""])[-1]
    shape = re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{16}\b|/[^\s'\"]+|\d+(\.\d+)?(e[-+]?\d+)?", "#", message)
    return hashlib.sha256(repr((error_type, frames[-1:], shape)).encode()).hexdigest()[:8]
