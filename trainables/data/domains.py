"""One domain's prepared files divided into train, validation and test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trainables.config import MixtureConfig
from trainables.data.counts import DomainCounts, PartCounts
from trainables.data.pool import WindowPool
from trainables.data.spec import DomainSpec
from trainables.data.splits import GroupBy, Split, group_id, resolve_group_by, seeded_order, split_by_group, without_overlap
from trainables.data.store import PreparedFile

__all__ = ["DomainFiles", "Part", "PreparedDomain", "UsableRows", "open_domain", "usable_rows"]

Part = Literal["train", "validation", "test"]

_KEY_COLUMN = {"group": "group", "question": "question_key", "context": "context_key"}


@dataclass(frozen=True, kw_only=True)
class DomainFiles:
    """A domain's opened files; `test` None: test rows are held out of the training file."""

    name: str
    spec: DomainSpec
    train: PreparedFile
    test: PreparedFile | None

    @property
    def opened(self) -> list[PreparedFile]:
        """The one or two files, training first."""
        return [self.train] if self.test is None else [self.train, self.test]


@dataclass(frozen=True, kw_only=True)
class UsableRows:
    """Rows of the training file that no test row stands in the way of."""

    rows: np.ndarray
    group_by: GroupBy
    num_dropped: int


@dataclass(frozen=True, kw_only=True)
class PreparedDomain:
    """One domain's examples by part; indices count through the pool that all domains share."""

    name: str
    pool: WindowPool
    parts: Mapping[Part, np.ndarray]
    counts: DomainCounts

    def split(self, part: Part) -> np.ndarray:
        """The part's examples as indices into the pool, ascending, int64."""
        return self.parts[part]

    def windows_of(self, part: Part) -> np.ndarray:
        """The part's windows as indices into the pool, int64."""
        return self.pool.windows_of(self.parts[part])

    def group_ids(self, part: Part) -> list[str]:
        """The group of each of the part's examples, 16 hex digits; no example of another part has it."""
        return [group_id(key) for key in self.pool.column(_KEY_COLUMN[self.counts.group_by], self.parts[part])]


def usable_rows(files: DomainFiles) -> UsableRows:
    """The training rows to split, by the domain's rules on groups and overlap, which no seed enters.

    Raises: DataError when a group is missing, or training and test rows overlap and may not.
    """
    test = None if files.test is None else files.test.keys
    group_by = resolve_group_by(files.spec.group_by, files.train.keys, test, f"domain {files.name!r}")
    if test is None:
        return UsableRows(rows=np.arange(len(files.train.keys), dtype=np.int64), group_by=group_by, num_dropped=0)
    rows, num_dropped = without_overlap(files.train.keys, test, group_by, files.spec, files.name)
    return UsableRows(rows=rows, group_by=group_by, num_dropped=num_dropped)


def open_domain(
    files: DomainFiles, pool: WindowPool, first_file: int, mixture: MixtureConfig, limits: Mapping[Part, int | None]
) -> PreparedDomain:
    """The domain split by `mixture.seed` and its shares; its files stand in `pool` from `first_file` on.

    `limits` keeps the first so many examples of a part in a seeded order, None all.
    Raises: DataError as `usable_rows`, or when there are too few groups.
    """
    usable = usable_rows(files)
    split = split_by_group(
        files.train.keys.by(usable.group_by),
        usable.rows,
        seed=mixture.seed,
        validation_share=mixture.validation_share,
        test_share=mixture.test_share if files.test is None else None,
        where=f"domain {files.name!r}",
    )
    found = _parts(files, split, pool, first_file)
    parts = {part: _limited(examples, limits[part], f"first of {part}", pool, mixture.seed) for part, examples in found.items()}
    return PreparedDomain(name=files.name, pool=pool, parts=parts, counts=_counts(files, usable, parts, pool))


def _parts(files: DomainFiles, split: Split, pool: WindowPool, first_file: int) -> dict[Part, np.ndarray]:
    train = pool.examples_of_file(first_file)
    test = train[split.test] if files.test is None else pool.examples_of_file(first_file + 1)
    return {"train": train[split.train], "validation": train[split.validation], "test": test}


def _limited(examples: np.ndarray, limit: int | None, purpose: str, pool: WindowPool, seed: int) -> np.ndarray:
    if limit is None or limit >= len(examples):
        return examples
    return np.sort(examples[seeded_order(seed, purpose, pool.column("id", examples))[:limit]])


def _counts(files: DomainFiles, usable: UsableRows, parts: Mapping[Part, np.ndarray], pool: WindowPool) -> DomainCounts:
    return DomainCounts(
        train_rows=files.train.counts,
        test_rows=None if files.test is None else files.test.counts,
        group_by=usable.group_by,
        dropped_overlap=usable.num_dropped,
        parts={part: _part_counts(examples, usable.group_by, pool) for part, examples in parts.items()},
    )


def _part_counts(examples: np.ndarray, group_by: GroupBy, pool: WindowPool) -> PartCounts:
    windows = pool.windows_of(examples)
    labelled = np.unique(pool.example_index[windows[pool.ends[windows] > 0]])
    return PartCounts(
        groups=len(set(pool.column(_KEY_COLUMN[group_by], examples))),
        examples=len(examples),
        windows=len(windows),
        unlabelled=len(examples) - len(labelled),
    )
