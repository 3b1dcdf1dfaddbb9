"""A storage that is full, read-only, gone or damaged, under a real driver: it waits, or says what is wrong; nothing is lost."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from campaign import SMALL, Campaign
from drivers import Ended, grid

from results.schema import SCHEMA_VERSION, arrow_schema


def mount(*arguments: object) -> None:
    subprocess.run([str(argument) for argument in arguments], check=True, capture_output=True)


@pytest.fixture
def small_disk(tmp_path: Path, campaign: Campaign) -> Iterator[Path]:
    """A storage on a file system of its own, of 64 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        mount("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount")
    shutil.copytree(campaign.template, disk / "storage")
    yield disk / "storage"
    mount("umount", "-l", disk)


@pytest.fixture
def run(campaign: Campaign) -> Callable[..., Ended]:
    def started(storage: Path, **options: object) -> Ended:
        return campaign.server.run(campaign.command, storage, **options)

    return started


def until_said(driver: int, words: str, then: Callable[[], object]) -> threading.Thread:
    """Does something once the driver, a process of the fork server, has said `words` on its stderr."""

    def wait() -> None:
        said = Path(f"/proc/{driver}/fd/2").readlink()
        deadline = time.monotonic() + 60
        while words not in said.read_text(encoding="utf-8") and time.monotonic() < deadline:
            time.sleep(0.05)
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_full_disk_is_waited_out(
    small_disk: Path, run: Callable[..., Ended], campaign: Campaign, faulty: Callable[..., dict[str, str]]
) -> None:
    filler = small_disk.parent / "filler"

    def fill(driver: int) -> None:
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(b"\0" * 4096)
        until_said(driver, "cannot be written", lambda: filler.unlink(missing_ok=True))

    ended = run(small_disk, environment=faulty("slow"), once_said=("epoch 1", fill))
    assert ended.status == 0, ended.stderr
    assert "(No space left on device); free space or bring it back" in ended.stderr
    assert campaign.golden.differences(small_disk) == []


@pytest.mark.faults
def test_a_storage_that_becomes_read_only_is_waited_for(
    small_disk: Path, run: Callable[..., Ended], campaign: Campaign, faulty: Callable[..., dict[str, str]]
) -> None:
    def freeze(driver: int) -> None:
        mount("mount", "-o", "remount,ro", small_disk.parent)
        until_said(driver, "cannot be written", lambda: mount("mount", "-o", "remount,rw", small_disk.parent))

    ended = run(small_disk, environment=faulty("slow"), once_said=("epoch 1", freeze))
    assert ended.status == 0, ended.stderr
    assert "(Read-only file system)" in ended.stderr
    assert campaign.golden.differences(small_disk) == []


@pytest.mark.faults
def test_a_storage_that_goes_away_is_waited_for_and_nothing_is_written_in_its_place(
    tmp_path: Path, run: Callable[..., Ended], campaign: Campaign, faulty: Callable[..., dict[str, str]]
) -> None:
    storage, away = tmp_path / "storage", tmp_path / "away"
    shutil.copytree(campaign.template, storage)
    found: list[bool] = []

    def bring_back() -> None:
        found.append(storage.exists())
        away.rename(storage)

    def take_away(driver: int) -> None:
        storage.rename(away)
        until_said(driver, "has vanished", bring_back)

    ended = run(storage, environment=faulty("slow"), once_said=("epoch 1", take_away))
    assert ended.status == 0, ended.stderr
    assert found == [False]
    assert campaign.golden.differences(storage) == []


def test_patience_ends_with_a_clear_line_and_the_sweep_goes_on_later(
    tmp_path: Path, campaign: Campaign, faulty: Callable[..., dict[str, str]], write_preset: Callable[..., Path]
) -> None:
    storage, away = tmp_path / "storage", tmp_path / "away"
    shutil.copytree(campaign.template, storage)
    impatient = write_preset(tmp_path, **{**SMALL, "recovery": {"checkpoint_seconds": 0, "storage_patience_seconds": 2}})
    ended = campaign.server.run(
        grid(impatient), storage, environment=faulty("slow"), once_said=("epoch 1", lambda _: storage.rename(away))
    )
    assert ended.status == 2
    assert "has vanished" in ended.stderr.splitlines()[-1]
    assert "then run the same command again" in ended.stderr.splitlines()[-1]
    assert not storage.exists()
    away.rename(storage)
    assert campaign.server.run(campaign.command, storage).status == 0
    assert campaign.golden.differences(storage) == []


