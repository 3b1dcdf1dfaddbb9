"""Where rows and weights are, and what identifies them: content for local files, a pinned revision for hub repositories.

Planning fingerprints every trial's data, so nothing here loads rows or imports torch, datasets or transformers.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from trainables.data.errors import DataError
from trainables.data.revisions import resolve_revision
from trainables.data.spec import DataSpec, DomainSpec

__all__ = [
    "EncoderSource",
    "HubSource",
    "LocalSource",
    "Role",
    "canonical_digest",
    "data_files",
    "data_fingerprint",
    "encoder_fingerprint",
    "parse_encoder",
    "parse_source",
    "pinned",
    "source_fingerprint",
    "tokenizer_fingerprint",
    "without_split",
]

Role = Literal["train", "test"]

_DEFAULT_SPLIT: dict[str, str] = {"train": "train", "test": "validation"}
_SPLITS = r"(?::(?P<splits>[\w.-]+(?:\+[\w.-]+)*))?"
_HUB_ROWS = re.compile(rf"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?{_SPLITS}")
_HUB_ENCODER = re.compile(r"(?P<repo>(?:[\w.-]+/)?[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_LOCAL_ROWS = re.compile(rf"(?P<path>.+?){_SPLITS}")
_FILE_SUFFIX = re.compile(r"\.(json|jsonl|csv|parquet|txt|gz|tsv)$", re.IGNORECASE)
_NOT_ROWS = re.compile(r"readme|licen[cs]e|dataset_infos?\.json$|.*\.(md|py|lock)$", re.IGNORECASE)
_ENCODER_FILES = ("*.json", "*.txt", "*.model", "*.safetensors", "*.bin")
_TOKENIZER_FILES = ("*token*.json", "vocab*", "merges.txt", "*.model", "config.json")


@dataclass(frozen=True, kw_only=True)
class LocalSource:
    """A file, or a folder of files; `splits` select within a folder and are `named` when the user wrote them."""

    path: Path
    splits: tuple[str, ...]
    named: bool


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """A dataset on the hub; `revision` None means the newest."""

    repo_id: str
    revision: str | None
    splits: tuple[str, ...]
    named: bool


@dataclass(frozen=True, kw_only=True)
class EncoderSource:
    """A local folder in Hugging Face layout (`path`), or a model on the hub (`repo_id`, `revision`)."""

    path: Path | None = None
    repo_id: str | None = None
    revision: str | None = None

    @property
    def name_or_path(self) -> str:
        """What `from_pretrained` takes."""
        return str(self.path or self.repo_id)


def parse_source(text: str, role: Role) -> LocalSource | HubSource:
    """What `DomainSpec.train` or `.test` names: an existing local path first, else a hub id.

    Raises: DataError when it looks like a path and nothing is there, or like neither.
    """
    local = _existing_path(text, role)
    if local is not None:
        return local
    match = _HUB_ROWS.fullmatch(text)
    if match is None or text.startswith((".", "/", "~")) or _FILE_SUFFIX.search(match["repo"]):
        raise DataError(_missing(text, "a hub dataset is written owner/name[@revision][:split]"))
    splits = match["splits"]
    return HubSource(
        repo_id=match["repo"],
        revision=match["revision"],
        splits=tuple((splits or _DEFAULT_SPLIT[role]).split("+")),
        named=splits is not None,
    )


def without_split(text: str) -> str:
    """A local folder's path without the splits behind it; anything else as it is."""
    match = _LOCAL_ROWS.fullmatch(text)
    return text if match is None or _expanded(text).exists() else match["path"]


def _existing_path(text: str, role: Role) -> LocalSource | None:
    default = (_DEFAULT_SPLIT[role],)
    path = _expanded(text)
    if text and path.exists():
        return LocalSource(path=path, splits=default if path.is_dir() else (), named=False)
    match = _LOCAL_ROWS.fullmatch(text)
    if match is None or match["splits"] is None or not (path := _expanded(match["path"])).exists():
        return None
    if path.is_file():
        raise DataError(f"only folders and hub datasets have splits, got {text!r}; name the file alone: {path}")
    return LocalSource(path=path, splits=tuple(match["splits"].split("+")), named=True)


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # "~name" of a user that this machine does not have
        return Path(text)


def parse_encoder(text: str) -> EncoderSource:
    """What `DataSpec.encoder` names: an existing local folder first, else a hub id. Raises DataError as `parse_source`."""
    path = _expanded(text)
    if text and path.exists():
        if not (path / "config.json").is_file():
            raise DataError(f"an encoder folder holds config.json, weights and tokenizer files, got {path} without config.json")
        return EncoderSource(path=path)
    match = _HUB_ENCODER.fullmatch(text)
    if match is None or text.startswith((".", "/", "~")):
        raise DataError(_missing(text, "a hub model is written name or owner/name, with @revision if need be"))
    return EncoderSource(repo_id=match["repo"], revision=match["revision"])


