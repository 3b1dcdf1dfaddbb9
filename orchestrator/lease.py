"""Leases: who may run a sweep or a trial, kept as files in the storage and renewed by a heartbeat.

    <name>.lease.<generation>

The highest generation is the lease. It is taken by writing a file that must not exist yet (a link in a folder, a conditional
PUT in an object store), which one process alone can do, and released by removing it. A lease has expired when its file has not
changed for `EXPIRES_SECONDS` of the *observer's* monotonic clock, or at once when its holder was a process of this machine that
is gone: no two clocks are ever compared. Whoever takes over makes the next generation, by which the former holder knows that it
has lost the lease.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Literal

import psutil

from orchestrator.errors import LeaseLostError
from orchestrator.location import Location

__all__ = ["BEAT_SECONDS", "EXPIRES_SECONDS", "Holder", "Lease", "holder_of", "remove_if_free", "take_lease"]

BEAT_SECONDS = 5.0
EXPIRES_SECONDS = 30.0
_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, as the file says."""

    token: str  # of this taking of the lease
    host: str
    machine: str  # host, boot and process namespace: where a process id means something
    pid: int
    process_started: float  # ticks since the machine's boot: tells a process from a later one with the same id
    since: str  # ISO time
    beat: int = 0
    owner: str = ""  # the run that the holder belongs to
    note: str = ""  # what the holder wants known, such as what it waits for

    @property
    def described(self) -> str:
        """The holder in words."""
        return f"process {self.pid} on {self.host} since {self.since}"

    @property
    def is_gone(self) -> bool:
        """True when the holder was a process of this machine that has ended; False also where that cannot be known."""
        return self.machine == _machine() and _start_of(self.pid) != self.process_started

    def end(self) -> bool:
        """Kills the holder's process where it is one of this machine; returns whether it was."""
        if self.machine != _machine() or self.is_gone:
            return False
        os.kill(self.pid, signal.SIGKILL)
        return True


class Lease:
    """A lease that this process holds. A thread renews it; `check` tells whether it is still ours."""

    def __init__(self, path: Location, generation: int, holder: Holder) -> None:
        self._path = path
        self._generation = generation
        self._holder = holder
        self._released = threading.Event()
        self._lock = threading.Lock()
        self._beater = threading.Thread(target=self._beat_on, name=f"lease of {path.name}", daemon=True)
        self._beater.start()

    def check(self) -> None:
        """Raises LeaseLostError when another process has taken the lease over."""
        try:
            if not self._path.storage.is_there:  # then nobody can have taken it over
                return
            newest = max(_generations(self._path), default=None)
            holder = None if newest is None else _read(_file(self._path, newest))
        except OSError:
            return
        if holder is None or holder.token != self._holder.token:
            raise LeaseLostError(f"{self._path.name} was taken over by another process; this one stops")

    def say(self, note: str) -> None:
        """Lets others know what the holder waits for; empty when it waits no more. A storage that fails is no error."""
        self._renew(note)

    def release(self) -> None:
        """Gives the lease back."""
        self._released.set()
        self._beater.join()
        with contextlib.suppress(OSError, LeaseLostError):
            self.check()
            _file(self._path, self._generation).remove()

    def _beat_on(self) -> None:
        while not self._released.wait(BEAT_SECONDS):
            self._renew(self._holder.note)

    def _renew(self, note: str) -> None:
        with self._lock:
            self._holder = replace(self._holder, beat=self._holder.beat + 1, note=note)
            with contextlib.suppress(OSError, LeaseLostError):
                self.check()
                if not self._path.storage.is_there:
                    return
                file = _file(self._path, self._generation)
                file.write(_content(self._holder), unique=self._holder.token)
                if max(_generations(self._path), default=0) > self._generation:  # taken over between the two
                    file.remove()


