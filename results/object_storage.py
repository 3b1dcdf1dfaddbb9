"""Storages in an object store, `s3://bucket/folder` or `gs://bucket/folder`. gs:// has not been tried on Google's own servers.

`obstore` (Rust's object_store) reads, writes and lists: one request for a whole object, a conditional PUT for "create only if
absent" (`If-None-Match: *` on S3, a generation match on Google), pages of listings, and back-off when the store is throttling.
pyarrow's own file system, which has no conditional writes, scans the large Parquet files where they lie.

Credentials are those of the environment: on S3 whatever boto3 finds (variables, AWS_PROFILE, the machine's role). They are
looked up on each machine anew and kept nowhere. A storage that is pickled is its URI alone.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
import pyarrow.fs as fs

from results.naming import nearest_of
from results.storage import OBJECT_STORES, PartInfo, SweepStorage, is_part

__all__ = ["ObjectStorage", "open_object_storage"]

_QUERY = ("endpoint_override", "region", "scheme")
"""What may stand behind the `?` of a URI, as in pyarrow's own."""

_CLIENT = {"connect_timeout": "5s", "timeout": "30s"}
_RETRIES = {
    "max_retries": 7,
    "retry_timeout": timedelta(seconds=15),
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=4), "base": 2},
}
"""About ten seconds, well within the time in which a lease expires; whoever writes the ledger waits longer, and says so."""

_STATUS = re.compile(r"status code: (\d+[^:]*)")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_INSTALL = "pip install 'expert-sweeps[s3]'"


