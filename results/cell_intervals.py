"""Intervals of a grid's cells for figures: over seeds where there are three, else over groups of test examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from results.examples import Examples, load_examples
from results.grid import Grid, GridTrial
from results.ledger import Ledger
from results.statistics import estimate, t_interval

__all__ = ["LEAST_SEEDS", "CellIntervals"]

LEAST_SEEDS = 3
"""For Student's interval over seeds; of two seeds it is 13 standard errors wide to either side and says nothing."""


class CellIntervals:
    """95 % intervals of the mean EM of trials."""

    def __init__(self, ledger: Ledger, grid: Grid) -> None:
        self._examples: Examples = load_examples(ledger, grid)
        self.words = "95 % intervals over seeds, of fewer than three seeds over groups of test examples"

    def interval(self, trials: Sequence[GridTrial], domain: str) -> tuple[float, float] | None:
        """Of the trials' mean on a domain, percent; None where they left no predictions."""
        by_seed: dict[int, list[float]] = {}
        for trial in trials:
            if domain in trial.em:
                by_seed.setdefault(trial.seed, []).append(trial.em[domain])
        if len(by_seed) >= LEAST_SEEDS:
            return t_interval([sum(values) / len(values) for values in by_seed.values()])
        means = [mean for trial in trials if (mean := self._examples.means(trial, domain)) is not None]
        found = estimate(np.mean(means, axis=0)) if means else None
        return None if found is None or found.low is None or found.high is None else (found.low, found.high)
