"""Writing to a storage that is full, read-only or away for a while: wait, say so, and go on when it is back."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from orchestrator.errors import StorageError
from results.storage import StorageLike, open_sweep_storage

__all__ = ["describe_trouble", "patiently", "unwritable"]

_PASSING = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO", "ENOENT", "ENXIO", "ENODEV", "EBUSY", "EAGAIN"),
        *("ESTALE", "ENOTCONN", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ECONNREFUSED"),
    )
)
"""What a person or time can mend. Another error, such as a file where a folder must be, is no matter of waiting."""

_PAUSES = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Seconds between tries; the last one repeats."""

T = TypeVar("T")


def patiently(
    write: Callable[[], T],
    storage: StorageLike,
    *,
    patience_seconds: float,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """The result of `write`, called again while the storage fails; `say` hears what it waits for, and "" at the end.

    Raises:
        StorageError: the storage failed for `patience_seconds`.
        OSError: an error that waiting does not mend.
    """
    began, tries = clock(), 0
    while True:
        try:
            if not open_sweep_storage(storage).is_there:
                raise FileNotFoundError(errno.ENOENT, f"{storage} has vanished")
            result = write()
        except OSError as error:
            if error.errno is not None and error.errno not in _PASSING:
                raise
            trouble = describe_trouble(storage, error)
            if clock() - began >= patience_seconds:
                waited = f"; waited {patience_seconds:.0f} s (recovery.storage_patience_seconds)" if patience_seconds else ""
                raise StorageError(
                    f"{trouble}{waited}; free space or bring it back, then run the same command again"
                ) from error
            if tries:  # a single failure is no news
                say(f"{trouble}; free space or bring it back, and everything goes on by itself")
            sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
            tries += 1
        else:
            if tries > 1:
                say("")
            return result


def unwritable(storage: StorageLike, error: OSError) -> StorageError:
    """The error of a storage that cannot be written from the start."""
    return StorageError(f"{describe_trouble(storage, error)}; name another with --storage")


def describe_trouble(storage: StorageLike, error: OSError) -> str:
    """What is wrong with the storage, in one line."""
    cause = error.__cause__ if isinstance(error, StorageError) else error  # what was waited for
    what = (cause.strerror if isinstance(cause, OSError) else None) or str(error)
    return f"storage {storage} cannot be written ({what})"
