"""A sweep written as offline W&B runs and read back with W&B's own reader (`wandb leet inspect`) and `wandb sync`."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from export_ledger import COMPLETED, FAILED, NUM_TRIALS, PLANNED, RUNNING, STOPPED, export_ledger, write_running
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_ledger import SWEEP_ID

from results import Ledger, export_sweep
from results.exports.runs import Run, choose_sweep, load_runs
from results.exports.wandb_log import encode_log


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    return export_ledger(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def expected(storage: Path) -> dict[str, Run]:
    ledger = Ledger(storage)
    return {run.trial_key: run for run in load_runs(ledger, choose_sweep(ledger))}


@pytest.fixture(scope="module")
def folder(storage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    target = tmp_path_factory.mktemp("wandb")
    done = export_sweep(Ledger(storage), "wandb", str(target))
    assert (done.num_written, done.num_unchanged, done.num_left_out) == (NUM_TRIALS - 1, 0, 1)
    return target / "wandb"


def _wandb(home: Path, *arguments: str) -> str:
    """What the tool prints, without account and network."""
    env = {**os.environ, "WANDB_MODE": "offline", "WANDB_DIR": str(home), "HOME": str(home), "WANDB_ERROR_REPORTING": "false"}
    command = [sys.executable, "-m", "wandb", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout + done.stderr


def _path(folder: Path, key: str) -> Path:
    [path] = folder.glob(f"offline-run-*-{key}/run-{key}.wandb")
    return path


def _inspect(folder: Path, key: str, home: Path) -> dict[str, Any]:
    return dict(json.loads(_wandb(home, "leet", "inspect", "--summary", "--json", str(_path(folder, key)))))


def _records(folder: Path, key: str, home: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _wandb(home, "leet", "inspect", "--json", str(_path(folder, key))).splitlines()]


@pytest.mark.parametrize(
    ("key", "state", "code"),
    [(COMPLETED, "finished", 0), (STOPPED, "finished", 0), (FAILED, "failed", 1), (RUNNING, None, None)],
)
def test_run_is_read_in_its_state(
    folder: Path, expected: dict[str, Run], tmp_path: Path, key: str, state: str | None, code: int | None
) -> None:
    found, run = _inspect(folder, key, tmp_path), expected[key]
    assert found.get("exit_code") == code
    assert state is None or found["state"] == state
    assert (found["run_id"], found["project"], found["name"]) == (key, SWEEP_ID, run.name)
    assert found["config"] == {"trainable": run.tags["trainable"], **run.config, "trial": run.tags}
    assert found["notes"] == (run.error or "")
    assert found["tags"] == [run.status, run.tags["trainable"]]
    assert run.started_at is not None and found["start_time"] == run.started_at.isoformat().replace("+00:00", "Z")


def test_history_has_every_step_and_its_time(folder: Path, expected: dict[str, Run], tmp_path: Path) -> None:
    for key in (COMPLETED, RUNNING):
        rows = [record["history"]["item"] for record in _records(folder, key, tmp_path) if record["type"] == "history"]
        assert [(row.pop("_step"), row.pop("_timestamp")) for row in rows] == [
            (point.step, point.at.timestamp()) for point in expected[key].points
        ]
        for row, point in zip(rows, expected[key].points, strict=True):
            assert row.pop("_runtime") >= 0
            assert {name: float(value) for name, value in row.items()} == pytest.approx(dict(point.metrics), nan_ok=True)
    assert math.isinf(expected[RUNNING].points[1].metrics["extra/grad_norm"])


def test_sync_takes_every_run_and_asks_nothing(folder: Path, tmp_path: Path) -> None:
    said = _wandb(tmp_path, "sync", "--dry-run", "--verbose", str(folder))
    assert f"Would sync {NUM_TRIALS - 1} run(s)" in said
    assert all(f"run-{key}.wandb" in said for key in (COMPLETED, FAILED, RUNNING, STOPPED))
    assert PLANNED not in said


def test_again_replaces_what_changed_and_has_it_synced_again(storage: Path, tmp_path: Path) -> None:
    copied, target = shutil.copytree(storage, tmp_path / "storage"), tmp_path / "out"
    export_sweep(Ledger(copied), "wandb", str(target))
    for path in (target / "wandb").glob("*/*.wandb"):
        path.with_name(f"{path.name}.synced").touch()
    write_running(copied, steps=(10, 20, 30, 40))
    done = export_sweep(Ledger(copied), "wandb", str(target))
    assert (done.num_written, done.num_unchanged) == (1, NUM_TRIALS - 2)
    assert len(list((target / "wandb").iterdir())) == NUM_TRIALS - 1
    assert "Would sync 1 run(s)" in _wandb(tmp_path, "sync", "--dry-run", str(target / "wandb"))
    steps = [row["history"]["step"]["num"] for row in _records(target / "wandb", RUNNING, tmp_path) if row["type"] == "history"]
    assert steps == [10, 20, 30, 40]


def test_long_records_are_read_by_wandb(storage: Path, expected: dict[str, Run], tmp_path: Path) -> None:
    """Records over several blocks, and ones that end within a header's length of a block's end."""
    from results.exports.wandb_runs import _encode

    ledger = Ledger(storage)
    sweep, run = choose_sweep(ledger), expected[FAILED]
    for length in (200_000, *range(32_300, 32_330)):
        longer = Run(**{**vars(run), "error": "x" * length})
        path = tmp_path / f"offline-run-20260101_000000-{FAILED}" / f"run-{FAILED}.wandb"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_log(_encode(sweep, longer)))
        if length in (200_000, 32_300, 32_329):
            assert len(_inspect(tmp_path, FAILED, tmp_path)["notes"]) == length


@given(st.lists(st.binary(max_size=40) | st.integers(0, 100_000).map(bytes), max_size=6))
@settings(deadline=None)
def test_log_decodes_to_its_records(records: list[bytes]) -> None:
    """Against a reader written from LevelDB's description: blocks of 32 KiB, pieces of type full, first, middle, last."""
    log, found, part, position = encode_log(records), [], b"", 7
    while position < len(log):
        room = 32768 - position % 32768
        if room < 7:
            assert log[position : position + room] == bytes(room)
            position += room
            continue
        checksum, size, kind = int.from_bytes(log[position : position + 4], "little"), *_size_and_kind(log, position)
        piece = log[position + 7 : position + 7 + size]
        assert len(piece) == size and size + 7 <= room
        assert zlib.crc32(bytes([kind]) + piece) == checksum
        assert (kind in (1, 2)) == (part == b"" and kind in (1, 2))
        part += piece
        if kind in (1, 4):
            found.append(part)
            part = b""
        position += 7 + size
    assert found == records


def _size_and_kind(log: bytes, position: int) -> tuple[int, int]:
    return int.from_bytes(log[position + 4 : position + 6], "little"), log[position + 6]
