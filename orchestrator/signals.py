"""Ctrl-C and SIGTERM for a driver: the first asks trials to make a checkpoint and stop, the second stops at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from orchestrator.recorder import INTERRUPTED
from orchestrator.stop import PREEMPTED, StopRequest

__all__ = ["stop_on_signals"]


@contextmanager
def stop_on_signals(stop: StopRequest, say: Callable[[str], None]) -> Iterator[None]:
    """Turns signals into requests to stop while the context is open."""

    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        stop.request(INTERRUPTED if number == signal.SIGINT else PREEMPTED)
        say("stopping: running trials make a checkpoint first; once more to stop at once")

    former = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
