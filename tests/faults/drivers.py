"""Starting drivers from the fork server, killing them, and learning how they ended."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from boundaries import Passed, Point, read_log

__all__ = ["FAULTY_SITE", "DriverServer", "Ended", "grid"]

SERVER = Path(__file__).with_name("driver_server.py")
FAULTY_SITE = Path(__file__).parent / "faulty_site" / "sitecustomize.py"
_LONGEST_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a driver ended."""

    status: int  # exit code, or the signal that killed it as a negative number
    seconds: float
    passed: list[Passed]  # the boundaries that it came by; killed at one, that is the last
    stderr: str

    @property
    def was_killed(self) -> bool:
        """True when a SIGKILL found it alive."""
        return self.status == -signal.SIGKILL


def grid(preset: Path) -> list[str]:
    """The command that runs the grid of a preset."""
    return ["grid", "--yes", "--preset", str(preset)]


class DriverServer:
    """Forks drivers of the inline backend; one runs at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(folder), "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        try:
            self._answer()
        except RuntimeError:
            self.close()
            raise

    def run(
        self,
        arguments: Sequence[str],
        storage: Path,
        *,
        kill_at: Point | None = None,
        kill_after: float | None = None,
        environment: Mapping[str, str] | None = None,
        once_said: tuple[str, Callable[[int], object]] | None = None,
    ) -> Ended:
        """Runs a command on `storage` to its end: its own, or the one given by a boundary or a number of seconds.

        `environment` may ask for a fault. `once_said`: words, and what to do with the driver's process once it has said them.
        """
        base = self._folder / f"driver-{next(self._numbers):04d}"
        files = {name: f"{base}.{name}" for name in ("stdout", "stderr", "boundary_log")}
        began = time.monotonic()
        pid = self._ask(
            start={
                **files,
                "arguments": [*arguments, "--backend", "inline", "--storage", str(storage)],
                "storage": str(storage),
                "kill_at": list(astuple(kill_at)) if kill_at else None,
                "environment": dict(environment or {}),
                "site": str(FAULTY_SITE) if environment else None,
            }
        )["pid"]
        if once_said is not None:
            _wait_for_words(Path(files["stderr"]), once_said[0], pid)
            once_said[1](pid)
        ended_by_itself = _ends_within(pid, _LONGEST_SECONDS if kill_after is None else kill_after)
        if not ended_by_itself:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        status = self._ask(reap=pid)["status"]
        stderr = Path(files["stderr"]).read_text(encoding="utf-8") if Path(files["stderr"]).exists() else ""
        if not ended_by_itself and kill_after is None:
            raise TimeoutError(f"the driver was still running after {_LONGEST_SECONDS:.0f} s:\n{stderr}")
        seconds = time.monotonic() - began
        return Ended(status=status, seconds=seconds, passed=read_log(Path(files["boundary_log"])), stderr=stderr)

    def close(self) -> None:
        """Ends the server, and with it whatever it still runs."""
        self._process.kill()
        with self._process:  # closes its pipes
            self._process.wait()

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the fork server ended with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _wait_for_words(said: Path, words: str, pid: int) -> None:
    """Until the driver has said them, or has ended."""
    while not (said.exists() and words in said.read_text(encoding="utf-8")):
        if _ends_within(pid, 0.02):
            return


def _ends_within(pid: int, seconds: float) -> bool:
    """Waits for the end of a process that is not our child and that its parent has not reaped yet."""
    handle = os.pidfd_open(pid)
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)
