"""What a plan will cost, from what past trials cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.machine import num_cpus, num_gpus
from orchestrator.preset import Resources
from orchestrator.trial import Trial
from results.ledger import Ledger
from results.storage import StorageLike

__all__ = ["Estimate", "estimate", "local_slots"]

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


def estimate(trials: Sequence[Trial], storage: StorageLike, resources: Resources) -> Estimate:
    """Seconds per example of past trials of the same model on the same encoder and window length, times the examples to go."""
    past = {_kind(row): row for row in reversed(Ledger(storage).sql(_PAST).to_pylist())} if trials else {}
    seconds, unknown, devices = 0.0, 0, set()
    for trial in trials:
        model = trial.config.model.model_dump()
        row = past.get(
            (
                trial.trainable,
                model.get("n_layers"),
                model.get("num_experts"),
                trial.data.encoder,
                trial.config.training.max_length,
            )
        )
        if row is None:
            unknown += 1
            continue
        seconds += row["seconds_per_example"] * trial.config.mixture.size * trial.config.training.epochs
        devices.add(row["device"])
    return Estimate(seconds, local_slots(resources), unknown, tuple(sorted(devices)))


def _kind(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("architecture", "n_layers", "num_experts", "encoder", "max_length"))


def local_slots(resources: Resources) -> int:
    """Trials that this machine holds at a time, at least 1."""
    slots = num_cpus() // resources.cpus_per_trial
    gpus = min(1, num_gpus()) if resources.gpus_per_trial == "auto" else resources.gpus_per_trial
    if gpus:
        slots = min(slots, int(num_gpus() / gpus + 1e-9))
    return max(1, min(slots, resources.max_concurrent or slots))
