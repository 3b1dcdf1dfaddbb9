"""What trials need as files: the data, its prepared features, their checkpoints. On a folder they are used where they lie.

With an object store the data that a preset names locally is copied into it, so that every node can read it, and each node
fetches what it needs once into its cache (`orchestrator.node_cache`), from which all trials map it. Nothing goes through Ray.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from orchestrator.errors import SweepError
from orchestrator.node_cache import add_bundle, cache_folder, fetch_bundle, fetch_file, publish_bundle
from results.object_storage import ObjectStorage
from results.storage import StorageLike, open_sweep_storage
from trainables.config import QAConfig
from trainables.data.sources import (
    LocalSource,
    Role,
    canonical_digest,
    data_files,
    encoder_fingerprint,
    parse_encoder,
    parse_source,
    source_fingerprint,
    without_split,
)
from trainables.data.spec import DataSpec, DomainSpec

__all__ = ["NodeFiles", "TrialCheckpoints", "node_files"]

_FINAL = "final.safetensors"  # as trainables.training.checkpoints calls them; that brings torch

_KEPT = "storage:"
"""What the location of data begins with that lies in the sweep's own storage."""

_REFERENCE = re.compile(rf"{_KEPT}(?P<bundle>inputs/[0-9a-f]+)(?P<rest>(/[^/:]*[^/:.][^/:]*)?(:[\w.+-]+)?)")


class TrialCheckpoints(Protocol):
    """A trial's checkpoints."""

    @property
    def folder(self) -> Path:
        """Where this process reads and writes them."""
        ...

    def fetch(self, is_enough: Callable[[], bool]) -> None:
        """Brings those of the storage into the folder, the newest first, until there are enough."""

    def publish(self, path: Path) -> None:
        """Puts one that was just written into the storage, and takes away those that are no longer in the folder."""

    def forget_steps(self) -> None:
        """Takes all but the final weights out of the storage."""

    def close(self) -> None:
        """Ends their use by this process."""


class NodeFiles(Protocol):
    """The files of one storage on this node."""

    prepared_dir: Path
    corpora_dir: Path

    def adopt(self, data: DataSpec) -> DataSpec:
        """The same data under names that any node can read, as long as `publish` follows before a sweep."""

    def publish(self, data: DataSpec) -> None:
        """Puts data that was adopted where any node can read it."""

    def local(self, data: DataSpec) -> DataSpec:
        """The same data as files of this node."""

    def publish_prepared(self, config: QAConfig, data: DataSpec) -> None:
        """Puts the prepared features of `data`, which is local, where any node can read them."""

    def fetch_prepared(self, config: QAConfig, data: DataSpec) -> None:
        """Brings the prepared features of `data`, which is local, to this node, where the storage has them."""

    def checkpoints(self, trial_key: str) -> TrialCheckpoints:
        """The checkpoints of a trial."""

    def check_final_weights(self, trial_key: str) -> None:
        """Raises SweepError where the weights of a completed trial are not kept."""

    def final_weights(self, trial_key: str) -> Path:
        """Them as a file of this node. Raises SweepError, as `check_final_weights`."""


def node_files(storage: StorageLike) -> NodeFiles:
    """The files of a storage on this node."""
    opened = open_sweep_storage(storage)
    if isinstance(opened, ObjectStorage):
        return _FetchedFiles(opened)
    assert opened.folder is not None
    return _SharedFiles(opened.folder)


@dataclass(frozen=True)
class _SharedCheckpoints:
    folder: Path

    def fetch(self, is_enough: Callable[[], bool]) -> None: ...
    def publish(self, path: Path) -> None: ...
    def forget_steps(self) -> None: ...
    def close(self) -> None: ...


class _SharedFiles:
    """A folder that every node sees: all is used where it lies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.prepared_dir = folder / "prepared"
        self.corpora_dir = folder / "corpora"

    def adopt(self, data: DataSpec) -> DataSpec:
        return data

    def publish(self, data: DataSpec) -> None: ...

    def local(self, data: DataSpec) -> DataSpec:
        return data

    def publish_prepared(self, config: QAConfig, data: DataSpec) -> None: ...
    def fetch_prepared(self, config: QAConfig, data: DataSpec) -> None: ...

    def checkpoints(self, trial_key: str) -> TrialCheckpoints:
        return _SharedCheckpoints(self._folder / "checkpoints" / trial_key)

    def check_final_weights(self, trial_key: str) -> None:
        self.final_weights(trial_key)

    def final_weights(self, trial_key: str) -> Path:
        path = self.checkpoints(trial_key).folder / _FINAL
        if not path.exists():
            raise _no_weights(trial_key)
        return path


class _FetchedFiles:
    """An object store, and this node's cache of it."""

    def __init__(self, storage: ObjectStorage) -> None:
        self._storage = storage
        self._published: set[str] = set()
        self.prepared_dir = cache_folder() / "prepared"
        self.corpora_dir = cache_folder() / "corpora"

    def adopt(self, data: DataSpec) -> DataSpec:
        return _relocated(data, _adopted_source, _adopted_encoder)

    def publish(self, data: DataSpec) -> None:
        for text in _locations(data):
            if kept := _REFERENCE.fullmatch(text):
                self._local(text)  # adopted on another machine, it is in the storage already
                publish_bundle(self._storage, kept["bundle"])

    def local(self, data: DataSpec) -> DataSpec:
        return _relocated(data, lambda text, _: self._local(text), self._local)

    def _local(self, text: str) -> str:
        kept = _REFERENCE.fullmatch(text)
        if kept is None:
            return text
        try:
            return f"{fetch_bundle(self._storage, kept['bundle'])}{kept['rest']}"
        except FileNotFoundError as error:
            raise SweepError(
                f"{self._storage} has no complete {kept['bundle']}, which a sweep reads; run that sweep's own command again"
            ) from error

    def publish_prepared(self, config: QAConfig, data: DataSpec) -> None:
        for name in _prepared(config, data):
            if name not in self._published:  # most trials have the same
                publish_bundle(self._storage, f"prepared/{name}")
                self._published.add(name)

    def fetch_prepared(self, config: QAConfig, data: DataSpec) -> None:
        for name in _prepared(config, data):
            try:
                fetch_bundle(self._storage, f"prepared/{name}")
            except FileNotFoundError:  # removed since the sweep began: the trainable prepares what it lacks
                continue

    def checkpoints(self, trial_key: str) -> TrialCheckpoints:
        return _FetchedCheckpoints(self._storage, trial_key)

    def check_final_weights(self, trial_key: str) -> None:
        if _FINAL not in self._storage.names(f"checkpoints/{trial_key}"):
            raise _no_weights(trial_key)

    def final_weights(self, trial_key: str) -> Path:
        try:
            return fetch_file(self._storage, f"checkpoints/{trial_key}/{_FINAL}")
        except FileNotFoundError:
            raise _no_weights(trial_key) from None


