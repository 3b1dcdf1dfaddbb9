"""Under what a result came about: recorded beside it, never part of the trial key."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from orchestrator.machine import processor_name

__all__ = ["code_hash", "git_commit", "versions"]

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("datasets", "duckdb", "numpy", "optuna", "pyarrow", "ray", "st-moe-pytorch", "tokenizers", "torch", "transformers")


@functools.cache
def versions() -> str:
    """Versions of Python and of the packages that can change a result, and the processor's model, as JSON."""
    found = {"python": platform.python_version(), "processor": processor_name()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return json.dumps(found, sort_keys=True)


@functools.cache
def code_hash() -> str:
    """SHA-256 over the Python sources of the trainables, names and contents."""
    digest = hashlib.sha256()
    for path in sorted((_ROOT / "trainables").rglob("*.py")):
        digest.update(path.relative_to(_ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@functools.cache
def git_commit() -> str | None:
    """The checkout's commit, `+dirty` behind it when files differ; None outside a checkout."""
    if not (_ROOT / ".git").exists():  # an installed copy; a repository further up is somebody else's
        return None
    try:
        commit = _git("rev-parse", "HEAD")
        return f"{commit}+dirty" if _git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", str(_ROOT), *arguments], check=True, capture_output=True, text=True).stdout.strip()
