"""A storage: the root that holds everything, in a folder or in an object store, and the few operations that all else rests on.

    Storage                    any file system that pyarrow reaches: its ledger can be read
    └── SweepStorage           one that sweeps can run on
        ├── FolderStorage      a folder of this machine, or one mounted on all nodes
        └── ObjectStorage      s3://, gs:// (`results.object_storage`)

Files are written whole: they appear with all of their content or not at all, and replace a former version in one step.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, TypeAlias
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as fs

from results.compacted import INDEX_NAME
from results.naming import one_of
from results.schema import TABLES

__all__ = [
    "ASIDE",
    "OBJECT_STORES",
    "PART_SUFFIX",
    "FolderStorage",
    "PartInfo",
    "Storage",
    "StorageLike",
    "SweepStorage",
    "is_part",
    "open_storage",
    "open_sweep_storage",
]

PART_SUFFIX = ".parquet"
ASIDE = "~"
"""What the name of a part set aside ends with; no part's own name can hold it."""

OBJECT_STORES = ("gs", "s3")
"""Schemes of the object stores that sweeps run on."""

_LIKE_URI = re.compile(r"(file|mock|s3|gs|gcs|hdfs|viewfs|abfss?)(:|//)", re.IGNORECASE)
"""How a URI begins that pyarrow opens, with something missing: taken for a folder, results would go where nobody looks."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_temporary_ids = itertools.count()


@dataclass(frozen=True)
class PartInfo:
    """A finished part as a listing shows it; `stamp` changes whenever the part is replaced."""

    table: str
    path: str
    stamp: tuple[int, int]
    """Modification time in nanoseconds, or what the store calls the version; size in bytes."""

    @property
    def name(self) -> str:
        """The part's name without folder and suffix, also when it was set aside."""
        return self.path.rsplit("/", 1)[-1].removesuffix(PART_SUFFIX).removesuffix(ASIDE)

    @property
    def num_bytes(self) -> int:
        """Size in bytes."""
        return self.stamp[1]


@dataclass(frozen=True)
class Storage:
    """A root folder on any file system that pyarrow reaches; the one place that builds paths of the ledger.

    Paths are those of the file system, as `path` makes them; names are relative to the root, with forward slashes.
    """

    filesystem: fs.FileSystem
    root: str
    shown: str
    """The storage as the user named it, for messages."""

    def __str__(self) -> str:
        """How `--storage` names it."""
        return self.shown

    @property
    def is_local(self) -> bool:
        """True when the root is a folder of this machine."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def path(self, relative: str) -> str:
        """The path on the file system of `relative`, which uses forward slashes."""
        return f"{self.root}/{relative}"

    def part_path(self, table: str, name: str) -> str:
        """The path of a part. Raises ValueError for an unknown table or a name that could not be a file name."""
        if table not in TABLES:
            raise ValueError(one_of("table", table, TABLES))
        if not _NAME.fullmatch(name):
            raise ValueError(f"part name must match {_NAME.pattern}, got {name!r}")
        return self.path(f"ledger/{table}/{name}{PART_SUFFIX}")

    def has_ledger(self) -> bool:
        """True once anything was written to the ledger."""
        return bool(self.filesystem.get_file_info(self.path("ledger")).type == fs.FileType.Directory)

    def relative(self, path: str) -> str:
        """The inverse of `path`."""
        return path.removeprefix(f"{self.root}/")

    def files(self, folder: str, *, recursive: bool = True) -> list[fs.FileInfo]:
        """All files below `folder`, which is relative to the root, sorted by path; none when it does not exist."""
        selector = fs.FileSelector(self.path(folder), allow_not_found=True, recursive=recursive)
        return sorted((info for info in self.filesystem.get_file_info(selector) if info.is_file), key=lambda info: info.path)

    def parts(self, table: str) -> list[PartInfo]:
        """The finished parts of `table` that are files of their own, sorted by path; none when the folder does not exist.

        A part that was set aside counts until a newer version of it is written.
        """
        infos = [info for info in self.files(f"ledger/{table}", recursive=False) if is_part(info.base_name)]
        parts: dict[str, PartInfo] = {}
        for info in infos:
            part = PartInfo(table, info.path, (info.mtime_ns or 0, info.size))
            parts.setdefault(part.name, part)  # <name>.parquet sorts before <name>~.parquet
        return list(parts.values())

    def part_names(self, table: str) -> set[str]:
        """The names of `parts`; on a local disk much quicker than those, since no file is looked at."""
        return {part.name for part in self.parts(table)}

    def stamp(self, path: str) -> tuple[int, int] | None:
        """What changes whenever the file is replaced, as in `PartInfo`; None when there is no such file."""
        info = self.filesystem.get_file_info(path)
        return (info.mtime_ns or 0, info.size) if info.is_file else None

    def read(self, path: str) -> pa.Buffer:
        """The bytes of one file, all from the same version of it. Raises FileNotFoundError."""
        with self.filesystem.open_input_file(path) as file:
            return file.read_buffer()

    def write(self, path: str, content: bytes | pa.Buffer, *, unique: str | None = None) -> None:
        """Replace one file whole: rename over it on a local disk, one upload elsewhere. `unique` names the temporary."""
        self.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
        with self.filesystem.open_output_stream(path) as stream:
            stream.write(content)


class SweepStorage(Storage, ABC):
    """A storage with what running a sweep takes beyond the ledger. Every method raises OSError when the storage fails."""

    look_seconds: ClassVar[float]
    """Least time between two looks at a file by which another process may tell something."""

    @property
    @abstractmethod
    def folder(self) -> Path | None:
        """Where its files lie on this machine, to be mapped into memory; None when they have to be fetched."""

    @property
    @abstractmethod
    def is_there(self) -> bool:
        """False while it is away."""

    @property
    @abstractmethod
    def is_begun(self) -> bool:
        """True once anything was written to it."""

    @property
    @abstractmethod
    def free_bytes(self) -> int | None:
        """Room that is left, bytes; None where there is no limit."""

    @abstractmethod
    def create(self, path: str, content: bytes) -> bool:
        """Writes a file that must not exist yet, whole; False when it does. Of many processes that try, one is told True."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Removes a file; one that is gone is no error."""

    @abstractmethod
    def remove_folder(self, folder: str) -> None:
        """Removes all files below `folder`, which is relative to the root."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """The names of the files in `folder`, which is relative to the root; none when it does not exist."""

    @abstractmethod
    def modified(self, path: str) -> float:
        """When a file was written, seconds since the epoch by the storage's clock. Raises FileNotFoundError."""


