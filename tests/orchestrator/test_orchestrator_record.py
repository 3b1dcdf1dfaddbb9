"""Recording: exactly once, and never lost when the storage fails."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator import record
from orchestrator.record import AttemptRecorder, EventLog
from results.ledger import Ledger
from trainables.contract import Report

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ATTEMPT = {"trial_key": "0" * 16, "attempt": 1, "sweep_id": "grid-1", "status": "running", "resumed_step": 0, "started_at": NOW}


def a_report(step: int) -> Report:
    metrics = {"train_qa_loss": 1.5, "val_qa_loss": None, "temperature": 0.5}
    return Report(step=step, epoch=step / 10, samples_seen=step * 8, metrics=metrics, params_total=3, params_trainable=3)


def test_reports_are_in_the_ledger_as_soon_as_they_are_added(tmp_path: Path) -> None:
    recorder = AttemptRecorder(tmp_path, dict(ATTEMPT))
    for step in (5, 10):
        recorder.add(a_report(step), wall_seconds=step / 5)
        rows = (
            Ledger(tmp_path).sql("SELECT step, wall_seconds, train_qa_loss, val_qa_loss FROM reports ORDER BY step").to_pylist()
        )
        assert rows[-1] == {"step": step, "wall_seconds": step / 5, "train_qa_loss": 1.5, "val_qa_loss": None}
    assert len(list((tmp_path / "ledger" / "reports").glob("*.parquet"))) == 1
    extra = Ledger(tmp_path).sql("SELECT extra['temperature'] AS t FROM reports").to_pylist()
    assert extra == [{"t": 0.5}] * 2


def test_a_storage_that_fails_for_a_while_loses_nothing(tmp_path: Path) -> None:
    recorder = AttemptRecorder(tmp_path, dict(ATTEMPT))
    blocked = tmp_path / "ledger" / "reports"
    blocked.write_text("a file where a folder must be")
    recorder.add(a_report(5), wall_seconds=1)
    recorder.add(a_report(10), wall_seconds=2)
    blocked.unlink()
    recorder.finish(status="completed", finished_at=NOW)
    assert Ledger(tmp_path).sql("SELECT step FROM reports ORDER BY step").to_pylist() == [{"step": 5}, {"step": 10}]


def test_a_storage_that_fails_for_good_leaves_the_rows_in_a_spool_folder_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(record.time, "sleep", lambda seconds: None)
    recorder = AttemptRecorder(tmp_path, dict(ATTEMPT))
    (tmp_path / "ledger" / "reports").write_text("a file where a folder must be")
    recorder.add(a_report(5), wall_seconds=1)
    with pytest.raises(OSError, match=r"the rows are safe in .*sweep-ledger-spool"):
        recorder.finish(status="completed")
    assert Ledger(tmp_path / "tmp" / "sweep-ledger-spool").sql("SELECT step FROM reports").to_pylist() == [{"step": 5}]


def test_events_roll_over_into_further_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_EVENTS_PER_PART", 3)
    events = EventLog(tmp_path, "grid-1", "driver", "host", lambda: NOW)
    for attempt in range(1, 8):
        events.add("0" * 16, "running", attempt=attempt)
    assert len(list((tmp_path / "ledger" / "events").glob("*.parquet"))) == 3
    assert Ledger(tmp_path).sql("SELECT count(*) AS n FROM events").to_pylist() == [{"n": 7}]
