"""What the ledger and its peers have in common: they load sweeps, answer questions and take one more report of a trial."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ledger_data import Asked, Tables

__all__ = ["Answers", "Append", "Contender", "Rows", "TrialRecord", "current_reports", "missing_packages", "trial_records"]

Rows = list[tuple[Any, ...]]
Answers = Mapping[str, Callable[[], Rows]]
"""Name of a question to what answers it; questions that a contender cannot express are not there."""

Append = Callable[[int], None]
"""Records the report of a step of one running trial, so that another process can see it."""


class Contender(Protocol):
    """A place for results; each call may be made in another process than the one before."""

    name: str
    packages: Sequence[tuple[str, str]]
    """Modules, each with the package that brings it, for `pip install`."""
    imports: Sequence[str]
    """Modules that answering needs; the time to import them is nobody's."""
    append_imports: Sequence[str]
    """The same for recording reports."""

    def load(self, place: Path, sweeps: Iterable[Tables]) -> None:
        """Writes the sweeps into the empty folder `place`, by the quickest way of the contender's own API."""

    def open(self, place: Path, asked: Asked) -> Answers:
        """Whatever a user opens before asking."""

    def appender(self, place: Path, writer: int) -> Append:
        """A new running trial in a folder that may be empty; `writer` numbers the processes."""


def missing_packages(contender: Contender) -> list[str]:
    """What to install before the contender can run."""
    return sorted({package for module, package in contender.packages if importlib.util.find_spec(module) is None})


@dataclass(frozen=True)
class TrialRecord:
    """A trial as a tracker without attempts keeps it: reports that count, and last values."""

    key: str
    architecture: str
    share: int
    order: str
    learning_rate: float
    seed: int
    status: str
    started: datetime
    finished: datetime | None
    gpu_seconds: float
    error_signature: str | None
    scores: dict[str, float]
    """Exact match on the test split in percent, by domain; empty where the trial did not complete."""
    load: dict[tuple[str, int], float]
    """Load share by domain and expert, when it was evaluated last; empty for dense models."""
    reports: pa.Table


def current_reports(tables: Tables) -> pa.Table:
    """The sweep's reports by trial in the order of its plan and by step; of two with the same step the later attempt's."""
    rows = tables["reports"]
    trial = pc.index_in(rows["trial_key"], tables["plans"]["trial_key"].combine_chunks()).to_numpy()
    step, attempt = rows["step"].to_numpy(), rows["attempt"].to_numpy()
    order = np.lexsort([attempt, step, trial])
    trial, step = trial[order], step[order]
    counts = np.append((trial[1:] != trial[:-1]) | (step[1:] != step[:-1]), True)
    return rows.take(pa.array(order[counts]))


def trial_records(tables: Tables) -> Iterator[TrialRecord]:
    """The sweep's trials in the order of its plan."""
    attempts = _by_key(tables["attempts"].sort_by("attempt"))
    scores = _by_key(tables["evaluations"].filter(pc.equal(tables["evaluations"]["split"], "test")))
    loads = _by_key(tables["routing"].sort_by("step"))  # so that later ones replace earlier ones
    reports = current_reports(tables)
    keys = reports["trial_key"].combine_chunks()
    for plan in tables["plans"].to_pylist():
        key = plan["trial_key"]
        mine = pc.indices_nonzero(pc.equal(keys, key))
        tries = attempts[key]
        yield TrialRecord(
            key=key,
            architecture=plan["architecture"],
            share=plan["squad_share"],
            order=plan["data_order"],
            learning_rate=plan["learning_rate"],
            seed=plan["seed"],
            status=tries[-1]["status"],
            started=tries[0]["started_at"],
            finished=tries[-1]["finished_at"],
            gpu_seconds=sum(row["gpu_seconds"] for row in tries),
            error_signature=tries[-1]["error_signature"],
            scores={row["domain"]: row["em"] for row in scores.get(key, [])},
            load={(row["domain"], row["expert"]): row["load_share"] for row in loads.get(key, [])},
            reports=reports.slice(mine[0].as_py(), len(mine)),
        )


def _by_key(table: pa.Table) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        found.setdefault(row["trial_key"], []).append(row)
    return found
