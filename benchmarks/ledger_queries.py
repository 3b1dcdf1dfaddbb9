"""Loading a contender and asking it, each in a process of its own."""

from __future__ import annotations

import importlib
import math
import os
import time
import warnings
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from ledger_child import bytes_read, evict, peak_memory_bytes
from ledger_contender import Rows
from ledger_data import Asked, make_sweeps
from ledger_ours import write_small_parts
from ledger_peers import CONTENDERS

from results.compact import compact

__all__ = ["Answered", "Loaded", "Shrunk", "answer", "compact_ledger", "load", "load_small_parts", "same_rows"]

_WARM_REPEATS = 7
_ROWS_PER_PART = 100
"""More reports than a small part of any table can stand for, so that the sweeps do not run out."""
_TOLERANCE = 1e-5
"""Relative; TensorBoard keeps single precision."""


@dataclass(frozen=True)
class Loaded:
    """What it took to write the sweeps."""

    seconds: float
    report_rows: int
    peak_memory_bytes: int


@dataclass(frozen=True)
class Answered:
    """What it took to answer one question."""

    cold_seconds: float
    """Opening included, the import of libraries not; the files come from the disk."""
    warm_seconds: float
    """Median of the repeats, with whatever the contender keeps open."""
    warm_cpu_seconds: float
    """The same in CPU seconds of all threads, which say more than the clock where the machine has other work too."""
    repeats: int
    bytes_read: int
    """By the cold answer."""
    peak_memory_bytes: int
    warnings: tuple[str, ...]
    rows: Rows


@dataclass(frozen=True)
class Shrunk:
    """What it took to compact, and the numbers of parts in all tables."""

    seconds: float
    cpu_seconds: float
    parts_before: int
    parts_after: int
    peak_memory_bytes: int


def load(name: str, place: Path, report_rows: int, seed: int) -> Loaded:
    """Writes at least `report_rows` reports and all that belongs to them."""
    place.mkdir(parents=True)
    began = time.perf_counter()
    count = 0

    def counted() -> Any:
        nonlocal count
        for tables in make_sweeps(report_rows, seed):
            count += tables["reports"].num_rows
            yield tables

    CONTENDERS[name].load(place, counted())
    seconds = time.perf_counter() - began
    os.sync()  # what is not on the disk yet cannot be evicted
    return Loaded(seconds, count, peak_memory_bytes())


def answer(name: str, place: Path, question: str, asked: Asked, patience_seconds: float) -> Answered | None:
    """Asks once cold, then warm until there are enough repeats or patience ends; None where it cannot be expressed."""
    contender = CONTENDERS[name]
    for module in contender.imports:
        importlib.import_module(module)
    evict(place)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before, began = bytes_read(), time.perf_counter()
        answers = contender.open(place, asked)
        if question not in answers:
            return None
        rows = answers[question]()
        cold, read = time.perf_counter() - began, bytes_read() - before
        warm: list[tuple[float, float]] = []
        while len(warm) < _WARM_REPEATS and (not warm or sum(wall for wall, _ in warm) < patience_seconds):
            began, worked = time.perf_counter(), time.process_time()
            answers[question]()
            warm.append((time.perf_counter() - began, time.process_time() - worked))
    told = tuple(dict.fromkeys(str(each.message) for each in caught))
    wall, cpu = (median(values) for values in zip(*warm, strict=True))
    return Answered(cold, wall, cpu, len(warm), read, peak_memory_bytes(), told, rows)


def load_small_parts(place: Path, num_parts: int, seed: int) -> Loaded:
    """Writes parts as workers leave them, one an attempt and table."""
    place.mkdir(parents=True)
    began = time.perf_counter()
    rows = write_small_parts(place, make_sweeps(num_parts * _ROWS_PER_PART, seed), num_parts)
    seconds = time.perf_counter() - began
    os.sync()
    return Loaded(seconds, rows, peak_memory_bytes())


def compact_ledger(place: Path) -> Shrunk:
    """Merges the parts."""
    began, worked = time.perf_counter(), time.process_time()
    tables = compact(place).tables
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - worked
    os.sync()
    before, after = sum(table.parts_before for table in tables), sum(table.parts_after for table in tables)
    return Shrunk(seconds, cpu_seconds, before, after, peak_memory_bytes())


def same_rows(ours: Rows, theirs: Rows) -> bool:
    """True when both say the same, floats within what single precision allows."""
    return len(ours) == len(theirs) and all(
        len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True)) for a, b in zip(ours, theirs, strict=True)
    )


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, float) and isinstance(theirs, int | float):
        return math.isclose(ours, theirs, rel_tol=_TOLERANCE)
    if isinstance(ours, datetime) and isinstance(theirs, datetime):
        return ours.timestamp() == theirs.timestamp()
    return bool(ours == theirs)