@dataclass(frozen=True)
class ObjectStorage(SweepStorage):
    """A prefix in a bucket. `root` is `bucket/folder`, as pyarrow names it; a folder is what names have in common."""

    look_seconds: ClassVar[float] = 5.0  # every look is a request to pay for

    def __reduce__(self) -> tuple[Any, ...]:
        """Where it is unpickled, it finds that machine's own credentials."""
        return open_object_storage, (self.shown,)

    @property
    def folder(self) -> Path | None:
        """See `SweepStorage.folder`."""
        return None

    @property
    def is_there(self) -> bool:
        """See `SweepStorage.is_there`: a store that is away says so itself."""
        return True

    @property
    def is_begun(self) -> bool:
        """See `SweepStorage.is_begun`."""
        with _as_os_errors(self.shown):
            found = _obstore().list_with_delimiter(self._store, self._key(self.root))
        return bool(found["objects"] or found["common_prefixes"])

    @property
    def free_bytes(self) -> int | None:
        """See `SweepStorage.free_bytes`."""
        return None

    @property
    def _store(self) -> Any:
        return _store(self.shown)

    def _key(self, path: str) -> str:
        """An object's name in its bucket."""
        return path.partition("/")[2]

    def has_ledger(self) -> bool:
        """See `Storage.has_ledger`."""
        with _as_os_errors(self.shown):
            found = _obstore().list_with_delimiter(self._store, self._key(self.path("ledger")))
        return bool(found["objects"] or found["common_prefixes"])

    def files(self, folder: str, *, recursive: bool = True) -> list[fs.FileInfo]:
        """See `Storage.files`."""
        return [
            fs.FileInfo(path, fs.FileType.File, size=found["size"], mtime_ns=int(found["last_modified"].timestamp() * 1e9))
            for path, found in self._listing(folder, recursive)
        ]

    def parts(self, table: str) -> list[PartInfo]:
        """See `Storage.parts`. Times are whole seconds here, so a part's version is told by its ETag."""
        found = [each for each in self._listing(f"ledger/{table}", False) if is_part(each[0].rpartition("/")[2])]
        infos = (PartInfo(table, path, (_version_of(entry), entry["size"])) for path, entry in found)
        parts: dict[str, PartInfo] = {}
        for info in infos:
            parts.setdefault(info.name, info)
        return list(parts.values())

    def _listing(self, folder: str, recursive: bool) -> list[tuple[str, Any]]:
        """Path and entry of each object below `folder`, sorted by path."""
        bucket, prefix = self.root.partition("/")[0], self._key(self.path(folder))
        with _as_os_errors(self.shown):
            if recursive:
                entries = [entry for page in _obstore().list(self._store, prefix) for entry in page]
            else:
                entries = list(_obstore().list_with_delimiter(self._store, prefix)["objects"])
        return sorted(((f"{bucket}/{entry['path']}", entry) for entry in entries), key=lambda pair: pair[0])

    def stamp(self, path: str) -> tuple[int, int] | None:
        """See `Storage.stamp`."""
        try:
            with _as_os_errors(path):
                entry = _obstore().head(self._store, self._key(path))
        except FileNotFoundError:
            return None
        return _version_of(entry), entry["size"]

    def read(self, path: str) -> pa.Buffer:
        """See `Storage.read`: one request, so one version."""
        with _as_os_errors(path):
            return pa.py_buffer(_obstore().get(self._store, self._key(path)).bytes())

    def write(self, path: str, content: bytes | pa.Buffer | Path, *, unique: str | None = None) -> None:
        """See `Storage.write`; also the content of a file, in several requests where it is large: it appears after the last."""
        with _as_os_errors(path):
            _obstore().put(self._store, self._key(path), content if isinstance(content, Path) else bytes(content))

    def create(self, path: str, content: bytes) -> bool:
        """See `SweepStorage.create`. `content` must be this writer's own: it tells a repeated request from another's."""
        try:
            with _as_os_errors(path):
                _obstore().put(self._store, self._key(path), content, mode="create")
        except FileExistsError:  # also by ourselves, where the answer to a first request was lost and it was sent again
            try:
                return bytes(self.read(path)) == content
            except FileNotFoundError:
                return False
        return True

    def remove(self, path: str) -> None:
        """See `SweepStorage.remove`."""
        try:
            with _as_os_errors(path):
                _obstore().delete(self._store, self._key(path))
        except FileNotFoundError:
            pass

    def remove_folder(self, folder: str) -> None:
        """See `SweepStorage.remove_folder`."""
        for path, _ in self._listing(folder, True):
            self.remove(path)

    def names(self, folder: str) -> list[str]:
        """See `SweepStorage.names`."""
        return [path.rpartition("/")[2] for path, _ in self._listing(folder, False)]

    def modified(self, path: str) -> float:
        """See `SweepStorage.modified`."""
        with _as_os_errors(path):
            return float(_obstore().head(self._store, self._key(path))["last_modified"].timestamp())

    def fetch(self, path: str, file: Path) -> None:
        """Writes an object's content to `file`, block by block. Raises FileNotFoundError."""
        with _as_os_errors(path), file.open("wb") as out:
            for block in _obstore().get(self._store, self._key(path)).stream():
                out.write(block)


def open_object_storage(uri: str) -> ObjectStorage:
    """The storage at `s3://bucket[/folder][?endpoint_override=...&region=...&scheme=...]` or the like with gs://.

    An endpoint for servers that speak S3 may also come from AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL. Nothing is asked of the
    store yet, but where in the world an S3 bucket lies, if nothing says so.

    Raises ValueError for a URI that makes no sense, a package that is not installed, or credentials that nobody has.
    """
    parts, query = _parsed(uri)
    _store(uri)
    root = f"{parts.netloc}{parts.path}".rstrip("/")
    return ObjectStorage(_filesystem(parts.scheme, parts.netloc, tuple(sorted(query.items()))), root, uri)


def _parsed(uri: str) -> tuple[Any, dict[str, str]]:
    parts = urlsplit(uri)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in query:
        if name not in _QUERY:  # its value may be a secret
            raise ValueError(f"a storage's URI takes {', '.join(_QUERY)} after `?`, got {name!r}{nearest_of(name, _QUERY)}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]+", parts.netloc) or parts.fragment or "//" in parts.path:
        raise ValueError(f"a storage's URI is {parts.scheme}://bucket/folder, got {uri!r}")
    assert parts.scheme in OBJECT_STORES
    return parts, query