class _FetchedCheckpoints:
    """Written on this node's disk, then uploaded: an object is there when it is complete."""

    def __init__(self, storage: ObjectStorage, trial_key: str) -> None:
        self._storage = storage
        self._name = f"checkpoints/{trial_key}"
        scratch = cache_folder() / "checkpoints"
        scratch.mkdir(parents=True, exist_ok=True)
        for left in scratch.glob(f"{trial_key}-*"):  # of processes that were killed
            number = left.name.rpartition("-")[2]
            if not number.isdecimal() or not psutil.pid_exists(int(number)) or int(number) == os.getpid():
                shutil.rmtree(left, ignore_errors=True)
        self.folder = scratch / f"{trial_key}-{os.getpid()}"
        self.folder.mkdir()

    def fetch(self, is_enough: Callable[[], bool]) -> None:
        for name in reversed(self._steps()):
            self._storage.fetch(self._storage.path(f"{self._name}/{name}"), self.folder / name)
            if is_enough():
                return

    def publish(self, path: Path) -> None:
        self._storage.write(self._storage.path(f"{self._name}/{path.name}"), path)
        kept = {file.name for file in self.folder.iterdir()}
        steps = self._steps()
        kept.update([name for name in steps if name < path.name][-1:])  # also where only a newer one was fetched
        self._remove([name for name in steps if name not in kept])

    def forget_steps(self) -> None:
        self._remove(self._steps())

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _steps(self) -> list[str]:
        """Those in the storage, the oldest first: their names have leading zeros."""
        return sorted(name for name in self._storage.names(self._name) if name.startswith("step-"))

    def _remove(self, names: list[str]) -> None:
        for name in names:
            self._storage.remove(self._storage.path(f"{self._name}/{name}"))


def _no_weights(trial_key: str) -> SweepError:
    return SweepError(
        f"trial {trial_key} is complete, but its weights are no longer kept, and another trial begins from them; "
        "keep weights with recovery.keep_checkpoints=all, and train it anew with another seed or storage"
    )


def _prepared(config: QAConfig, data: DataSpec) -> list[str]:
    from trainables.data.prepared import prepared_names  # brings numpy: not for commands that only look

    return prepared_names(data, max_length=config.training.max_length, stride=config.training.stride)


def _relocated(data: DataSpec, source: Callable[[str, Role], str], encoder: Callable[[str], str]) -> DataSpec:
    def moved(spec: DomainSpec) -> DomainSpec:
        test = None if spec.test is None else source(spec.test, "test")
        return spec.model_copy(update={"train": source(spec.train, "train"), "test": test})

    domains = {name: moved(spec) for name, spec in data.domains.items()}
    return data.model_copy(update={"encoder": encoder(data.encoder), "domains": domains})


def _locations(data: DataSpec) -> Iterable[str]:
    yield data.encoder
    for spec in data.domains.values():
        yield spec.train
        if spec.test is not None:
            yield spec.test


def _adopted_source(text: str, role: Role) -> str:
    if _REFERENCE.fullmatch(text) or not isinstance(source := parse_source(text, role), LocalSource):
        return text
    # With the name: a format may be told by it, and two files may have the same content.
    named = canonical_digest({"content": source_fingerprint(text, role), "name": source.path.name})
    bundle, splits = f"inputs/{named[:32]}", text.removeprefix(without_split(text))
    if source.path.is_file():
        add_bundle(bundle, {source.path.name: source.path})
        return f"{_KEPT}{bundle}/{source.path.name}{splits}"
    add_bundle(bundle, {file.relative_to(source.path).as_posix(): file for file in data_files(source.path)})
    return f"{_KEPT}{bundle}{splits}"


def _adopted_encoder(text: str) -> str:
    if _REFERENCE.fullmatch(text) or (folder := parse_encoder(text).path) is None:
        return text
    bundle = f"inputs/{encoder_fingerprint(text)[:32]}"
    add_bundle(bundle, {file.name: file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")})
    return f"{_KEPT}{bundle}"
