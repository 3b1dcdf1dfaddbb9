"""A driver on a local Ray of its own, whose processes are found by a mark in their environment and never outlive a test."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

__all__ = ["RaySweep", "ray_sweep", "wait_until"]

_MARK = "FAULTS_MARK"
_POLL_SECONDS = 0.02
_FOUND_WITHIN = 60.0


def wait_until(condition: Callable[[], object], seconds: float) -> bool:
    """Looks again and again; False when `condition` did not become true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


class RaySweep:
    """One driver and all that it starts."""

    def __init__(self, command: list[str], storage: Path, scratch: Path, environment: Mapping[str, str]) -> None:
        self._mark = uuid.uuid4().hex
        self._stderr = scratch / "stderr"
        arguments = [*command, "--storage", str(storage)]
        private = {"HOME": str(scratch), "RAY_TMPDIR": str(scratch), _MARK: self._mark}
        with self._stderr.open("wb") as stderr:
            self.driver = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.run", *arguments],
                stderr=stderr,
                stdout=subprocess.DEVNULL,
                env={**os.environ, **environment, **private},
            )

    @property
    def said(self) -> str:
        """What the driver has said so far."""
        return self._stderr.read_text(encoding="utf-8")

    @property
    def ended(self) -> bool:
        """True when the driver has ended."""
        return self.driver.poll() is not None

    def processes(self) -> list[psutil.Process]:
        """All that live, the driver and orphans included."""
        return [process for process in psutil.process_iter() if _environment(process).get(_MARK) == self._mark]

    def workers(self) -> list[psutil.Process]:
        """Those that are inside a trial's step: Ray names them so while they are."""
        return [process for process in self.processes() if "ResourceTrainable.train" in _command(process)]

    def raylets(self) -> list[psutil.Process]:
        """The manager of the node's workers."""
        return [process for process in self.processes() if _command(process).split(" ")[0].endswith("/raylet")]

    def kill(self, what: str, number: int = signal.SIGKILL) -> bool:
        """Sends a signal to a `worker`, the `raylet` or the `driver`; False when there was none any more.

        A `worker told to end` gets SIGTERM, as on a spot machine.
        """
        if what == "worker told to end":
            return self.kill("worker", signal.SIGTERM)
        if what == "driver":
            self.driver.kill()  # by the object that waits for it: it knows whether there was anything to kill
            return self.driver.wait() == -signal.SIGKILL
        find = {"worker": self.workers, "raylet": self.raylets}[what]
        found: list[psutil.Process] = []
        wait_until(lambda: self.ended or found.extend(find()) or found, _FOUND_WITHIN)
        try:
            for process in found[:1]:
                process.send_signal(number)
        except psutil.NoSuchProcess:
            return False
        return bool(found)

    def wait(self, seconds: float) -> int | None:
        """The driver's exit code; None when it does not end in time."""
        try:
            return self.driver.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None

    def orphans(self) -> list[psutil.Process]:
        """What could still write to the storage: workers, busy or idle, and the raylet that starts them.

        Not Ray's own agents, which now and then live on for more than a minute after a killed driver (Ray 2.60).
        """
        named = [(process, _command(process)) for process in self.processes()]
        workers = [process for process, name in named if name.startswith("ray::") and "Agent" not in name]
        return workers + self.raylets()

    def orphans_go(self, seconds: float) -> bool:
        """Waits for them to follow the driver."""
        return wait_until(lambda: not self.orphans(), seconds)

    def sweep_up(self) -> None:
        """Kills what is left."""
        while left := self.processes():
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=5)
        self.driver.wait()


@contextmanager
def ray_sweep(command: list[str], storage: Path, environment: Mapping[str, str]) -> Iterator[RaySweep]:
    """A running sweep; whatever of it is left at the end is killed."""
    scratch = Path(tempfile.mkdtemp(prefix="faults-"))  # short: Ray's sockets lie below it
    sweep = RaySweep(command, storage, scratch, environment)
    try:
        yield sweep
    finally:
        sweep.sweep_up()
        shutil.rmtree(scratch, ignore_errors=True)


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        environment: dict[str, str] = process.environ()
    except (psutil.Error, OSError):
        return {}
    return environment


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.Error, OSError):
        return ""