def _endpoint(query: dict[str, str]) -> str:
    """The URL of a server that is not Amazon's; empty for Amazon's own."""
    given = query.get("endpoint_override") or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return given if "://" in given or not given else f"{query.get('scheme', 'https')}://{given}"


def _obstore() -> Any:
    try:
        import obstore
    except ImportError:
        raise ValueError(f"a storage in an object store needs obstore, which is not installed; {_INSTALL}") from None
    return obstore


@cache
def _store(uri: str) -> Any:
    """The client, with the bucket as its root; one a process, with its connections."""
    parts, query = _parsed(uri)
    _obstore()
    from obstore.store import GCSStore, S3Store

    if parts.scheme == "gs":
        return GCSStore(parts.netloc, client_options=_CLIENT, retry_config=_RETRIES)
    endpoint, session = _endpoint(query), _session()
    from obstore.auth.boto3 import Boto3CredentialProvider

    return S3Store(
        parts.netloc,
        region=_region(parts.netloc, query),
        client_options={**_CLIENT, "allow_http": endpoint.startswith("http://")},
        retry_config=_RETRIES,
        credential_provider=Boto3CredentialProvider(session),
        **({"endpoint": endpoint} if endpoint else {}),
    )


@cache
def _session() -> Any:
    try:
        import boto3
    except ImportError:
        raise ValueError(f"a storage on S3 needs boto3, which is not installed; {_INSTALL}") from None
    from botocore.exceptions import BotoCoreError

    try:
        session = boto3.Session()
        found = session.get_credentials() is not None
    except BotoCoreError as error:  # an unknown profile, for one
        raise ValueError(f"no credentials for S3: {error}") from error
    if not found:
        raise ValueError(
            "no credentials for S3; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"
        )
    return session


def _region(bucket: str, query: dict[str, str]) -> str:
    named = query.get("region") or _session().region_name
    return str(named) if named else "us-east-1" if _endpoint(query) else _region_of(bucket)


@cache
def _region_of(bucket: str) -> str:
    try:
        return str(fs.resolve_s3_region(bucket))
    except OSError as error:
        raise ValueError(
            f"cannot find out in which region the bucket {bucket} is ({error}); set AWS_DEFAULT_REGION or append ?region=..."
        ) from error


@cache
def _filesystem(scheme: str, bucket: str, query: tuple[tuple[str, str], ...]) -> fs.FileSystem:
    """pyarrow's, for scanning."""
    if scheme == "gs":
        return fs.GcsFileSystem()
    options = dict(query)
    endpoint = _endpoint(options)
    where = {"endpoint_override": endpoint.partition("://")[2], "scheme": endpoint.partition("://")[0]} if endpoint else {}
    return fs.S3FileSystem(region=_region(bucket, options), **where)


def _version_of(entry: Any) -> int:
    """A number that is another for another version of the object."""
    known = entry["e_tag"] or entry["last_modified"].isoformat()
    return int.from_bytes(hashlib.blake2b(known.encode(), digest_size=8).digest())


@contextmanager
def _as_os_errors(what: str) -> Iterator[None]:
    """Errors of the client as the operating system's, with a number and in one line."""
    from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError

    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, _told(error, "no such object or bucket"), what) from None
    except AlreadyExistsError:
        raise FileExistsError(errno.EEXIST, "the object is there already", what) from None
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise PermissionError(errno.EACCES, _told(error, "access denied"), what) from None
    except BaseError as error:
        raise OSError(errno.EIO, _told(error, "the object store failed"), what) from None


def _told(error: Exception, otherwise: str) -> str:
    """What the store answered, without the page around it."""
    text = str(error)
    found = [match[1].strip() for match in (_STATUS.search(text), _CODE.search(text)) if match]
    return ", ".join(found) or f"{otherwise}: {' '.join(text.split())[:200]}"
