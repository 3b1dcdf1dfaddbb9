"""The log that benchmarks measure by: a line for each training step and evaluation of any trial, by the process that did it."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

__all__ = ["Gap", "Step", "StepClock", "clocked", "gaps", "read_log"]

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
        """Times what it contains as a trial's step, the first of which is 1, or as an evaluation (0)."""
        began, started = time.time(), time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        os.write(self._log, b"%d %d %.6f %.6f\n" % (threading.get_native_id(), number, began, seconds))


class Step(NamedTuple):
    """One step of a trial, or an evaluation."""

    worker: int  # the thread that took it
    began: float  # seconds since the epoch
    number: int  # within its trial, from 1; 0: an evaluation
    seconds: float


class Gap(NamedTuple):
    """From the end of a trial's last step to the beginning of the next trial's first step on the same worker; seconds."""

    whole: float
    evaluating: float  # of these, as far as the worker logs evaluations


def read_log(log: Path) -> tuple[list[Step], list[Step]]:
    """All steps and all evaluations, those of a worker in their order."""
    lines = (line.split() for line in log.read_text(encoding="ascii").splitlines())
    found = sorted(Step(int(worker), float(began), int(number), float(seconds)) for worker, number, began, seconds in lines)
    return [each for each in found if each.number], [each for each in found if not each.number]


def gaps(steps: list[Step], evaluations: list[Step]) -> list[Gap]:
    """What lies between a worker's trials."""
    found = []
    for earlier, later in itertools.pairwise(steps):
        if later.number == 1 and later.worker == earlier.worker:
            end = earlier.began + earlier.seconds
            within = (each for each in evaluations if each.worker == later.worker and end <= each.began < later.began)
            found.append(Gap(later.began - end, sum(each.seconds for each in within)))
    return found
