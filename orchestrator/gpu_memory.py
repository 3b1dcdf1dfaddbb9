"""How many trials share a GPU, from what the hungriest of them was measured to take (`resources.trials_per_gpu: auto`).

The measurement is a short real training of that trial, alone on one GPU. It is kept in the run's row of the ledger, so that a
later run of the sweep does not measure again.
"""

from __future__ import annotations

import gc
import math
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.node_files import node_files
from orchestrator.trial import Trial
from results.ledger import Ledger
from results.storage import StorageLike
from trainables.config import MixtureConfig
from trainables.contract import Parent, Report, TrialContext
from trainables.registry import train_function

__all__ = ["GpuUse", "hungriest", "measure", "measured_before", "shortened", "train_some"]

HEADROOM = 1.2
"""The peak is taken this many times: the longest batch of a short training is not the longest of all (chosen, not measured)."""

_STEPS = 20
"""Optimiser steps of a measurement."""


@dataclass(frozen=True)
class GpuUse:
    """What one trial's process took of a GPU at most, bytes of `total_bytes`."""

    device: str  # the GPU's name
    peak_bytes: int
    total_bytes: int

    @property
    def trials(self) -> int:
        """Trials of that size that fit on the GPU with headroom, at least 1."""
        return max(1, int(self.total_bytes / (HEADROOM * max(1, self.peak_bytes))))

    @property
    def columns(self) -> dict[str, Any]:
        """The columns of `runs` that keep it."""
        return {"probed_device": self.device, "probed_bytes": self.peak_bytes, "probed_total_bytes": self.total_bytes}

    def __str__(self) -> str:
        peak, total = (size / 1024**3 for size in (self.peak_bytes, self.total_bytes))
        return f"{self.trials} trials share a GPU: the hungriest takes {peak:.2f} of {total:.1f} GiB on {self.device}"


def hungriest(trials: Iterable[Trial]) -> list[Trial]:
    """Of each trainable the trial to measure: the longest batches, then the most blocks, then the most experts.

    No model is built to find out, so trials of different trainables are not compared but by measuring them.
    """
    found: dict[str, Trial] = {}
    for trial in trials:
        best = found.get(trial.trainable)
        if best is None or _size(trial) > _size(best):
            found[trial.trainable] = trial
    return list(found.values())


def _size(trial: Trial) -> tuple[float, ...]:
    training, model = trial.config.training, trial.config.model.model_dump()
    n_layers = model.get("n_layers")
    blocks = math.inf if n_layers is None else n_layers  # None: all of the encoder's
    return training.batch_size * training.max_length, blocks, model.get("num_experts") or 0


def shortened(trial: Trial) -> Trial:
    """The same training cut down to some steps, its first report coming before any evaluation."""
    config = trial.config
    mixture = _smaller(config.mixture, 2 * _STEPS * config.training.batch_size)
    training = config.training.model_copy(update={"epochs": 1})
    evaluation = config.evaluation.model_copy(update={"reports_per_epoch": 2, "validate_at": "epoch"})
    changed = config.model_copy(update={"mixture": mixture, "training": training, "evaluation": evaluation})
    return replace(trial, config=changed)


def _smaller(mixture: MixtureConfig, at_least: int) -> MixtureConfig:
    """The mixture in its own proportions, cut down to hardly more than so many examples."""
    unit = sum(mixture.parts) // math.gcd(*mixture.parts)  # sizes of which all parts are whole numbers of examples
    size = min(unit * math.ceil(at_least / unit), mixture.size)
    examples = tuple(part * size // sum(mixture.parts) for part in mixture.examples)
    return mixture.model_copy(update={"size": size, "examples": examples})


def measure(trials: Iterable[Trial], storage: StorageLike, num_threads: int) -> GpuUse:
    """Trains each of the trials for some steps on this process's first GPU and says what the hungriest took.

    Counted are torch's largest reservation and what the process holds beside it (CUDA's own context). Not measured on a real
    GPU as yet.
    """
    import torch

    torch.cuda.reset_peak_memory_stats()
    for trial in trials:
        train_some(trial, storage, "cuda", num_threads)
        gc.collect()
        torch.cuda.empty_cache()  # each is measured as if it were alone
    free, total = torch.cuda.mem_get_info()
    beside = max(0, total - free - torch.cuda.memory_reserved())
    return GpuUse(torch.cuda.get_device_name(), torch.cuda.max_memory_reserved() + beside, total)


def train_some(trial: Trial, storage: StorageLike, device: str, num_threads: int) -> Report:
    """The shortened trial's first report, parents trained as shortly before. Writes nothing but what is gone again."""
    with tempfile.TemporaryDirectory() as folder:
        reports = _reports(shortened(trial), storage, device, num_threads, Path(folder))
        with closing(reports):  # type: ignore[type-var]
            return next(reports)


def _reports(trial: Trial, storage: StorageLike, device: str, num_threads: int, folder: Path) -> Iterator[Report]:
    files = node_files(storage)
    data = files.local(trial.data)
    files.fetch_prepared(trial.config, data)
    context = TrialContext(
        seed=trial.seed,
        data=data,
        device=device,
        num_threads=num_threads,
        checkpoint_dir=folder,
        prepared_dir=files.prepared_dir,
        parents=tuple(_parent(parent, storage, device, num_threads, folder) for parent in trial.parents),
    )
    return train_function(trial.trainable)(trial.config, context)


def _parent(trial: Trial, storage: StorageLike, device: str, num_threads: int, folder: Path) -> Parent:
    """A parent with weights that hardly learnt anything: as large as those that it will have."""
    from trainables.training.checkpoints import FINAL_WEIGHTS

    own = folder / trial.key
    short = shortened(trial)
    one_each = short.config.evaluation.model_copy(update={"validation_examples": 1, "test_examples": 1})
    short = replace(short, config=short.config.model_copy(update={"evaluation": one_each}))
    for _ in _reports(short, storage, device, num_threads, own):
        pass
    return Parent(key=trial.key, trainable=trial.trainable, config=trial.config, weights=own / FINAL_WEIGHTS)


def measured_before(storage: StorageLike, sweep_id: str) -> GpuUse | None:
    """What the newest run of the sweep that measured has found."""
    query = """
        SELECT probed_device, probed_bytes, probed_total_bytes FROM runs
        WHERE sweep_id = $sweep AND probed_bytes IS NOT NULL ORDER BY started_at DESC LIMIT 1
    """
    rows = Ledger(storage, must_exist=False).sql(query, {"sweep": sweep_id}).to_pylist()
    return GpuUse(*rows[0].values()) if rows else None
