"""Which examples a trial trains on and in which order it reads their windows, epoch by epoch. Pure functions of seeds.

Nothing keeps state, so a resumed trial asks for the epoch's batches again and goes on at batch k.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from trainables.config import MixtureConfig
from trainables.data.errors import DataError
from trainables.data.splits import seeded_order

__all__ = ["batches", "epoch_order", "is_sequential", "largest_size", "mix"]

Order = Literal["concatenated", "shuffled"]
Sampler = Literal["as_ordered", "paper"]

# Windows are sorted by length inside chunks of this many batches, so that a batch pads little. 50 batches is what transformers'
# LengthGroupedSampler takes (transformers/trainer_pt_utils.py); read in sequence, a chunk is kept small to stay close to it.
_SHUFFLED_CHUNK_BATCHES = 50
_SEQUENTIAL_CHUNK_BATCHES = 8


def mix(counts: Sequence[int], train_ids: Mapping[str, Sequence[str]], mixture: MixtureConfig) -> list[tuple[int, int]]:
    """The mixture's examples as (domain index, index into that domain's `train_ids`), in the order of the mixture.

    `counts` holds one number per domain, in the order of `train_ids`. Per domain it is a prefix of one permutation seeded by
    `mixture.seed`: a larger count only adds examples. "concatenated" names all of the first domain, then all of the next.
    Raises: DataError when a domain has fewer training examples than its count.
    """
    if len(counts) != len(train_ids):
        raise DataError(f"a mixture needs one count per domain, got {len(counts)} for {', '.join(train_ids)}; name two domains")
    _check_enough(counts, train_ids, mixture)
    chosen = []
    for index, (count, (name, ids)) in enumerate(zip(counts, train_ids.items(), strict=True)):
        order = seeded_order(mixture.seed, f"examples of {name}", ids)[:count]
        chosen += [(index, int(i)) for i in order]
    if mixture.order == "concatenated":
        return chosen
    names = list(train_ids)
    keys = [f"{names[domain]}\x1f{train_ids[names[domain]][i]}" for domain, i in chosen]
    return [chosen[i] for i in seeded_order(mixture.seed, "mixture", keys)]


def _check_enough(counts: Sequence[int], train_ids: Mapping[str, Sequence[str]], mixture: MixtureConfig) -> None:
    available = {name: len(ids) for name, ids in train_ids.items()}
    for needed, (name, there) in zip(counts, available.items(), strict=True):
        if needed > there:
            largest = largest_size(list(available.values()), mixture.parts)
            raise DataError(
                f"domain {name!r} has {there} training examples, the mixture needs {needed}; "
                f"set mixture_size to at most {largest} at share={mixture.share} %, or name more rows"
            )


def largest_size(available: Sequence[int], parts: Sequence[int]) -> int:
    """The largest size of a mixture whose domains make up `parts` of it that their examples allow; 0 if none."""
    step = sum(parts) // math.gcd(*parts)  # sizes that give whole examples are multiples of it
    limits = [there * sum(parts) // part for there, part in zip(available, parts, strict=False) if part]
    return min(limits) // step * step


def is_sequential(order: Order, sampler: Sampler) -> bool:
    """Whether every epoch reads the mixture as it is ordered, rather than reshuffled."""
    return order == "concatenated" and sampler == "as_ordered"


def epoch_order(num_windows: int, *, order: Order, sampler: Sampler, epoch: int, seed: int) -> np.ndarray:
    """Window indices (num_windows,) int64 in the order of epoch `epoch` (from 0), before bucketing by length."""
    if is_sequential(order, sampler):
        return np.arange(num_windows, dtype=np.int64)
    return _generator(seed, epoch).permutation(num_windows)


def batches(
    lengths: np.ndarray, domains: np.ndarray, *, batch_size: int, order: Order, sampler: Sampler, epoch: int, seed: int
) -> list[np.ndarray]:
    """The epoch's batches: arrays of window indices, each index in [0, W) exactly once, ceil(W / batch_size) batches.

    `lengths` (W,) are tokens per window, `domains` (W,) the domain index of each, in the order of the mixture. All batches but
    one are full. Shuffled: sorted by length inside chunks of 50 batches, whose batches are then shuffled. In sequence: sorted
    inside chunks of 8 batches that do not cross from one domain to the next, so no window is read before one of an earlier
    domain; the one batch across a boundary holds the end of one domain and the beginning of the next.
    """
    windows = epoch_order(len(lengths), order=order, sampler=sampler, epoch=epoch, seed=seed)
    if is_sequential(order, sampler):
        size = batch_size * _SEQUENTIAL_CHUNK_BATCHES
        cuts = set(range(0, len(windows), size)) | {0, *(np.flatnonzero(np.diff(domains)) + 1).tolist()}
        return _cut(_sorted_between(windows, lengths, sorted(cuts)), batch_size)
    size = batch_size * _SHUFFLED_CHUNK_BATCHES
    generator = _generator(seed, epoch, 1)
    found = []
    for begin in range(0, len(windows), size):
        chunk = _cut(_sorted_between(windows[begin : begin + size], lengths, [0]), batch_size)
        found += [chunk[i] for i in generator.permutation(len(chunk))]
    return found


def _sorted_between(windows: np.ndarray, lengths: np.ndarray, cuts: Sequence[int]) -> np.ndarray:
    parts = np.split(windows, cuts[1:])
    return np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in parts])


def _cut(windows: np.ndarray, batch_size: int) -> list[np.ndarray]:
    return [windows[begin : begin + batch_size] for begin in range(0, len(windows), batch_size)]


def _generator(*seeds: int) -> np.random.Generator:
    return np.random.default_rng(list(seeds))
