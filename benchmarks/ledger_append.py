"""How long it takes to record one more report, with one or many processes that do so."""

from __future__ import annotations

import importlib
import multiprocessing
import time
from dataclasses import dataclass
from math import nan
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median, quantiles

from ledger_peers import CONTENDERS

__all__ = ["Appended", "append"]

_START_SECONDS = 120
"""For 32 processes to open what they need on a small machine."""


@dataclass(frozen=True)
class Appended:
    """Latencies over all processes, in milliseconds."""

    writers: int
    per_second: float
    """Reports a second that each process aimed at; 0: as fast as it could."""
    count: int
    median_ms: float
    p99_ms: float
    cpu_ms: float
    """Median CPU time, which other work on the machine does not change."""
    reports_per_second: float
    """Of all processes together."""
    failures: tuple[str, ...]
    """What the processes that failed died of."""


def append(name: str, place: Path, writers: int, count: int, per_second: float) -> Appended:
    """Lets each of the processes record `count` reports of a running trial of its own.

    They are forked after the imports, so call it in a process that has done nothing else yet.
    """
    for module in CONTENDERS[name].append_imports:
        importlib.import_module(module)
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(writers)
    ends = []
    for writer in range(writers):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_write, args=(theirs, barrier, name, place, writer, count, per_second))
        process.start()
        theirs.close()
        ends.append((process, ours))
    told = []
    for process, ours in ends:
        try:
            told.append(ours.recv())
        except EOFError:
            told.append("the process died")
        process.join()
    spans = [each for each in told if not isinstance(each, str)]
    failures = tuple(dict.fromkeys(each for each in told if isinstance(each, str)))
    if not spans:
        return Appended(writers, per_second, 0, nan, nan, nan, 0.0, failures)
    wall_ms, cpu_ms = ([1000 * each for span in spans for each in span[kind]] for kind in (0, 1))
    rate = len(wall_ms) / max(seconds for _, _, seconds in spans)
    p99 = quantiles(wall_ms, n=100, method="inclusive")[98]
    return Appended(writers, per_second, len(wall_ms), median(wall_ms), p99, median(cpu_ms), rate, failures)


def _write(answer: Connection, barrier: Barrier, name: str, place: Path, writer: int, count: int, per_second: float) -> None:
    """Sends the seconds of each append and of all together, or one line that says what went wrong."""
    try:
        record = CONTENDERS[name].appender(place, writer)
        record(0)  # opens files and imports the rest
        barrier.wait(_START_SECONDS)
        began = time.perf_counter()
        walls, cpus = [], []
        for step in range(1, count + 1):
            if per_second:
                # Each in a phase of its own, as trials that know nothing of each other.
                due = began + (step + writer / barrier.parties) / per_second
                time.sleep(max(0.0, due - time.perf_counter()))
            at, worked = time.perf_counter(), time.process_time()
            record(step)
            walls.append(time.perf_counter() - at)
            cpus.append(time.process_time() - worked)
        answer.send((walls, cpus, time.perf_counter() - began))
    except Exception as error:
        barrier.abort()
        answer.send(f"{type(error).__name__}: {' '.join(str(error).split())[:120]}")
