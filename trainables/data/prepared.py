"""The data of a trial, ready to train on: prepared once per content, memory-mapped by all trials, split and mixed when opened.

A prepared file is named by what decides it: the rows' fingerprint, the code that loads them, the tokenizer, max_length and
stride. Nothing here imports torch; datasets and transformers only when a file has to be built.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

from trainables.config import MixtureConfig
from trainables.data.counts import check_dropped
from trainables.data.domains import DomainFiles, Part, PreparedDomain, open_domain, usable_rows
from trainables.data.errors import DataError
from trainables.data.mixture import mix
from trainables.data.pool import WindowPool
from trainables.data.sources import Role, canonical_digest, source_fingerprint, tokenizer_fingerprint
from trainables.data.spec import DataSpec, DomainSpec
from trainables.data.store import PreparedFile, open_file

__all__ = ["PreparedData", "TrainingWindows", "open_prepared", "prepare", "prepared_names"]

_ROLES: tuple[Role, ...] = ("train", "test")

# The modules that decide what stands in a prepared file.
_LOADER_MODULES = ("align", "build", "columns", "formats", "loading", "rows", "splits", "store", "windows")


@dataclass(frozen=True, kw_only=True)
class TrainingWindows:
    """A mixture's windows in its order: `windows` index the pool, the others go to `mixture.batches`; all (W,) int64."""

    windows: np.ndarray
    lengths: np.ndarray
    domains: np.ndarray
    num_examples: int


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """All domains of a trial over one pool."""

    pool: WindowPool
    domains: Mapping[str, PreparedDomain]
    pad_id: int

    def counts_of(self, mixture: MixtureConfig) -> list[int]:
        """Training examples that the mixture takes from each domain; those beyond its `counts` give none."""
        if len(self.domains) == 1 and mixture.share == 100:
            return [mixture.size]
        return [*mixture.counts, *[0] * (len(self.domains) - len(mixture.counts))]

    def training_windows(self, mixture: MixtureConfig) -> TrainingWindows:
        """The windows of the mixture's examples.

        Raises: DataError when a domain has too few training examples.
        """
        train = [domain.split("train") for domain in self.domains.values()]
        ids = {name: self.pool.column("id", rows) for name, rows in zip(self.domains, train, strict=True)}
        chosen = mix(self.counts_of(mixture), ids, mixture)
        examples = np.array([train[index][i] for index, i in chosen], dtype=np.int64)
        windows = self.pool.windows_of(examples)
        domain_of_example = np.zeros(self.pool.num_examples, dtype=np.int64)
        domain_of_example[examples] = [index for index, _ in chosen]
        return TrainingWindows(
            windows=windows,
            lengths=self.pool.lengths[windows],
            domains=domain_of_example[self.pool.example_index[windows]],
            num_examples=len(examples),
        )


def prepare(data: DataSpec, *, max_length: int, stride: int, prepared_dir: Path) -> None:
    """Builds what is missing in `prepared_dir`, so that `open_prepared` finds it; safe in several processes at once.

    Raises: DataError when a domain's rows cannot be used, or training and test rows overlap against its `overlap`.
    """
    for files in _all_files(data, max_length, stride, prepared_dir):
        usable_rows(files)


def prepared_names(data: DataSpec, *, max_length: int, stride: int) -> list[str]:
    """The names of the folders that `prepare` makes in `prepared_dir`, which follow from their content.

    Raises: DataError when a file is missing, or the hub cannot be asked and nothing pins a revision.
    """
    shelf = _Shelf(encoder=data.encoder, max_length=max_length, stride=stride, folder=Path())
    sources = [(spec, role, getattr(spec, role)) for spec in data.domains.values() for role in _ROLES]
    return list(dict.fromkeys(shelf.name(text, role, spec) for spec, role, text in sources if text is not None))


def open_prepared(
    data: DataSpec,
    mixture: MixtureConfig,
    *,
    max_length: int,
    stride: int,
    prepared_dir: Path,
    validation_examples: int | None = None,
    test_examples: int | None = None,
) -> PreparedData:
    """The trial's data, built first where it is missing. Splits follow `mixture.seed` and its shares.

    `validation_examples` and `test_examples` keep the first so many per domain in a seeded order; None keeps all.
    Raises: DataError as `prepare`, or when a domain has too few groups to split.
    """
    files = tuple(_all_files(data, max_length, stride, prepared_dir))
    splits = MixtureConfig(seed=mixture.seed, validation_share=mixture.validation_share, test_share=mixture.test_share)
    return _opened(files, splits, validation_examples, test_examples)


@lru_cache(maxsize=4)
def _opened(
    files: tuple[DomainFiles, ...], splits: MixtureConfig, validation_examples: int | None, test_examples: int | None
) -> PreparedData:
    """Split and counted once a process for all trials that split alike: a grid's mixtures differ in share and order alone."""
    pool = WindowPool([opened for domain in files for opened in domain.opened])
    limits: dict[Part, int | None] = {"train": None, "validation": validation_examples, "test": test_examples}
    domains, first_file = {}, 0
    for domain in files:
        domains[domain.name] = open_domain(domain, pool, first_file, splits, limits)
        first_file += len(domain.opened)
    return PreparedData(pool=pool, domains=domains, pad_id=files[0].train.pad_id)


@dataclass(frozen=True, kw_only=True)
class _Shelf:
    """Where prepared files stand, and what all of one trial's have in common."""

    encoder: str
    max_length: int
    stride: int
    folder: Path

    def file(self, text: str, role: Role, spec: DomainSpec) -> PreparedFile:
        """The prepared file of the rows that `text` names, built if it is not there yet."""
        folder = self.folder / self.name(text, role, spec)
        if not folder.is_dir():
            from trainables.data.build import build_file  # imports transformers: only when there is something to build

            build_file(folder, text, role, spec, self.encoder, max_length=self.max_length, stride=self.stride)
        file = open_file(folder)
        check_dropped(file.counts, spec.max_dropped_share, text)
        return file

    def name(self, text: str, role: Role, spec: DomainSpec) -> str:
        """The name of that file's folder."""
        identity = {
            "rows": source_fingerprint(text, role),
            "format": spec.format,
            "tokenizer": tokenizer_fingerprint(self.encoder),
            "max_length": self.max_length,
            "stride": self.stride,
            "loader": _loader_version(),
        }
        return canonical_digest(identity)[:32]


def _all_files(data: DataSpec, max_length: int, stride: int, prepared_dir: Path) -> list[DomainFiles]:
    if not data.domains:
        raise DataError("at least one domain is needed, got none; name two under `domains`, or use --preset embedded")
    shelf = _Shelf(encoder=data.encoder, max_length=max_length, stride=stride, folder=prepared_dir)
    return [
        DomainFiles(
            name=name,
            spec=spec,
            train=shelf.file(spec.train, "train", spec),
            test=None if spec.test is None else shelf.file(spec.test, "test", spec),
        )
        for name, spec in data.domains.items()
    ]


@cache
def _loader_version() -> str:
    """Changes with the code and the libraries that make a prepared file, so that a stale one is never read."""
    here = Path(__file__).parent
    digests = [hashlib.sha256((here / f"{name}.py").read_bytes()).hexdigest() for name in _LOADER_MODULES]
    return canonical_digest([*digests, version("tokenizers"), version("transformers")])
