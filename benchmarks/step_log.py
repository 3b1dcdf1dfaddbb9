"""The log of training steps that benchmarks compare: a line for each step of any trial, written by the process that took it."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

__all__ = ["Step", "StepClock", "clocked", "gaps", "read_steps"]

_VARIABLE = "STEP_CLOCK"
_HERE = Path(__file__).resolve().parent


def clocked(tree: Path, log: Path) -> dict[str, str]:
    """The environment in which the command of the project's tree at `tree` logs its steps, in Ray's workers too."""
    return {"PYTHONPATH": os.pathsep.join(map(str, (_HERE / "step_clock", _HERE, tree))), _VARIABLE: str(log)}


class StepClock:
    """Appends to the log."""

    def __init__(self) -> None:
        self._log = os.open(os.environ[_VARIABLE], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Times what it contains as a trial's step, the first of which is 1."""
        began, started = time.time(), time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        os.write(self._log, b"%d %d %.6f %.6f\n" % (threading.get_native_id(), number, began, seconds))


class Step(NamedTuple):
    """One step of a trial."""

    worker: int  # the thread that took it
    began: float  # seconds since the epoch
    number: int  # within its trial, from 1
    seconds: float


def read_steps(log: Path) -> list[Step]:
    """All steps, those of a worker in their order."""
    lines = (line.split() for line in log.read_text(encoding="ascii").splitlines())
    return sorted(Step(int(worker), float(began), int(number), float(seconds)) for worker, number, began, seconds in lines)


def gaps(steps: list[Step]) -> list[float]:
    """Seconds from the end of a trial's last step to the beginning of the next trial's first step on the same worker."""
    return [
        later.began - earlier.began - earlier.seconds
        for earlier, later in itertools.pairwise(steps)
        if later.number == 1 and later.worker == earlier.worker
    ]
