"""Recording: exactly once, in the order in which it happened, and never lost when the storage fails."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator import record
from orchestrator.errors import StorageError
from orchestrator.record import AttemptRecorder, EventLog, LedgerWriter, RunLog, close_attempt
from results.ledger import Ledger
from results.parts import write_part
from results.schema import TABLES
from trainables.contract import Evaluation, ExpertLoad, Prediction, Report

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ATTEMPT = {"trial_key": "0" * 16, "attempt": 1, "sweep_id": "grid-1", "status": "running", "resumed_step": 0, "started_at": NOW}


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    (tmp_path / "storage" / "sweeps").mkdir(parents=True)
    return tmp_path / "storage"


def writer(storage: Path, patience_seconds: float = 0) -> LedgerWriter:
    return LedgerWriter(storage, patience_seconds, lambda _: None)


def a_report(step: int) -> Report:
    metrics = {"train_qa_loss": 1.5, "val_qa_loss": None, "temperature": 0.5}
    return Report(
        step=step, epoch=step / 10, samples_seen=step * 8, metrics=metrics, params_total=3, params_active=3, params_trainable=3
    )


def test_reports_are_in_the_ledger_as_soon_as_they_are_added(storage: Path) -> None:
    recorder = AttemptRecorder(writer(storage), dict(ATTEMPT))
    for step in (5, 10):
        recorder.add(a_report(step), wall_seconds=step / 5)
        rows = Ledger(storage, must_exist=False).sql(
            "SELECT step, wall_seconds, train_qa_loss, val_qa_loss FROM reports ORDER BY step"
        )
        assert rows.to_pylist()[-1] == {"step": step, "wall_seconds": step / 5, "train_qa_loss": 1.5, "val_qa_loss": None}
    assert len(list((storage / "ledger" / "reports").glob("*.parquet"))) == 1
    extra = Ledger(storage, must_exist=False).sql("SELECT extra['temperature'] AS t FROM reports").to_pylist()
    assert extra == [{"t": 0.5}] * 2


def test_a_report_that_the_ledger_shows_has_all_its_rows_there(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores: dict[str, float] = {"em": 50.0, "f1": 50.0}
    more = {"em_raw": 50.0, "contains_gold": 50.0, "mean_answer_tokens": 2.0}
    report = replace(
        a_report(5),
        evaluations=(Evaluation(split="val", domain="squad", examples=2, qa_loss=1.0, **scores, **more),),
        expert_loads=(
            ExpertLoad(split="val", domain="squad", layer=0, expert=0, load_share=1.0, mean_gate=1.0, dropped_share=0.0),
        ),
        predictions=(
            Prediction(
                domain="squad", example_id="1", group_id="g", question="?", gold=("a",), prediction="a", score=1.0, **scores
            ),
        ),
    )
    seen = []

    def write_and_look(storage: Path, table: str, part: str, rows: list[dict[str, Any]]) -> None:
        write_part(storage, table, part, rows)
        seen.append({name for name in TABLES if any(storage.glob(f"ledger/{name}/*.parquet"))})

    recorder = AttemptRecorder(writer(storage), dict(ATTEMPT))
    monkeypatch.setattr(record, "write_part", write_and_look)  # a kill may come after any write
    recorder.add(report, wall_seconds=1)
    complete = {"attempts", "reports", "evaluations", "routing", "predictions"}
    assert [tables for tables in seen if "reports" in tables] == [complete]
    assert len(seen) == 4


def test_a_storage_that_is_away_for_a_while_loses_nothing(storage: Path) -> None:
    waits: list[str] = []

    def say(what: str) -> None:
        waits.append(what)
        if what and not storage.exists():
            (storage.parent / "away").rename(storage)  # it comes back while the writer waits

    recorder = AttemptRecorder(LedgerWriter(storage, 60, say), dict(ATTEMPT))
    storage.rename(storage.parent / "away")
    recorder.add(a_report(5), wall_seconds=1)
    assert Ledger(storage, must_exist=False).sql("SELECT step FROM reports").to_pylist() == [{"step": 5}]
    assert "has vanished" in waits[0]
    assert waits[-1] == ""


def test_a_storage_that_fails_for_good_leaves_the_rows_in_a_spool_folder_that_is_named(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(storage.parent / "tmp"))
    recorder = AttemptRecorder(writer(storage), dict(ATTEMPT))
    (storage / "ledger" / "reports").write_text("a file where a folder must be")
    with pytest.raises(StorageError, match=r"the rows are safe in .*sweep-ledger-spool"):
        recorder.add(a_report(5), wall_seconds=1)
    [spool] = (storage.parent / "tmp").glob("sweep-ledger-spool-*")
    assert Ledger(spool).sql("SELECT step FROM reports").to_pylist() == [{"step": 5}]


def events(storage: Path, now: Callable[[], datetime], newest: datetime | None = None) -> EventLog:
    return EventLog(writer(storage), "grid-1", "run-1", "host", now, newest)


def test_events_roll_over_into_further_parts(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "_ROWS_PER_PART", 3)
    log = events(storage, lambda: NOW)
    for attempt in range(1, 8):
        log.add("0" * 16, "running", attempt=attempt)
    assert len(list((storage / "ledger" / "events").glob("*.parquet"))) == 3
    assert Ledger(storage, must_exist=False).sql("SELECT count(*) AS n FROM events").to_pylist() == [{"n": 7}]


def test_a_clock_that_is_set_back_does_not_turn_the_order_of_events(storage: Path) -> None:
    jumps = iter([NOW, NOW - timedelta(days=1), NOW - timedelta(days=400)])
    log = events(storage, lambda: next(jumps), newest=NOW + timedelta(hours=1))
    for status in ("running", "lost", "running"):
        log.add("0" * 16, status)
    rows = Ledger(storage, must_exist=False).sql("SELECT status, happened_at FROM events ORDER BY happened_at").to_pylist()
    assert [row["status"] for row in rows] == ["running", "lost", "running"]
    assert rows[0]["happened_at"] > NOW + timedelta(hours=1)
    assert Ledger(storage, must_exist=False).sql("SELECT status FROM trials").to_pylist() == [{"status": "running"}]


def test_an_attempt_whose_worker_is_gone_is_closed_with_the_time_it_held(storage: Path) -> None:
    row = {**ATTEMPT, "startup_seconds": 2.0, "train_seconds": 1.0, "gpu_seconds": None}
    AttemptRecorder(writer(storage), dict(row))
    close_attempt(writer(storage), row, held=(10.0, 0.5))
    [closed] = Ledger(storage, must_exist=False).sql("SELECT * FROM attempts").to_pylist()
    assert (closed["status"], closed["failure_class"]) == ("lost", "lost")
    assert (closed["train_seconds"], closed["gpu_seconds"]) == (8.0, 5.0)


def test_a_run_is_one_row_that_says_how_it_ended(storage: Path) -> None:
    log = RunLog(writer(storage), {"run_id": "run-1", "sweep_id": "grid-1", "started_at": NOW, "slots": 2}, lambda: NOW)
    log.beat()
    assert Ledger(storage, must_exist=False).sql("SELECT ended, slots FROM runs").to_pylist() == [{"ended": None, "slots": 2}]
    log.end("budget")
    assert Ledger(storage, must_exist=False).sql("SELECT ended FROM runs").to_pylist() == [{"ended": "budget"}]
