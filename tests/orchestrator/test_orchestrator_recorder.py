"""The driver's ear: which attempts it judges, and when it gives a trial up."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.budget import Budget, StopAt
from orchestrator.preset import Recovery
from orchestrator.record import AttemptRecorder, EventLog, LedgerWriter
from orchestrator.recorder import Failure, Outcome, Recorder
from orchestrator.trial import Trial
from orchestrator.work import FixedWork
from orchestrator.worker import Ended, RunSettings
from results.ledger import Ledger

KEY = "0" * 16
NOW = datetime(2026, 1, 2, tzinfo=UTC)


class Ear:
    """Hears what a person would see."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, ...]] = []

    def say(self, line: str) -> None:
        self.heard.append(("say", line))

    def planned(self, trial: Trial) -> None:
        self.heard.append(("planned", trial.key))

    def started(self, trial_key: str) -> None:
        self.heard.append(("started", trial_key))

    def reported(self, trial_key: str, shown: dict[str, Any]) -> None:
        self.heard.append(("reported", trial_key))

    def retrying(self, trial_key: str, what: str) -> None:
        self.heard.append(("retrying", what))

    def ended(self, trial_key: str, status: str, what: str) -> None:
        self.heard.append(("ended", status))


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    (tmp_path / "sweeps" / "grid-1").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def recorder(storage: Path) -> Recorder:
    settings = RunSettings(
        storage=storage, sweep_id="grid-1", run_id="run-1", cpus=1, gpus=0.5, memory_bytes=None, recovery=Recovery()
    )
    writer = LedgerWriter(storage, 0, lambda _: None)
    events = EventLog(writer, "grid-1", "run-1", "host", lambda: NOW, None)
    budget = Budget(stop_at=StopAt("em_squad", 50.0))
    work = FixedWork([], num_done=0, total=1)
    return Recorder(settings, writer, events, budget, work, Ear(), Outcome(planned=1, done=0))


def attempt(storage: Path, number: int, status: str = "running", run_id: str = "run-1", **columns: Any) -> None:
    row = {"trial_key": KEY, "attempt": number, "run_id": run_id, "status": status, "resumed_step": 0, **columns}
    AttemptRecorder(LedgerWriter(storage, 0, lambda _: None), row)


def events(storage: Path) -> list[tuple[str, str]]:
    rows = Ledger(storage, must_exist=False).sql("SELECT status, failure_class FROM events ORDER BY happened_at").to_pylist()
    return [tuple(row.values()) for row in rows]


def test_a_worker_that_vanished_is_lost_and_its_row_closed(recorder: Recorder, storage: Path) -> None:
    recorder.started(KEY)
    attempt(storage, 1)
    assert recorder.errored(KEY, "ActorDiedError", "gone")
    assert events(storage) == [("running", None), ("lost", "lost")]
    [row] = Ledger(storage, must_exist=False).sql("SELECT status, failure_class, gpu_seconds FROM attempts").to_pylist()
    assert (row["status"], row["failure_class"]) == ("lost", "lost")
    assert row["gpu_seconds"] > 0


def test_an_attempt_is_judged_once_and_workers_that_never_begin_are_given_up(recorder: Recorder, storage: Path) -> None:
    attempt(storage, 1, "failed", failure_class="code", error_type="ValueError", error="ValueError: x", error_signature="s")
    assert recorder.errored(KEY, "ValueError", "x")
    answers = [recorder.errored(KEY, "ImportError", "no module") for _ in range(3)]
    assert answers == [True, True, False]
    assert events(storage) == [("planned", "code"), ("lost", None), ("lost", None), ("lost", "lost")]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("Traceback ...\nValueError: my bug\n", "ValueError: my bug"),
        ("Traceback ...\nmine.ValueError: my bug\n", "mine.ValueError: my bug"),
        ("Traceback ...\nValueError: my bug,\nand more", "ValueError: and more"),
        ("no report for 10 s", "ValueError: no report for 10 s"),
    ],
)
def test_a_line_of_an_error_names_its_class_once(error: str, line: str, recorder: Recorder, storage: Path) -> None:
    assert Failure("code", "s", "ValueError", error).line == f"code: {line}"
    attempt(storage, 1, "failed", failure_class="code", error_type="ValueError", error=error, error_signature="s")
    assert recorder.errored(KEY, "ValueError", error)
    assert recorder._watcher.heard == [("retrying", f"code: {line}")]  # type: ignore[attr-defined]


def test_a_trial_taken_over_by_another_run_is_not_judged_by_its_attempt(recorder: Recorder, storage: Path) -> None:
    attempt(storage, 1, "failed", run_id="run-2", failure_class="diverged", error_type="E", error="E", error_signature="s")
    assert recorder.errored(KEY, "LeaseLostError", "taken over")
    assert events(storage) == [("lost", None)]


def test_after_its_end_a_trial_is_not_heard_of_again(recorder: Recorder, storage: Path) -> None:
    attempt(storage, 1, "failed", failure_class="diverged", error_type="E", error="E: nan", error_signature="s")
    assert not recorder.errored(KEY, "E", "nan")
    recorder.started(KEY)
    recorder.ended(KEY, Ended("gave_up", "it diverged"))
    assert events(storage) == [("failed", "diverged")]


def test_the_first_trial_that_reaches_the_goal_asks_all_to_stop(recorder: Recorder) -> None:
    recorder.reported(KEY, {"em_squad": 49.9})
    assert recorder.stop.reason is None
    recorder.reported(KEY, {"em_squad": 50.0})
    assert recorder.stop.reason == "budget (--stop-at em_squad=50)"
