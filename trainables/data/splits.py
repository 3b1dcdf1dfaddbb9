"""Train, validation and test by group: rows that share a group never part, and nothing depends on the order of the file.

Every order here is by SHA-256 of (seed, purpose, key): the same in every process, on every machine and numpy version, and
removing rows leaves the order of the others as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np

from trainables.data.errors import DataError
from trainables.data.spec import DomainSpec

__all__ = [
    "GroupBy",
    "RowKeys",
    "Split",
    "context_key",
    "overlapping_rows",
    "question_key",
    "resolve_group_by",
    "seeded_order",
    "split_by_group",
    "without_overlap",
]

GroupBy = Literal["group", "question", "context"]


@dataclass(frozen=True, kw_only=True)
class RowKeys:
    """What grouping and overlap look at, one entry per row; `group` is "" where the source gives none."""

    group: Sequence[str]
    question: Sequence[str]
    context: Sequence[str]

    def by(self, kind: GroupBy) -> Sequence[str]:
        """The keys of one kind."""
        assert kind in get_args(GroupBy)
        keys: Sequence[str] = getattr(self, kind)
        return keys

    def __len__(self) -> int:
        return len(self.group)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Row indices (int64, ascending) of one file; `test` is empty where another file holds the test rows."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def question_key(text: str) -> str:
    """The same for questions that differ in whitespace and case alone: 32 hex digits."""
    return _digest(" ".join(text.split()).casefold())


def context_key(text: str) -> str:
    """The same for contexts that differ in whitespace alone: 32 hex digits."""
    return _digest(" ".join(text.split()))


def group_id(key: str) -> str:
    """A group's name, whatever its key is made of: 16 hex digits."""
    return _digest(key)[:16]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def resolve_group_by(group_by: str, train: RowKeys, test: RowKeys | None, where: str) -> GroupBy:
    """What rows are grouped by. "auto": their own group if all have one, else the coarser of question and context.

    Raises: DataError when "group" is asked for and rows have none.
    """
    files = [train] if test is None else [train, test]
    missing = sum(1 for keys in files for group in keys.group if not group)
    if group_by == "group" and missing:
        raise DataError(
            f"group_by=group needs a group in every row, {missing} rows of {where} have none; take group_by=question or context"
        )
    if group_by != "auto":
        return cast(GroupBy, group_by)
    if not missing:
        return "group"
    return "question" if len(set(train.question)) < len(set(train.context)) else "context"


def overlapping_rows(train: RowKeys, test: RowKeys, kind: GroupBy) -> np.ndarray:
    """Indices of the training rows whose group, or whose question and context together, stand in the test rows."""
    groups = set(test.by(kind))
    pairs = set(zip(test.question, test.context, strict=True))
    rows = zip(train.by(kind), train.question, train.context, strict=True)
    return np.array([i for i, (key, *pair) in enumerate(rows) if key in groups or tuple(pair) in pairs], dtype=np.int64)


def without_overlap(train: RowKeys, test: RowKeys, kind: GroupBy, spec: DomainSpec, name: str) -> tuple[np.ndarray, int]:
    """Indices of the training rows that may be used, and how many were dropped because test rows hold them too.

    `name` is the domain's. Raises: DataError when there are any and `spec.overlap` is "refuse", or when none would be left.
    """
    where, shared = f"domain {name!r}", overlapping_rows(train, test, kind)
    if len(shared) and spec.overlap == "refuse":
        raise DataError(
            f"{len(shared)} of {len(train)} training rows of {where} share a {kind}, or question and context, with test rows, "
            f"allowed are 0 (first: row {shared[0]}); name disjoint files, "
            f"or leave those rows out with --set domains.{name}.overlap=drop"
        )
    if len(shared) == len(train):
        raise DataError(f"all {len(train)} training rows of {where} are in the test rows; name another file or split for one")
    return np.setdiff1d(np.arange(len(train), dtype=np.int64), shared), len(shared)


def split_by_group(
    keys: Sequence[str], rows: np.ndarray, *, seed: int, validation_share: float, test_share: float | None, where: str
) -> Split:
    """`rows` (indices into `keys`) in up to three parts that share no key.

    Shares are of the groups, rounded, at least one group each; `test_share` None holds out no test rows.
    Raises: DataError when there are fewer groups than parts.
    """
    groups = sorted({keys[row] for row in rows})
    ordered = [groups[i] for i in seeded_order(seed, "groups", groups)]
    num_test = 0 if test_share is None else max(1, round(test_share * len(groups)))
    num_validation = max(1, round(validation_share * len(groups)))
    if num_test + num_validation >= len(groups):
        needed = num_test + num_validation + 1
        raise DataError(
            f"{where} has {len(groups)} groups, at least {needed} are needed to hold out {num_validation} for validation and "
            f"{num_test} for test; add rows, lower the shares, name a test file, or choose a finer group_by"
        )
    test, validation = set(ordered[:num_test]), set(ordered[num_test : num_test + num_validation])
    part = np.array([2 if keys[row] in test else 1 if keys[row] in validation else 0 for row in rows])
    ascending = np.sort(rows)
    part = part[np.argsort(rows, kind="stable")]
    return Split(train=ascending[part == 0], validation=ascending[part == 1], test=ascending[part == 2])


def seeded_order(seed: int, purpose: str, keys: Sequence[str]) -> np.ndarray:
    """Indices (int64) of `keys` in their seeded order. Equal keys stay in the order given; other keys do not move."""
    prefix = hashlib.sha256(f"{seed}\x1f{purpose}\x1f".encode())
    digests = []
    for key in keys:
        digest = prefix.copy()
        digest.update(key.encode())
        digests.append(digest.digest())
    return np.array(sorted(range(len(digests)), key=digests.__getitem__), dtype=np.int64)
