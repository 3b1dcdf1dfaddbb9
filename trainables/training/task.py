"""What a trial trains and is scored on: its mixture's batches and its held-out examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from trainables.config import QAConfig
from trainables.data.counts import DomainCounts
from trainables.data.mixture import batches
from trainables.data.pool import WindowPool
from trainables.data.prepared import PreparedData, TrainingWindows
from trainables.data.spec import DataSpec
from trainables.training.preparation import prepared_for

__all__ = ["HeldOut", "Task", "open_task"]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """One domain's examples of one split. `examples` and `windows` index the task's pool; `group_ids` has one per example."""

    split: Literal["val", "test"]
    domain: str
    examples: np.ndarray
    windows: np.ndarray
    group_ids: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Task:
    """The data of one trial; memory-mapped, so that opening it is cheap."""

    config: QAConfig
    pool: WindowPool
    pad_id: int
    training: TrainingWindows
    held_out: tuple[HeldOut, ...]
    counts: Mapping[str, DomainCounts]  # by domain

    def of_split(self, split: Literal["val", "test"]) -> list[HeldOut]:
        """The held-out examples of every domain, in the order of the mixture's domains."""
        return [part for part in self.held_out if part.split == split]

    def batches(self, epoch: int, seed: int) -> list[np.ndarray]:
        """The windows of each optimiser step of an epoch, a pure function of (config, data, epoch, seed)."""
        order = batches(
            self.training.lengths,
            self.training.domains,
            batch_size=self.config.training.batch_size,
            order=self.config.mixture.order,
            sampler=self.config.mixture.sampler,
            epoch=epoch,
            seed=seed,
        )
        return [self.training.windows[places] for places in order]

    def tensors(self, windows: np.ndarray, device: str) -> dict[str, torch.Tensor]:
        """What a model takes: input_ids and attention_mask (B, T), start_positions and end_positions (B,), all int64."""
        arrays = self.pool.collate(windows, pad_id=self.pad_id)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if torch.device(device).type == "cpu":
            return tensors
        return {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in tensors.items()}


def open_task(config: QAConfig, data: DataSpec, prepared_dir: Path) -> Task:
    """The task of a trial, its features built first where they are missing.

    Raises:
        DataError: rows that cannot be used, or fewer than the mixture needs.
    """
    prepared = prepared_for(config, data, prepared_dir)
    return Task(
        config=config,
        pool=prepared.pool,
        pad_id=prepared.pad_id,
        training=prepared.training_windows(config.mixture),
        held_out=tuple(_held_out(prepared)),
        counts={name: domain.counts for name, domain in prepared.domains.items()},
    )


def _held_out(prepared: PreparedData) -> Iterator[HeldOut]:
    for split, part in (("val", "validation"), ("test", "test")):
        for name, domain in prepared.domains.items():
            yield HeldOut(
                split=split,
                domain=name,
                examples=domain.split(part),
                windows=domain.windows_of(part),
                group_ids=domain.group_ids(part),
            )
