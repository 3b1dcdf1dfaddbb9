"""Where a process writes below a folder: every boundary counted, and the process killed at a chosen one.

A boundary is a moment between two states of the disk, which is all that a kill can leave behind:

    opened    a file was created or opened for writing; nothing is in it yet
    torn      a temporary is about to be renamed, of which half was written (damage done only when the kill is here)
    written   the temporary is whole and about to be renamed
    renamed   it has its final name
    linked    a second name was made, which must not exist before
    removing, removed   a file is about to go, is gone

Kinds are told apart by path, with keys and numbers masked, so that a new kind of file appears by itself.
"""

from __future__ import annotations

import builtins
import functools
import io
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Boundaries", "Passed", "Point", "kind_of", "read_log"]

_TEMPORARY = re.compile(r"(\.[\w-]*\d[\w-]*)?\.tmp$")  # .<process>-<number>.tmp, .tmp
_VARYING = re.compile(r"[0-9a-f]{6,}|\d+")


@dataclass(frozen=True)
class Point:
    """The n-th boundary (from 1) of a kind and phase in a process."""

    kind: str
    phase: str
    ordinal: int


@dataclass(frozen=True)
class Passed:
    """A boundary that a process came by, and when, in seconds since its start."""

    kind: str
    phase: str
    seconds: float


def kind_of(relative: str) -> str:
    """What sort of file a path below the storage is: a ledger's table, or the path with its varying parts masked."""
    parts = relative.split("/")
    if parts[0] == "ledger" and len(parts) > 2:
        return parts[1]
    parts[-1] = _TEMPORARY.sub("", parts[-1]).removeprefix(".")
    masked = _VARYING.sub("*", "/".join(parts))
    return re.sub(r"\*[\w*-]*", "*", masked)


def read_log(log: Path) -> list[Passed]:
    """The boundaries in the order in which a process came by them; the last line may be torn."""
    lines = log.read_text(encoding="utf-8").split("\n")[:-1] if log.exists() else []
    fields = (line.split("\t") for line in lines)
    return [Passed(kind, phase, float(seconds)) for kind, phase, seconds in fields]


class Boundaries:
    """Replaces the functions of this process that change files, to log what they do below `root` and to kill at `kill_at`."""

    def __init__(self, root: Path, log: Path, kill_at: Point | None) -> None:
        self._root = f"{os.path.realpath(root)}/"
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._kill_at = kill_at
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._began = time.monotonic()

    def install(self) -> None:
        """From now on until the process ends."""
        builtins.open = io.open = self._opening(io.open, lambda mode="r", *_, **__: set(mode) & set("wax+"))
        os.open = self._opening(os.open, lambda flags, *_, **__: flags & os.O_CREAT)
        os.replace, os.rename = self._renaming(os.replace), self._renaming(os.rename)
        os.link = self._linking(os.link)
        os.unlink = os.remove = self._removing(os.unlink)

    def passed(self, path: Any, phase: str, damage: Callable[[], None] | None = None) -> None:
        """Counts a boundary at `path`; kills this process if it is the chosen one, after doing `damage`."""
        relative = self._relative(path)
        if relative is None:
            return
        kind = kind_of(relative)
        with self._lock:
            self._counts[kind, phase] += 1
            here = self._kill_at == Point(kind, phase, self._counts[kind, phase])
            os.write(self._log, self._line(kind, phase))
            if not here:
                return
            if damage:
                damage()
            os.kill(os.getpid(), signal.SIGKILL)

    def _line(self, kind: str, phase: str) -> bytes:
        return f"{kind}\t{phase}\t{time.monotonic() - self._began:.4f}\n".encode()

    def _relative(self, path: Any) -> str | None:
        if isinstance(path, int):
            return None
        absolute = os.path.abspath(os.fsdecode(path))  # noqa: PTH100  (called inside what pathlib calls)
        return absolute.removeprefix(self._root) if absolute.startswith(self._root) else None

    def _opening(self, real: Callable[..., Any], writes: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)
        def opening(path: Any, *arguments: Any, **options: Any) -> Any:
            opened = real(path, *arguments, **options)
            if options.get("dir_fd") is None and writes(*arguments, **options):
                self.passed(path, "opened")
            return opened

        return opening

    def _renaming(self, real: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)
        def renaming(source: Any, target: Any, **options: Any) -> None:
            if not os.path.isdir(source):  # noqa: PTH112
                self.passed(target, "torn", damage=lambda: os.truncate(source, os.stat(source).st_size // 2))  # noqa: PTH116
            self.passed(target, "written")
            real(source, target, **options)
            self.passed(target, "renamed")

        return renaming

    def _linking(self, real: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)
        def linking(source: Any, target: Any, **options: Any) -> None:
            self.passed(target, "written")
            real(source, target, **options)
            self.passed(target, "linked")

        return linking

    def _removing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)
        def removing(path: Any, *, dir_fd: int | None = None) -> None:
            if dir_fd is not None:
                return real(path, dir_fd=dir_fd)
            if os.path.lexists(path):
                self.passed(path, "removing")
            real(path)
            return self.passed(path, "removed")

        return removing
