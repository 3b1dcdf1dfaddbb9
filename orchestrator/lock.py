"""One driver per sweep: a lock that goes away with the process that holds it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from orchestrator.errors import SweepLockedError

__all__ = ["current_driver", "sweep_lock"]


@contextmanager
def sweep_lock(sweep_dir: Path, sweep_id: str) -> Iterator[None]:
    """Holds the sweep for this process. The kernel frees the lock when the process ends, however it ends.

    Raises:
        SweepLockedError: another process holds it; the message names that process.
    """
    sweep_dir.mkdir(parents=True, exist_ok=True)
    owner_path = sweep_dir / "driver.json"
    lock = FileLock(sweep_dir / "driver.lock")
    try:
        lock.acquire(timeout=1)  # `status` takes it for an instant
    except Timeout:
        raise SweepLockedError(
            f"sweep {sweep_id} is being run by {_owner(owner_path)}; "
            f"watch it with `python -m orchestrator.run status {sweep_id}`, or stop that process first"
        ) from None
    try:
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
        owner_path.write_text(json.dumps(owner), encoding="utf-8")
        yield
    finally:
        owner_path.unlink(missing_ok=True)
        lock.release()


def current_driver(sweep_dir: Path) -> str | None:
    """Who holds the sweep now, in words; None if nobody does."""
    if not (sweep_dir / "driver.lock").exists():
        return None
    lock = FileLock(sweep_dir / "driver.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return _owner(sweep_dir / "driver.json")
    lock.release()
    return None


def _owner(owner_path: Path) -> str:
    try:
        owner = json.loads(owner_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "another process"
    return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
