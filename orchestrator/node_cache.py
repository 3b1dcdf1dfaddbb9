"""Files of an object store on this node: fetched once, whole, and shared by all of its processes.

    <storage>/<kind>/<name>.json      what belongs to a bundle, each file with its SHA-256; written last
    <storage>/<kind>/<name>/...       its files
    <cache>/<kind>/<name>/...         a copy of them, there completely or not at all
    <cache>/files/...                 a copy of a file by itself

A bundle's name is made from its content, and the copy of a file by itself is named by its version: none goes stale. The cache
is `$SWEEPS_CACHE`, else `expert-sweeps` in `$XDG_CACHE_HOME` or `~/.cache`; all of it can be removed whenever no sweep runs.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from filelock import FileLock

from orchestrator.location import location
from results.object_storage import ObjectStorage

__all__ = ["add_bundle", "cache_folder", "fetch_bundle", "fetch_file", "publish_bundle"]


def cache_folder() -> Path:
    """Where this node keeps what it has fetched."""
    named = os.environ.get("SWEEPS_CACHE")
    if named:
        return Path(named).expanduser().resolve()
    home = Path.home() if os.environ.get("HOME") else Path(tempfile.gettempdir())
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "expert-sweeps"


def add_bundle(name: str, files: Mapping[str, Path]) -> Path:
    """The bundle `name` in the cache, made of local files by their names in it. Raises OSError when there is no room."""
    target = cache_folder() / name
    with _locked(target):
        if not target.is_dir():
            building = _empty(target)
            for relative, file in files.items():
                copy = building / relative
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
            building.rename(target)
    return target


def fetch_bundle(storage: ObjectStorage, name: str) -> Path:
    """The bundle `name` in the cache, fetched by whoever comes first while others wait.

    Raises:
        FileNotFoundError: the storage has no such bundle.
        OSError: it could not be fetched, or is not what was published.
    """
    target = cache_folder() / name
    if target.is_dir():
        return target
    with _locked(target):
        if not target.is_dir():
            manifest = json.loads(location(storage, f"{name}.json").read())
            building = _empty(target)
            try:
                for relative, digest in manifest.items():
                    _fetch(storage, name, relative, digest, building)
                building.rename(target)
            finally:
                shutil.rmtree(building, ignore_errors=True)
    return target


def fetch_file(storage: ObjectStorage, name: str) -> Path:
    """A file of the storage as it is now, in the cache, fetched by whoever comes first while others wait.

    Raises:
        FileNotFoundError: the storage has no such file.
        OSError: it could not be fetched.
    """
    path = storage.path(name)
    version = storage.stamp(path)
    if version is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{storage}/{name}")
    told = hashlib.sha256(f"{path} {version}".encode()).hexdigest()[:32]  # another storage's file of that name is another
    target = cache_folder() / "files" / f"{told}{PurePosixPath(name).suffix}"
    if target.exists():
        return target
    with _locked(target):
        if not target.exists():
            arriving = target.with_name(f".{target.name}.arriving")
            storage.fetch(path, arriving)
            arriving.replace(target)
    return target


def publish_bundle(storage: ObjectStorage, name: str) -> None:
    """Puts a bundle of the cache into the storage, unless it is there. Raises OSError."""
    manifest = location(storage, f"{name}.json")
    if manifest.exists():
        return
    folder = cache_folder() / name
    digests = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        relative = file.relative_to(folder).as_posix()
        storage.write(storage.path(f"{name}/{relative}"), file)
        digests[relative] = _digest(file)
    manifest.write(json.dumps(digests, indent=1).encode())


def _fetch(storage: ObjectStorage, name: str, relative: str, digest: str, building: Path) -> None:
    parts = PurePosixPath(relative)
    if parts.is_absolute() or ".." in parts.parts:  # whoever writes to a storage must not write beside a node's cache
        raise OSError(errno.EINVAL, f"{storage}/{name}.json names a file outside of its folder", relative)
    file = building / relative
    file.parent.mkdir(parents=True, exist_ok=True)
    storage.fetch(storage.path(f"{name}/{relative}"), file)
    if _digest(file) != digest:
        raise OSError(errno.EIO, f"its checksum is not the one in {name}.json", f"{storage}/{name}/{relative}")


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _locked(target: Path) -> FileLock:
    target.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(target.with_name(f".{target.name}.lock"))


def _empty(target: Path) -> Path:
    """A folder to build `target` in; what a killed process left there is removed, since the lock is ours."""
    building = target.with_name(f".{target.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    return building
