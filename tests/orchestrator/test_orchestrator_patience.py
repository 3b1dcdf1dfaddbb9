"""Waiting for a storage that is full or away."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import StorageError
from orchestrator.patience import patiently


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    (tmp_path / "sweeps").mkdir()
    return tmp_path


class Clock:
    """Time passes by sleeping alone."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def failing(times: int) -> Callable[[], str]:
    left = [OSError(errno.ENOSPC, "No space left on device")] * times

    def write() -> str:
        if left:
            raise left.pop()
        return "written"

    return write


def attempt(write: Callable[[], str], storage: Path, said: list[str], patience: float = 600) -> str:
    clock = Clock()
    return patiently(write, storage, patience_seconds=patience, say=said.append, clock=clock, sleep=clock.sleep)


def test_a_write_that_works_says_nothing(storage: Path) -> None:
    said: list[str] = []
    assert attempt(failing(0), storage, said) == "written"
    assert attempt(failing(1), storage, said) == "written"  # a single failure is no news
    assert said == []


def test_a_full_storage_is_named_until_there_is_room_again(storage: Path) -> None:
    said: list[str] = []
    assert attempt(failing(5), storage, said) == "written"
    assert "No space left on device" in said[0]
    assert str(storage) in said[0]
    assert "free space" in said[0]
    assert said[-1] == ""


def test_patience_ends_with_an_error_that_names_the_setting(storage: Path) -> None:
    with pytest.raises(
        StorageError, match=r"No space left on device.*waited 60 s \(recovery\.storage_patience_seconds\); free space"
    ):
        attempt(failing(1000), storage, [], patience=60)


def test_nothing_is_written_below_a_mount_that_went_away(tmp_path: Path) -> None:
    written: list[str] = []

    def write() -> str:
        written.append("x")
        return "x"

    with pytest.raises(StorageError, match="has vanished"):
        attempt(write, tmp_path / "unmounted", [], patience=5)
    assert written == []


def test_what_waiting_does_not_mend_is_raised_at_once(storage: Path) -> None:
    def write() -> str:
        (storage / "sweeps").mkdir()
        return "written"

    with pytest.raises(FileExistsError):
        attempt(write, storage, [])