def test_a_storage_that_cannot_be_written_is_refused_before_anything_runs(small_disk: Path, run: Callable[..., Ended]) -> None:
    mount("mount", "-o", "remount,ro", small_disk.parent)
    ended = run(small_disk)
    assert ended.status == 2
    assert "Read-only file system" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def newest(storage: Path, pattern: str) -> Path:
    return max(storage.glob(pattern), key=lambda path: path.stat().st_mtime_ns)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a torn reports part": lambda storage: truncate(newest(storage, "ledger/reports/*.parquet")),
}
MORE_DAMAGE: dict[str, Callable[[Path], object]] = {
    "a torn sweep.json": lambda storage: truncate(newest(storage, "sweeps/*/sweep.json")),
    "a torn checkpoint": lambda storage: truncate(newest(storage, "checkpoints/*/step-*.safetensors")),
    "a torn predictions part": lambda storage: truncate(newest(storage, "ledger/predictions/*.parquet")),
    "a torn attempts part": lambda storage: truncate(newest(storage, "ledger/attempts/*.parquet")),
    "a torn events part": lambda storage: truncate(newest(storage, "ledger/events/*.parquet")),
    "a torn plans part": lambda storage: truncate(newest(storage, "ledger/plans/*.parquet")),
    "a lost evaluations part": lambda storage: newest(storage, "ledger/evaluations/*.parquet").unlink(),
    "deleted checkpoints": lambda storage: shutil.rmtree(newest(storage, "checkpoints/*/step-*.safetensors").parent),
}


@pytest.fixture(scope="module")
def interrupted(campaign: Campaign) -> Path:
    """A storage whose driver was killed in its second trial, with a checkpoint."""
    storage = campaign.storage()
    slow = {"SWEEP_FAULT": "slow"}
    killed = campaign.server.run(
        campaign.command, storage, environment=slow, once_said=("[1/4]", lambda driver: wait_and_kill(driver, storage))
    )
    assert killed.was_killed
    return storage


@pytest.fixture
def damaged(interrupted: Path, tmp_path: Path) -> Path:
    shutil.copytree(interrupted, tmp_path / "storage")
    return tmp_path / "storage"


@pytest.mark.parametrize("what", [*DAMAGE, *(pytest.param(what, marks=pytest.mark.faults) for what in MORE_DAMAGE)])
def test_what_is_damaged_is_found_repaired_and_run_again(
    what: str, damaged: Path, run: Callable[..., Ended], campaign: Campaign
) -> None:
    {**DAMAGE, **MORE_DAMAGE}[what](damaged)
    repaired = results("verify", "--repair", "--storage", str(damaged))
    if "checkpoint" not in what:
        assert repaired.returncode == 1, repaired.stdout
        assert list((damaged / "quarantine").rglob("*")) or "lost" in what
    ended = run(damaged)
    assert ended.status == 0, ended.stderr
    assert campaign.golden.differences(damaged) == []
    assert results("verify", "--storage", str(damaged)).returncode == 0


def test_a_torn_part_of_an_unfinished_trial_costs_its_checkpoints_and_no_row(
    damaged: Path, run: Callable[..., Ended], campaign: Campaign
) -> None:
    truncate(newest(damaged, "ledger/reports/*.parquet"))
    ended = run(damaged)
    assert ended.status == 0
    assert "cannot be read, so the trial starts over" in ended.stderr
    results("verify", "--repair", "--storage", str(damaged))
    assert campaign.golden.differences(damaged) == []


def wait_and_kill(driver: int, storage: Path) -> None:
    """Kills the driver once its second trial has a checkpoint."""
    deadline = time.monotonic() + 60
    while not list(storage.glob("checkpoints/*/step-*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(driver, 9)


def results(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "results", *arguments], capture_output=True, text=True, check=False)


def test_a_ledger_of_a_newer_version_is_refused_by_name_before_anything_runs(
    run: Callable[..., Ended], campaign: Campaign
) -> None:
    storage = campaign.storage()
    part = storage / "ledger" / "events" / "from-the-future.parquet"
    part.parent.mkdir(parents=True)
    schema = arrow_schema("events").with_metadata({"table": "events", "schema_version": str(SCHEMA_VERSION + 1)})
    pq.write_table(pa.Table.from_batches([], schema), part)
    ended = run(storage)
    assert ended.status == 2
    assert "from-the-future.parquet" in ended.stderr.splitlines()[-1]
    assert f"schema version {SCHEMA_VERSION + 1}" in ended.stderr.splitlines()[-1]
    assert not (storage / "ledger" / "attempts").exists()
