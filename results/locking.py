"""One at a time: compactions and repairs, which take parts away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from results.errors import LedgerError
from results.storage import Storage

__all__ = ["exclusively"]


@contextmanager
def exclusively(place: Storage) -> Iterator[None]:
    """Holds the ledger's lock, which the system frees when its process ends, however that is.

    Raises LedgerError when another process holds it, where the file system has no locks, or where it cannot be written.
    """
    folder = Path(place.path("ledger"))
    lock = FileLock(folder / ".compact.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise LedgerError(
            f"another compaction or repair is at work on {place.shown}; run the command again when it has ended"
        ) from None
    except NotImplementedError as error:
        raise LedgerError(f"the file system of {place.shown} has no file locks, which this needs: {error}") from error
    except OSError as error:
        raise LedgerError(f"the storage {place.shown} cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()