def take_lease(
    path: Location, *, wait: Callable[[], bool], owner: str = "", on_unknown: Callable[[Holder], None] = lambda _: None
) -> Lease | Holder:
    """Takes the lease at `path`, a name without suffix; returns its holder where that is alive and `wait()` is false.

    `on_unknown` hears once of a holder on another machine, whose heartbeat has to be watched first.

    Raises:
        FileNotFoundError: the storage is not there; one that went away is not made anew.
    """
    if not path.storage.is_there:
        raise FileNotFoundError(errno.ENOENT, f"{path.storage} has vanished")
    watch = _Watch(time.monotonic)
    told = False
    while True:
        generation = _newest(path)
        holder = None if generation is None else _read(_file(path, generation))
        if generation is not None and holder is None:
            continue  # released between the two looks
        verdict = "free" if holder is None else watch.look(holder)
        if verdict == "free":
            lease = _take(path, (generation or 0) + 1, owner)
            if lease is not None:
                return lease
            continue
        assert holder is not None
        if verdict == "alive" and not wait():
            return holder
        if verdict == "unknown" and not told:
            told = True
            on_unknown(holder)
        time.sleep(_POLL_SECONDS)


def holder_of(path: Location, now: float) -> Holder | None:
    """Who seems to hold the lease at `path`, without waiting; `now` is the wall clock, trusted only across machines."""
    generation = _newest(path)
    file = _file(path, generation or 0)
    holder = _read(file)
    if holder is None or holder.is_gone:
        return None
    try:
        is_fresh = holder.machine == _machine() or now - file.modified() < EXPIRES_SECONDS
    except FileNotFoundError:
        return None
    return holder if is_fresh else None


def remove_if_free(path: Location) -> None:
    """Removes the files of a lease whose holder was a process of this machine that is gone."""
    for generation in _generations(path):
        holder = _read(_file(path, generation))
        if holder is not None and holder.is_gone:
            _file(path, generation).remove()


class _Watch:
    """Judges a holder by its heartbeat, on our own clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: Holder | None = None
        self._changed_at = 0.0

    def look(self, holder: Holder) -> Literal["free", "alive", "unknown"]:
        if holder.is_gone:
            return "free"
        is_new = self._seen is None or self._seen.token != holder.token
        has_beaten = not is_new and self._seen != holder
        if is_new or has_beaten:
            self._seen, self._changed_at = holder, self._clock()
        if self._clock() - self._changed_at > EXPIRES_SECONDS:
            return "free"
        return "alive" if has_beaten or holder.machine == _machine() else "unknown"


def _take(path: Location, generation: int, owner: str) -> Lease | None:
    """The lease of that generation, unless another process was faster."""
    holder = Holder(
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
        process_started=_start_of(os.getpid()) or 0.0,
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        owner=owner,
    )
    if not _file(path, generation).create(_content(holder)):
        return None
    if _newest(path) != generation:  # we looked before another took a later one
        _file(path, generation).remove()
        return None
    for older in _generations(path):
        if older < generation:
            _file(path, older).remove()
    return Lease(path, generation, holder)


def _content(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode()


def _file(path: Location, generation: int) -> Location:
    return path.with_name(f"{path.name}.lease.{generation}")


def _generations(path: Location) -> list[int]:
    prefix = f"{path.name}.lease."
    numbers = (name.removeprefix(prefix) for name in path.parent.names() if name.startswith(prefix))
    return [int(number) for number in numbers if number.isdecimal()]


def _newest(path: Location) -> int | None:
    return max(_generations(path), default=None)


def _read(file: Location) -> Holder | None:
    """What the file says; one that makes no sense, as after a power cut, is of a holder that is gone."""
    try:
        return Holder(**json.loads(file.read()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return Holder(token=file.name, host="?", machine=_machine(), pid=-1, process_started=-1.0, since="?")


def _start_of(pid: int) -> float | None:
    """When a process of this machine started, ticks since boot; None when it is gone. No clock that can be set is asked."""
    try:
        # proc(5): the second field is a name in parentheses; the state is the third field, the start the 22nd
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _start_elsewhere(pid)
    except ProcessLookupError:
        return None
    return None if fields[0] in "ZX" else float(fields[19])


def _start_elsewhere(pid: int) -> float | None:
    """The same where there is no /proc: seconds since the epoch."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time())
    except (psutil.NoSuchProcess, ValueError):
        return None


@cache
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        boot, namespace = str(psutil.boot_time()), ""
    return f"{socket.gethostname()}/{boot}/{namespace}"
