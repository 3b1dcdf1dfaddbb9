"""What a trial trains and is scored on: its mixture's batches and its held-out examples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from trainables.config import QAConfig
from trainables.data.counts import DomainCounts
from trainables.data.errors import DataError
from trainables.data.mixture import batches
from trainables.data.pool import WindowPool
from trainables.data.prepared import PreparedData, TrainingWindows, open_prepared
from trainables.data.spec import DataSpec
from trainables.models.encoder import encoder_config

__all__ = ["HeldOut", "Task", "open_task", "prepare_all"]


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
        return {name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in arrays.items()}


def open_task(config: QAConfig, data: DataSpec, prepared_dir: Path) -> Task:
    """The task of a trial, its features built first where they are missing.

    Raises:
        DataError: rows that cannot be used, or fewer than the mixture needs.
    """
    prepared = open_prepared(
        data,
        config.mixture,
        max_length=config.training.max_length,
        stride=config.training.stride,
        prepared_dir=prepared_dir,
        validation_examples=config.evaluation.validation_examples,
        test_examples=config.evaluation.test_examples,
    )
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


def prepare_all(trials: Iterable[tuple[QAConfig, DataSpec]], prepared_dir: Path) -> Iterator[str]:
    """Builds the features of all trials, checks that each can have what it asks for, and says what there is, line by line.

    Raises:
        DataError: rows that cannot be used, fewer than a mixture needs, or an encoder that does not fit the settings.
    """
    opened: dict[str, Mapping[str, DomainCounts]] = {}
    for config, data in trials:
        _check_encoder(config, data.encoder)
        parts = (config.mixture, config.training, config.evaluation, data)
        what = "".join(part.model_dump_json() for part in parts)
        if what not in opened:
            opened[what] = open_task(config, data, prepared_dir).counts
    lines = (f"{name}: {domain.describe()}" for counts in opened.values() for name, domain in counts.items())
    yield from dict.fromkeys(lines)


def _check_encoder(config: QAConfig, encoder: str) -> None:
    folder = Path(encoder)
    if folder.is_dir() and not any(path.suffix in (".safetensors", ".bin") for path in folder.iterdir()):
        raise DataError(
            f"an encoder folder holds weights (*.safetensors or *.bin), got {folder} without any; name another folder"
        )
    n_layers = getattr(config.model, "n_layers", None)
    of_encoder = encoder_config(encoder, n_layers)
    if config.training.max_length > of_encoder.max_position_embeddings:
        raise DataError(
            f"training.max_length must be at most {of_encoder.max_position_embeddings}, the positions of {encoder}, "
            f"got {config.training.max_length}"
        )
    block = getattr(config.model, "moe_block", None)
    if block is not None and block > of_encoder.n_layers:
        raise DataError(f"model.moe_block must be in [1, {of_encoder.n_layers}], the blocks kept, got {block}")
