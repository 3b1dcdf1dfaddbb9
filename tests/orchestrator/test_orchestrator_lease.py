"""Leases, with real processes: one holder at a time, taken over when the holder is gone, whatever the clocks say.

Every test runs on a folder and on an object store.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from s3_server import S3Server

from orchestrator import lease
from orchestrator.errors import LeaseLostError, SweepLockedError
from orchestrator.lease import Holder, Lease, holder_of, take_lease
from orchestrator.location import Location, location
from orchestrator.sweep import sweep_lease
from results.storage import SweepStorage, open_sweep_storage

HOLD = """
import sys, time
from orchestrator.lease import Lease, take_lease
from orchestrator.location import location
taken = take_lease(location(*sys.argv[1].rsplit("//", 1)), wait=lambda: False)
print("held" if isinstance(taken, Lease) else "refused", flush=True)
if isinstance(taken, Lease):
    time.sleep(float(sys.argv[2]))
    taken.release()
"""


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> SweepStorage:
    """A storage with a sweep in it."""
    uri = tmp_path / "storage" if request.param == "folder" else request.getfixturevalue("s3")
    opened = open_sweep_storage(uri)
    location(opened, "sweeps/other/sweep.json").write(b"{}")
    return opened


@pytest.fixture
def trial(storage: SweepStorage) -> Location:
    """Where the lease on a trial is."""
    return location(storage, "leases/trial")


def named(path: Location) -> str:
    """A lease as an argument of a command."""
    return f"{path.storage}//{path.relative}"


@contextmanager
def contender(path: Location, seconds: float = 60) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, named(path), str(seconds)], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats of a twentieth of a second and an expiry of half a second."""
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lease, "EXPIRES_SECONDS", 0.5)
    monkeypatch.setattr(lease, "_POLL_SECONDS", 0.02)


def test_a_second_driver_is_refused_until_the_first_process_is_gone(storage: SweepStorage) -> None:
    driver = location(storage, "sweeps/grid-1/driver")
    with contender(driver) as holder:
        assert said(holder) == "held"
        match = f"being run by process {holder.pid} on "
        with pytest.raises(SweepLockedError, match=match), sweep_lease(storage, "grid-1", print):
            pass
        assert holder_of(driver, time.time()) is not None
        holder.send_signal(signal.SIGKILL)  # nothing of its own cleans up
        holder.wait()
        assert holder_of(driver, time.time()) is None
    with sweep_lease(storage, "grid-1", print):
        pass


def test_the_lease_is_free_again_after_an_error(storage: SweepStorage) -> None:
    with pytest.raises(RuntimeError), sweep_lease(storage, "grid-1", print):
        raise RuntimeError
    with sweep_lease(storage, "grid-1", print):
        pass
    assert storage.names("sweeps/grid-1") == []


def test_of_many_processes_that_race_for_a_lease_one_gets_it(trial: Location) -> None:
    with ExitStack() as stack:
        racers = [stack.enter_context(contender(trial)) for _ in range(5)]
        assert sorted(said(racer) for racer in racers) == ["held"] + ["refused"] * 4


def test_a_stopped_holder_loses_its_lease_and_learns_of_it(trial: Location, quick: None) -> None:
    with contender(trial) as holder:
        assert said(holder) == "held"
        holder.send_signal(signal.SIGSTOP)
        taken = take_lease(trial, wait=lambda: True)  # its process is there, but its heart does not beat
        assert isinstance(taken, Lease)
        holder.send_signal(signal.SIGCONT)
        taken.check()
        taken.release()


def test_whoever_is_taken_over_finds_out(trial: Location, quick: None) -> None:
    mine = take_lease(trial, wait=lambda: False)
    assert isinstance(mine, Lease)
    mine.check()
    mine._released.set()  # its thread is stuck, as in a process that was swapped out
    theirs = take_lease(trial, wait=lambda: True)
    assert isinstance(theirs, Lease)
    with pytest.raises(LeaseLostError, match="taken over"):
        mine.check()
    theirs.check()
    theirs.release()


@pytest.mark.parametrize("hours", [-1000, 0, 1000])
def test_the_clocks_of_other_machines_do_not_matter(trial: Location, quick: None, hours: float, s3_server: S3Server) -> None:
    elsewhere = Holder(token="t", host="far", machine="far/boot", pid=1, process_started=0.0, since="then")
    file = trial.with_name("trial.lease.7")
    file.write(json.dumps(vars(elsewhere)).encode())
    then = time.time() + 3600 * hours
    if trial.storage.folder is None:
        s3_server.set_time(file.path, then)
    else:
        os.utime(file.path, (then, then))
    assert file.modified() == pytest.approx(then, abs=1)
    asked: list[Holder] = []
    taken = take_lease(trial, wait=lambda: False, on_unknown=asked.append)
    assert isinstance(taken, Lease)  # nobody beat it for as long as a lease lasts, by our own clock
    assert asked == [elsewhere]
    taken.release()


def test_a_holder_elsewhere_that_beats_is_believed(trial: Location, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    there = take_lease(trial, wait=lambda: False)
    assert isinstance(there, Lease)
    monkeypatch.setattr(lease, "_machine", lambda: "another machine")
    refused = take_lease(trial, wait=lambda: False)
    assert isinstance(refused, Holder)
    assert refused.pid == os.getpid()
    there.release()


def test_a_note_is_seen_by_others(trial: Location) -> None:
    mine = take_lease(trial, wait=lambda: False)
    assert isinstance(mine, Lease)
    mine.say("waits for space")
    holder = holder_of(trial, time.time())
    assert holder is not None
    assert holder.note == "waits for space"
    mine.release()
    assert holder_of(trial, time.time()) is None


def test_a_former_holder_does_not_take_a_later_lease_for_its_own(trial: Location, quick: None) -> None:
    mine = take_lease(trial, wait=lambda: False)
    assert isinstance(mine, Lease)
    mine._released.set()  # stuck, while two others come and one goes
    second = take_lease(trial, wait=lambda: True)
    assert isinstance(second, Lease)
    second.release()
    third = take_lease(trial, wait=lambda: False)
    assert isinstance(third, Lease)
    with pytest.raises(LeaseLostError):
        mine.check()
    mine.release()
    third.check()
    third.release()


def test_a_torn_lease_is_nobodys(trial: Location) -> None:
    trial.with_name("trial.lease.3").write(b"")
    assert holder_of(trial, time.time()) is None
    taken = take_lease(trial, wait=lambda: False)
    assert isinstance(taken, Lease)
    taken.release()


def test_a_lease_does_not_make_a_storage_that_is_away(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        take_lease(location(tmp_path / "unmounted", "leases/trial"), wait=lambda: False)
    assert list(tmp_path.iterdir()) == []


def test_a_clock_that_is_set_does_not_end_a_process(trial: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = take_lease(trial, wait=lambda: False)
    assert isinstance(mine, Lease)
    monkeypatch.setattr(psutil, "boot_time", lambda: 4e9)  # psutil reckons when a process started from the clock
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: 4e9)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    holder = holder_of(trial, 4e9)
    assert holder is not None
    assert holder.pid == os.getpid()
    mine.release()
