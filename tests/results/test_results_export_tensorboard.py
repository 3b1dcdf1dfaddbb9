"""A sweep written for TensorBoard and read back with TensorBoard's own readers, the HParams dashboard's too."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from export_ledger import COMPLETED, FAILED, NUM_TRIALS, PLANNED, RUNNING, STOPPED, export_ledger, write_running
from synthetic_ledger import SWEEP_ID
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata

from results import Ledger, export_sweep
from results.exports.runs import Run, choose_sweep, load_runs


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
    target = tmp_path_factory.mktemp("tensorboard")
    done = export_sweep(Ledger(storage), "tensorboard", str(target))
    assert (done.num_written, done.num_unchanged, done.num_left_out) == (NUM_TRIALS - 1, 0, 1)
    return target


def _read(folder: Path, key: str) -> EventAccumulator:
    events = EventAccumulator(str(folder / SWEEP_ID / key), size_guidance={"scalars": 0})
    events.Reload()
    return events


def test_every_started_trial_is_a_run_folder(folder: Path, expected: dict[str, Run]) -> None:
    assert {path.name for path in (folder / SWEEP_ID).iterdir()} == set(expected) - {PLANNED}


def test_scalars_have_every_step_and_its_time(folder: Path, expected: dict[str, Run]) -> None:
    for key in (COMPLETED, RUNNING, FAILED, STOPPED):
        events = _read(folder, key)
        names = {name for point in expected[key].points for name in point.metrics}
        assert set(events.Tags()["scalars"]) == names
        for name in names:
            measured = [point for point in expected[key].points if name in point.metrics]
            found = events.Scalars(name)
            assert [(event.step, event.wall_time) for event in found] == [(p.step, p.at.timestamp()) for p in measured]
            for event, point in zip(found, measured, strict=True):
                assert event.value == pytest.approx(point.metrics[name], rel=1e-6, nan_ok=True)
    assert math.isinf(_read(folder, RUNNING).Scalars("extra/grad_norm")[1].value)


def test_hparams_dashboard_finds_settings_states_and_times(folder: Path, expected: dict[str, Run]) -> None:
    states = {COMPLETED: "STATUS_SUCCESS", STOPPED: "STATUS_SUCCESS", FAILED: "STATUS_FAILURE"}
    for key in (COMPLETED, STOPPED, FAILED, RUNNING):
        content = _read(folder, key).summary_metadata
        start = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG].plugin_data.content)
        settings = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
        run = expected[key]
        assert settings == {**run.parameters, "status": run.status, "seed": "0"}
        assert run.started_at is not None and start.start_time_secs == run.started_at.timestamp()
        if key == RUNNING:
            assert metadata.SESSION_END_INFO_TAG not in content
            continue
        end = metadata.parse_session_end_info_plugin_data(content[metadata.SESSION_END_INFO_TAG].plugin_data.content)
        assert end.status == api_pb2.Status.Value(states[key])
        assert run.finished_at is not None and end.end_time_secs == run.finished_at.timestamp()


def test_error_is_shown_as_text(folder: Path) -> None:
    [event] = _read(folder, FAILED).Tensors("error")
    assert event.tensor_proto.string_val[0].decode() == "    Traceback …\n    RuntimeError: out of <memory>"
    assert "error" not in _read(folder, COMPLETED).Tags()["tensors"]


def test_again_replaces_what_changed_and_duplicates_nothing(storage: Path, tmp_path: Path) -> None:
    copied, target = shutil.copytree(storage, tmp_path / "storage"), tmp_path / "out"
    export_sweep(Ledger(copied), "tensorboard", str(target))
    write_running(copied, steps=(10, 20, 30, 40))
    done = export_sweep(Ledger(copied), "tensorboard", str(target))
    assert (done.num_written, done.num_unchanged) == (1, NUM_TRIALS - 2)
    assert [event.step for event in _read(target, RUNNING).Scalars("val_qa_loss")] == [10, 20, 30, 40]
    assert len(list((target / SWEEP_ID / RUNNING).iterdir())) == 1


def test_another_process_writes_the_same_bytes_without_tensorflow_and_torch(storage: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from results import Ledger, export_sweep
export_sweep(Ledger({str(storage)!r}), "tensorboard", {str(tmp_path)!r})
print(sorted(set(sys.modules) & {{"tensorflow", "torch", "ray"}}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout == "[]\n"
    again = export_sweep(Ledger(storage), "tensorboard", str(tmp_path))
    assert (again.num_written, again.num_unchanged) == (0, NUM_TRIALS - 1)  # the same bytes from another process