@dataclass(frozen=True)
class FolderStorage(SweepStorage):
    """A folder of this machine, or one that is mounted on every node."""

    look_seconds: ClassVar[float] = 0.5

    def __str__(self) -> str:
        """The whole path, which means the same in every working directory."""
        return self.root

    @property
    def folder(self) -> Path | None:
        """See `SweepStorage.folder`."""
        return Path(self.root)

    @property
    def is_there(self) -> bool:
        """See `SweepStorage.is_there`: a mount that went away leaves its empty folder, and writing there fills another disk."""
        return Path(self.root, "sweeps").is_dir()

    @property
    def is_begun(self) -> bool:
        """See `SweepStorage.is_begun`."""
        return Path(self.root).is_dir()

    @property
    def free_bytes(self) -> int | None:
        """See `SweepStorage.free_bytes`."""
        return shutil.disk_usage(self.root).free

    def part_names(self, table: str) -> set[str]:
        """See `Storage.part_names`."""
        try:
            with os.scandir(self.path(f"ledger/{table}")) as entries:
                files = [entry.name for entry in entries if entry.name.endswith(PART_SUFFIX)]
        except FileNotFoundError:
            return set()
        names = {file.removesuffix(PART_SUFFIX) for file in files if not file.startswith(".")}
        return {name.removesuffix(ASIDE) for name in names - {INDEX_NAME}}

    def write(self, path: str, content: bytes | pa.Buffer, *, unique: str | None = None) -> None:
        """See `Storage.write`."""
        with _complete(Path(path), content, unique) as complete:
            os.replace(complete, path)

    def create(self, path: str, content: bytes) -> bool:
        """See `SweepStorage.create`: a link to a complete file."""
        with _complete(Path(path), content, None) as complete:
            try:
                os.link(complete, path)
            except FileExistsError:
                return False
        return True

    def remove(self, path: str) -> None:
        """See `SweepStorage.remove`."""
        Path(path).unlink(missing_ok=True)

    def remove_folder(self, folder: str) -> None:
        """See `SweepStorage.remove_folder`."""
        shutil.rmtree(self.path(folder), ignore_errors=True)

    def names(self, folder: str) -> list[str]:
        """See `SweepStorage.names`."""
        try:
            return sorted(os.listdir(self.path(folder)))  # noqa: PTH208  (Path.iterdir makes an object for each)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def modified(self, path: str) -> float:
        """See `SweepStorage.modified`."""
        return Path(path).stat().st_mtime


StorageLike: TypeAlias = str | Path | Storage
"""What `open_storage` takes."""


def open_storage(storage: StorageLike) -> Storage:
    """The storage at a local path (`~` and relative paths are resolved) or a URI such as `s3://bucket/folder`.

    Raises ValueError for a URI that cannot be opened, that lacks a part of its `://`, or that has a password in it.
    """
    if isinstance(storage, Storage):
        return storage
    given = str(storage)
    if "://" not in given:
        if begins := _LIKE_URI.match(given):
            raise ValueError(
                f"a URI begins with {begins[1].lower()}://, as s3://bucket/folder does, got {given!r}; "
                f"a folder of that name is ./{given}"
            )
        return FolderStorage(_local(), Path(given).expanduser().resolve().as_posix(), given)
    parts = urlsplit(given)
    if "@" in parts.netloc:
        without = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        raise ValueError(
            "a storage's URI must not have credentials before the bucket, where other processes and logs show them; "
            f"write {without}, and set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if parts.scheme in OBJECT_STORES:
        from results.object_storage import open_object_storage  # brings the client: nothing that folders need

        return open_object_storage(given)
    try:
        filesystem, root = fs.FileSystem.from_uri(given)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"storage must be a local path or a URI that pyarrow opens, got {given!r}: {error}") from error
    kind = FolderStorage if isinstance(filesystem, fs.LocalFileSystem) else Storage
    return kind(filesystem, root.rstrip("/"), given)


def open_sweep_storage(storage: StorageLike) -> SweepStorage:
    """As `open_storage`, one that sweeps can run on. Raises ValueError for another."""
    opened = open_storage(storage)
    if isinstance(opened, SweepStorage):
        return opened
    schemes = ", ".join(f"{scheme}://" for scheme in OBJECT_STORES)
    raise ValueError(f"sweeps run on a folder or on {schemes}, got {opened.shown!r}; results can be read from it")


@cache
def _local() -> fs.LocalFileSystem:
    return fs.LocalFileSystem()


def is_part(name: str) -> bool:
    """True for the file name of a finished part."""
    return name.endswith(PART_SUFFIX) and not name.startswith(".") and name != f"{INDEX_NAME}{PART_SUFFIX}"


@contextmanager
def _complete(target: Path, content: bytes | pa.Buffer, unique: str | None) -> Iterator[Path]:
    """A file with the content beside `target`, to be renamed or linked to it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{unique or f'{os.getpid()}-{next(_temporary_ids)}'}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
