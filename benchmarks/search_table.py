"""Recorded learning curves as a surrogate: a searcher proposes any point of the space and gets the nearest recorded trial.

    python benchmarks/search_table.py STORAGE FILE.csv

writes the completed trials of the only search in STORAGE; see `data/README.md`.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from results.ledger import Ledger
from search_spaces.embedded import exbert_embedded
from search_spaces.space import Choice, Dimension, Float, Int, Space, Value

DATA = Path(__file__).parent / "data"

REPORTS_PER_EPOCH = 2

_RECORDED = """
    SELECT trial_key, decisions.parameters, train_seconds,
           (SELECT list(val_qa_loss ORDER BY step) FROM reports WHERE reports.trial_key = trials.trial_key) AS losses
    FROM trials JOIN decisions USING (trial_key)
    WHERE status = 'completed' AND kind = 'suggested' ORDER BY number
"""


@dataclass(frozen=True)
class Recorded:
    """A trial that was trained to the end; `losses` has one for each half epoch."""

    point: Mapping[str, Value]
    losses: Sequence[float]
    seconds_per_epoch: float

    @property
    def final(self) -> float:
        """The loss that a search is after; infinite where training diverged."""
        return self.losses[-1] if math.isfinite(self.losses[-1]) else math.inf


@dataclass(frozen=True)
class Table:
    """What every contender searches."""

    space: Space
    trials: Sequence[Recorded]

    @property
    def max_epochs(self) -> int:
        """Length of a curve."""
        return len(self.trials[0].losses) // REPORTS_PER_EPOCH

    @property
    def best(self) -> float:
        """The lowest final loss."""
        return min(trial.final for trial in self.trials)

    def rank_correlation(self, epoch: float) -> float:
        """Spearman's, of the losses at `epoch` with the final ones: what a rung there can know."""
        at = [trial.losses[round(epoch * REPORTS_PER_EPOCH) - 1] for trial in self.trials]
        final = [trial.final for trial in self.trials]
        return float(np.corrcoef(_ranks(at), _ranks(final))[0, 1])

    def nearest(self, point: Mapping[str, Value], taken: set[int]) -> int | None:
        """The index of the recorded trial nearest to `point` that is not taken; None when all are."""
        left = [index for index in range(len(self.trials)) if index not in taken]
        return min(left, key=lambda index: self._distance(point, self.trials[index].point), default=None)

    def _distance(self, one: Mapping[str, Value], other: Mapping[str, Value]) -> float:
        return math.fsum(
            _gap(dimension, one.get(name), other.get(name)) ** 2 for name, dimension in self.space.dimensions.items()
        )


def _ranks(losses: Sequence[float]) -> NDArray[np.int64]:
    return np.argsort(np.argsort(losses))


def _gap(dimension: Dimension, one: Value, other: Value) -> float:
    """From 0 to 1: of numbers as a share of the range, of choices 1 where they differ, also where only one has a value."""
    if isinstance(dimension, Choice) or one is None or other is None:
        return float(one != other)
    assert isinstance(dimension, Float | Int)
    scale = math.log if dimension.log else float
    width = scale(dimension.high) - scale(dimension.low)
    return abs(scale(one) - scale(other)) / width  # type: ignore[arg-type]


def load_table(path: Path) -> Table:
    """The recorded curves."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    trials = [
        Recorded(json.loads(row["point"]), [float(loss) for loss in row["losses"].split()], float(row["seconds_per_epoch"]))
        for row in rows
    ]
    return Table(exbert_embedded, trials)


def write_table(storage: Path, path: Path) -> int:
    """Writes what the ledger recorded; the number of trials."""
    rows = Ledger(storage).sql(_RECORDED).to_pylist()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["point", "seconds_per_epoch", "losses"])
        for row in rows:
            epochs = len(row["losses"]) / REPORTS_PER_EPOCH
            losses = " ".join(f"{loss:.5f}" for loss in row["losses"])
            writer.writerow([row["parameters"], f"{row['train_seconds'] / epochs:.4f}", losses])
    return len(rows)


if __name__ == "__main__":
    print(f"{write_table(Path(sys.argv[1]), Path(sys.argv[2]))} trials in {sys.argv[2]}")
