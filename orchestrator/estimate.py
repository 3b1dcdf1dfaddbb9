"""What a plan will cost, and which of its trials take longest, from what past trials cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.machine import num_cpus, num_gpus
from orchestrator.placement import Request
from orchestrator.preset import Resources
from orchestrator.trial import Trial
from results.ledger import Ledger
from results.storage import StorageLike

__all__ = ["Estimate", "Expected", "estimate", "expected_seconds", "local_gpus", "local_slots", "longest_first"]

_PAST = """
SELECT architecture, n_layers, num_experts, device, data->>'encoder' AS encoder,
       CAST(config->'training'->>'max_length' AS INTEGER) AS max_length,
       median((train_seconds + startup_seconds) / (mixture_size * epochs)) AS seconds_per_example
FROM trials WHERE status = 'completed' AND trial_key NOT IN (SELECT trial_key FROM attempts WHERE status IN ('lost', 'failed'))
GROUP BY ALL ORDER BY count(*) DESC
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


@dataclass(frozen=True)
class Expected:
    """How long one trial takes, and where the past trials ran that this is reckoned by."""

    seconds: float
    device: str | None


def expected_seconds(trials: Sequence[Trial], storage: StorageLike) -> dict[str, Expected]:
    """By trial key: seconds per example of past trials of the same model on the same encoder and window length, times the
    examples to go. Trials of a kind that the ledger has no completed trial of are left out.
    """
    past = {_kind(row): row for row in reversed(Ledger(storage, must_exist=False).sql(_PAST).to_pylist())} if trials else {}
    found = {}
    for trial in trials:
        model = trial.config.model
        kind = (
            trial.trainable,
            getattr(model, "n_layers", None),
            getattr(model, "num_experts", None),
            trial.data.encoder,
            trial.config.training.max_length,
        )
        if kind in past:
            examples = trial.config.mixture.size * trial.config.training.epochs
            found[trial.key] = Expected(past[kind]["seconds_per_example"] * examples, past[kind]["device"])
    return found


def estimate(trials: Sequence[Trial], storage: StorageLike, resources: Resources) -> Estimate:
    """What the trials take together, by `expected_seconds`."""
    known = expected_seconds(trials, storage)
    devices = tuple(sorted({each.device for each in known.values() if each.device is not None}))
    seconds = [known[trial.key].seconds for trial in trials if trial.key in known]
    return Estimate(sum(seconds), local_slots(resources), len(trials) - len(seconds), devices)


def longest_first(trials: Sequence[Trial], expected: Mapping[str, Expected]) -> list[Trial]:
    """The trials in the order in which they should start: whatever is long and starts last keeps all other slots waiting.

    Those that nobody knows come first, as they may be the longest; equals keep the order of the plan. (Graham, 1969: with the
    longest first the last trial ends at most a third later than in the best order.)
    """
    return sorted(trials, key=lambda trial: -expected[trial.key].seconds if trial.key in expected else -math.inf)


def _kind(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("architecture", "n_layers", "num_experts", "encoder", "max_length"))


def local_gpus(resources: Resources) -> float:
    """GPUs that a trial holds on this machine. Trials that share one, as many as are measured later, count as one now."""
    gpus = min(1, num_gpus()) if resources.gpus_per_trial == "auto" else resources.gpus_per_trial
    return gpus if resources.trials_per_gpu == "auto" else gpus / resources.trials_per_gpu


def local_slots(resources: Resources) -> int:
    """Trials that this machine holds at a time, at least 1."""
    request = Request(resources.cpus_per_trial, local_gpus(resources))
    slots = request.trials_on({"CPU": num_cpus(), "GPU": num_gpus()})
    return max(1, min(slots, resources.max_concurrent or slots))
