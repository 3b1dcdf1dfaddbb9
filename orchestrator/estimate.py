"""What a plan will cost, from what past trials cost."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.preset import Resources
from orchestrator.trial import Trial
from results.ledger import Ledger

__all__ = ["Estimate", "estimate", "local_slots"]

_PAST = """
SELECT architecture, n_layers, num_experts, device,
       median((train_seconds + startup_seconds) / (mixture_size * epochs)) AS seconds_per_example, count(*) AS num_trials
FROM trials WHERE status = 'completed' AND attempts = 1
GROUP BY ALL ORDER BY num_trials DESC
"""


@dataclass(frozen=True)
class Estimate:
    """Time a plan will take. `unknown` trials are of a kind that the ledger has no completed trial of."""

    trial_seconds: float  # sum over the known trials
    slots: int
    unknown: int
    devices: tuple[str, ...]  # where the past trials ran

    @property
    def wall_seconds(self) -> float:
        """Trial seconds shared evenly by the slots."""
        return self.trial_seconds / self.slots


def estimate(trials: Iterable[Trial], storage: Path, resources: Resources) -> Estimate:
    """Seconds per example of past trials of the same architecture, and size where there are any, times the examples to go."""
    past = Ledger(storage).sql(_PAST).to_pylist()
    seconds, unknown, devices = 0.0, 0, set()
    for trial in trials:
        model = trial.config.model.model_dump()
        same = [row for row in past if row["architecture"] == trial.trainable]
        exact = [row for row in same if all(row[name] == model.get(name) for name in ("n_layers", "num_experts"))]
        if not same:
            unknown += 1
            continue
        row = (exact or same)[0]
        seconds += row["seconds_per_example"] * trial.config.mixture.size * trial.config.training.epochs
        devices.add(row["device"])
    return Estimate(seconds, local_slots(resources), unknown, tuple(sorted(devices)))


def local_slots(resources: Resources) -> int:
    """Trials that this machine's CPUs hold at a time, at least 1."""
    num_cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    slots = max(1, num_cpus // resources.cpus_per_trial)
    return min(slots, resources.max_concurrent or slots)
