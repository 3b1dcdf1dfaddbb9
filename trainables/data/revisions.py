"""Which commit a hub id means: given, asked of the hub, or, when it is out of reach, read from the local hub cache."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Literal

from trainables.data.errors import DataError

__all__ = ["cached_snapshot", "resolve_revision"]

Kind = Literal["dataset", "model"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT_SECONDS = 15.0


@cache
def resolve_revision(repo_id: str, revision: str | None, *, kind: Kind) -> str:
    """The full commit hash of a hub repository's revision (None: its newest), asked once per process.

    A full hash is taken as it is, without the network. Raises: DataError when the hub does not know the repository or
    the revision, or when it cannot be reached and the local hub cache has no such snapshot.
    """
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    import huggingface_hub
    from huggingface_hub import errors

    ask = huggingface_hub.HfApi().dataset_info if kind == "dataset" else huggingface_hub.HfApi().model_info
    # RepositoryNotFoundError, GatedRepoError and RevisionNotFoundError are HfHubHTTPErrors; `errors.HTTPError` is their base
    # and that of connection errors. Offline mode raises a ConnectionError, which is an OSError.
    try:
        commit = ask(repo_id, revision=revision, timeout=_TIMEOUT_SECONDS).sha
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise DataError(_unknown(repo_id, revision, kind, error)) from error
    except (getattr(errors, "HTTPError", errors.HfHubHTTPError), errors.HfHubHTTPError, OSError) as error:
        commit = _cached_commit(repo_id, revision, kind)
        if commit is None:
            raise DataError(_unreachable(repo_id, kind, error)) from error
    if commit is None:
        raise DataError(f"the hub names no commit for {kind} {repo_id!r}; pin one: {repo_id}@<40 hex digits>")
    return commit


def cached_snapshot(repo_id: str, commit: str, *, kind: Kind) -> Path | None:
    """The folder in the local hub cache with the files of `repo_id` at `commit` that were ever downloaded, if there is one."""
    folder = _cache_folder(repo_id, kind) / "snapshots" / commit
    return folder if folder.is_dir() else None


def _cached_commit(repo_id: str, revision: str | None, kind: Kind) -> str | None:
    reference = _cache_folder(repo_id, kind) / "refs" / (revision or "main")
    if not reference.is_file():
        return None
    commit = reference.read_text().strip()
    return commit if cached_snapshot(repo_id, commit, kind=kind) else None


def _cache_folder(repo_id: str, kind: Kind) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"{kind}s--{repo_id.replace('/', '--')}"


def _unknown(repo_id: str, revision: str | None, kind: str, error: Exception) -> str:
    what = repo_id if revision is None else f"{repo_id}@{revision}"
    return (
        f"the hub has no {kind} {what!r} that we may read ({type(error).__name__}), and no local file or folder has that name; "
        "check the name (and `hf auth login` for private ones), name local files, or use --preset embedded"
    )


def _unreachable(repo_id: str, kind: str, error: Exception) -> str:
    reason = " ".join(str(error).split())
    return (
        f"cannot reach the Hugging Face hub for {kind} {repo_id!r} ({type(error).__name__}: {reason}), it is not in the local "
        "hub cache, and no local file or folder has that name; "
        f"name local files, pin a cached commit ({repo_id}@<40 hex digits>), or use --preset embedded"
    )