def _missing(text: str, hub_form: str) -> str:
    where = "" if Path(text).is_absolute() else f" relative to {Path.cwd()}"
    return f"no such file or folder: {text!r}{where}; {hub_form}; --preset embedded needs no files at all"


def data_files(folder: Path) -> list[Path]:
    """The files of a folder that hold rows, by sorted relative name; hidden files, READMEs, licences and scripts left out.

    Raises: DataError when none is left.
    """
    files = [path for path in folder.rglob("*") if path.is_file() and not _is_hidden(path, folder)]
    files = [path for path in files if not _NOT_ROWS.match(path.name)]
    if not files:
        raise DataError(f"no data files in {folder}; put Parquet, CSV, JSON or JSONL files there, or name a file")
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def source_fingerprint(text: str, role: Role) -> str:
    """SHA-256 of a local file or folder's content, or of a hub dataset's id, pinned revision and splits.

    Raises: DataError when the path is missing, or the hub cannot be asked and nothing pins the revision.
    """
    source = parse_source(text, role)
    if isinstance(source, HubSource):
        revision = resolve_revision(source.repo_id, source.revision, kind="dataset")
        return canonical_digest({"hub": source.repo_id, "revision": revision, "splits": source.splits})
    if source.path.is_file():
        return _file_digest(source.path)
    return canonical_digest({"files": _named_digests(source.path, data_files(source.path)), "splits": source.splits})


def encoder_fingerprint(text: str) -> str:
    """SHA-256 over a local encoder's config, weights and tokenizer, or over a hub model's id and pinned revision."""
    return _encoder_digest(text, _ENCODER_FILES)


def tokenizer_fingerprint(text: str) -> str:
    """As `encoder_fingerprint`, without the weights: encoders that differ in weights alone share prepared windows."""
    return _encoder_digest(text, _TOKENIZER_FILES)


def _encoder_digest(text: str, patterns: tuple[str, ...]) -> str:
    source = parse_encoder(text)
    if source.path is None:
        assert source.repo_id is not None
        revision = resolve_revision(source.repo_id, source.revision, kind="model")
        return canonical_digest({"hub": source.repo_id, "revision": revision})
    files = {path for pattern in patterns for path in source.path.glob(pattern) if path.is_file()}
    return canonical_digest({"files": _named_digests(source.path, sorted(files))})


def data_fingerprint(data: DataSpec) -> str:
    """SHA-256 that changes exactly when what a trial reads changes: contents, names and order of domains, and their rules.

    Paths do not enter it, so a copy elsewhere has the same fingerprint.
    """
    domains = [_domain_identity(name, spec) for name, spec in data.domains.items()]
    return canonical_digest({"encoder": encoder_fingerprint(data.encoder), "domains": domains})


def _domain_identity(name: str, spec: DomainSpec) -> dict[str, Any]:
    rules = spec.model_dump(mode="json", exclude={"train", "test"})
    test = None if spec.test is None else source_fingerprint(spec.test, "test")
    return {"name": name, "train": source_fingerprint(spec.train, "train"), "test": test, **rules}


def pinned(data: DataSpec) -> DataSpec:
    """The same data with every hub id pinned to a commit, so that workers read what was planned.

    Raises: DataError as `source_fingerprint`.
    """
    encoder = parse_encoder(data.encoder)
    name = data.encoder
    if encoder.repo_id is not None:
        name = f"{encoder.repo_id}@{resolve_revision(encoder.repo_id, encoder.revision, kind='model')}"
    domains = {key: _pinned_domain(spec) for key, spec in data.domains.items()}
    return data.model_copy(update={"encoder": name, "domains": domains})


def _pinned_domain(spec: DomainSpec) -> DomainSpec:
    test = None if spec.test is None else _pinned_source(spec.test, "test")
    return spec.model_copy(update={"train": _pinned_source(spec.train, "train"), "test": test})


def _pinned_source(text: str, role: Role) -> str:
    source = parse_source(text, role)
    if isinstance(source, LocalSource):
        return text
    revision = resolve_revision(source.repo_id, source.revision, kind="dataset")
    return f"{source.repo_id}@{revision}" + (f":{'+'.join(source.splits)}" if source.named else "")


def canonical_digest(value: Any) -> str:
    """SHA-256 of a JSON value: keys sorted, no spaces, UTF-8."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


def _named_digests(folder: Path, files: Iterable[Path]) -> list[tuple[str, str]]:
    return [(path.relative_to(folder).as_posix(), _file_digest(path)) for path in files]


def _file_digest(path: Path) -> str:
    status = path.stat()
    return _content_digest(path.resolve(), status.st_size, status.st_mtime_ns)


@cache
def _content_digest(path: Path, size: int, mtime_ns: int) -> str:
    # Size and time are in the key alone: a file that changed is hashed again.
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
