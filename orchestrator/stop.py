"""Asking running trials to make a checkpoint and stop: by a file that every worker of every backend sees, or by SIGTERM."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["PREEMPTED", "TAKEN_OVER", "StopFile", "StopWatch", "notice_sigterm", "sigterm_noticed"]

PREEMPTED = "preempted"
TAKEN_OVER = "taken over by another driver"
_LOOK_SECONDS = 0.5
_sigterm = threading.Event()


class StopFile:
    """One run's request to stop. The first reason given stays."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._requested: str | None = None

    def request(self, reason: str) -> None:
        """Asks every running trial to stop, because of `reason`. Where the storage fails, only this process knows as yet."""
        if self.reason is None:
            self._requested = reason
            self.renew()

    def renew(self) -> None:
        """Writes a request once more that a failing storage did not take."""
        if self._requested is not None and not self.path.exists():
            unfinished = self.path.with_name(f".{self.path.name}.tmp")
            with contextlib.suppress(OSError):
                unfinished.write_text(self._requested, encoding="utf-8")
                os.replace(unfinished, self.path)

    @property
    def reason(self) -> str | None:
        """Why to stop; None while nobody asks for it."""
        if self._requested is not None:
            return self._requested
        try:
            return self.path.read_text(encoding="utf-8")
        except OSError:
            return None

    def withdraw(self) -> None:
        """Removes the request."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


class StopWatch:
    """What a trial asks at each of its steps; looks at the file twice a second at most."""

    def __init__(self, file: StopFile, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._looked_at = -_LOOK_SECONDS
        self._reason: str | None = None

    @property
    def reason(self) -> str | None:
        """Why to stop; None to go on."""
        if sigterm_noticed():
            return PREEMPTED
        if self._reason is None and self._clock() - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = self._clock()
            self._reason = self._file.reason
        return self._reason


def notice_sigterm(is_busy: Callable[[], bool]) -> None:
    """From now on SIGTERM (a spot machine's notice) lets a busy process come to its next step boundary; an idle one ends."""
    former: Any = signal.getsignal(signal.SIGTERM)

    def note(number: int, frame: FrameType | None) -> None:
        _sigterm.set()
        if not is_busy():
            former(number, frame) if callable(former) else os._exit(128 + number)

    signal.signal(signal.SIGTERM, note)


def sigterm_noticed() -> bool:
    """True once this process was asked to end."""
    return _sigterm.is_set()
