"""Asking running trials to make a checkpoint and stop: by a file that every worker of every backend sees, or by SIGTERM."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from orchestrator.location import Location

__all__ = ["PAUSED", "PREEMPTED", "TAKEN_OVER", "StopRequest", "StopWatch", "notice_sigterm", "sigterm_noticed"]

PAUSED = "asha (paused"
PREEMPTED = "preempted"
TAKEN_OVER = "taken over by another driver"
_sigterm = threading.Event()


class StopRequest:
    """The driver's side of one run's request to stop: in memory, and in the file for the workers. The first reason stays."""

    def __init__(self, path: Location) -> None:
        self.reason: str | None = None
        self._path = path

    def request(self, reason: str) -> None:
        """Asks every running trial to stop, because of `reason`. Where the storage fails, only this process knows as yet."""
        if self.reason is None:
            self.reason = reason
            self.renew()

    def renew(self) -> None:
        """Writes a request once more that a failing storage did not take."""
        with contextlib.suppress(OSError):
            if self.reason is not None and self._path.storage.is_there and not self._path.exists():
                self._path.write(self.reason.encode())

    def withdraw(self) -> None:
        """Removes the request."""
        with contextlib.suppress(OSError):
            self._path.remove()


class StopWatch:
    """What a trial asks at each of its steps; looks at the driver's file only every `SweepStorage.look_seconds`."""

    def __init__(self, file: Location, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._looked_at = -math.inf
        self._reason: str | None = None

    @property
    def reason(self) -> str | None:
        """Why to stop; None to go on."""
        if sigterm_noticed():
            return PREEMPTED
        if self._reason is None and self._clock() - self._looked_at >= self._file.storage.look_seconds:
            self._looked_at = self._clock()
            with contextlib.suppress(OSError):
                self._reason = self._file.read().decode()
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
