"""Accounting: every attempt's seconds have one label, and a sweep's labels add up to the slots its runs held."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic_ledger import START, plan_row, trial_key
from typer.testing import CliRunner

from results.__main__ import app
from results.errors import QueryError
from results.ledger import Ledger
from results.parts import attempt_part, write_part
from results.spending import load_spending, spending_by_trial, spending_table, sweep_spending

LABELS = ("startup_seconds", "useful_seconds", "stopped_seconds", "failed_seconds", "lost_seconds")


def _key(share: int) -> str:
    return trial_key("distilbert", share, "shuffled", 0)


def _attempt(storage: Path, share: int, number: int, status: str, seconds: float, **columns: Any) -> None:
    """An attempt of `seconds` in the trainable after 1 s of start-up; `reports` gives the wall seconds of its steps."""
    reports: dict[int, float] = columns.pop("reports", {})
    ids = {"trial_key": _key(share), "attempt": number}
    times = {"train_seconds": seconds, "startup_seconds": 1.0}
    row = {**ids, "sweep_id": "s1", "run_id": "run-1", "status": status, **times, **columns}
    write_part(storage, "attempts", attempt_part(_key(share), number), [row])
    rows = [{**ids, "step": step, "wall_seconds": wall} for step, wall in reports.items()]
    write_part(storage, "reports", attempt_part(_key(share), number), rows)


def _events(storage: Path, statuses: dict[int, tuple[str, str | None]]) -> None:
    rows = [
        {"trial_key": _key(share), "status": status, "reason": reason, "happened_at": START}
        for share, (status, reason) in statuses.items()
    ]
    write_part(storage, "events", "driver", rows)


def _run(storage: Path, wall_seconds: float | None, *, run_id: str = "run-1", sweep_id: str = "s1", gpus: float = 0.0) -> None:
    row = {"run_id": run_id, "sweep_id": sweep_id, "wall_seconds": wall_seconds, "slots": 2, "gpus_per_trial": gpus}
    write_part(storage, "runs", run_id, [row])


def _plan(storage: Path, *shares: int, sweep_id: str = "s1") -> None:
    write_part(storage, "plans", sweep_id, [plan_row("distilbert", share, "shuffled", 0, sweep_id) for share in shares])


def _labels(storage: Path) -> list[tuple[float, ...]]:
    rows = Ledger(storage).sql("SELECT * FROM spending ORDER BY trial_key, attempt").to_pylist()
    return [tuple(row[name] for name in LABELS) for row in rows]


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """A lost, a failed, a stopped and a completed attempt in two slots of 100 seconds."""
    _plan(tmp_path, 0, 20, 40)
    _run(tmp_path, 100.0, gpus=0.5)
    _attempt(tmp_path, 0, 1, "lost", 30.0, reports={10: 10.0, 20: 20.0}, resumed_step=0)
    _attempt(tmp_path, 0, 2, "completed", 25.0, reports={20: 12.0, 30: 25.0}, resumed_step=10)
    _attempt(tmp_path, 20, 1, "failed", 15.0, reports={10: 10.0}, resumed_step=0)
    _attempt(tmp_path, 40, 1, "stopped", 12.0, reports={10: 12.0}, resumed_step=0, stop_reason="asha: rung 10")
    _events(tmp_path, {0: ("completed", None), 20: ("failed", None), 40: ("stopped", "asha: rung 10")})
    return tmp_path


def test_kinds_add_up_to_the_slots_of_the_runs(history: Path) -> None:
    rows = sweep_spending(Ledger(history), "s1").to_pylist()
    assert {row["kind"]: row["seconds"] for row in rows} == {
        "start-up": 4.0, "useful": 35.0, "stopped early": 12.0, "failed": 15.0, "lost": 20.0, "idle": 114.0,
    }  # fmt: skip
    assert sum(row["seconds"] for row in rows) == 200.0
    assert sum(row["share"] for row in rows) == pytest.approx(100.0)
    assert sum(row["gpu_hours"] for row in rows) == pytest.approx(0.5 * 200 / 3600)
    assert load_spending(Ledger(history), "s1").notes == ()


def test_trials_spend_what_their_attempts_did(history: Path) -> None:
    rows = {row["share"]: row for row in spending_by_trial(Ledger(history)).to_pylist()}
    assert [rows[0][name] for name in LABELS] == [2.0, 35.0, 0.0, 0.0, 20.0]
    assert (rows[0]["attempts"], rows[20]["failed_seconds"], rows[40]["stopped_seconds"]) == (2, 15.0, 12.0)
    assert rows[40]["gpu_hours"] == pytest.approx(0.5 * 13 / 3600)


def test_nothing_is_kept_of_an_attempt_before_a_fresh_start(tmp_path: Path) -> None:
    _attempt(tmp_path, 0, 1, "lost", 30.0, reports={10: 10.0}, resumed_step=0)
    _attempt(tmp_path, 0, 2, "completed", 40.0, reports={10: 11.0}, resumed_step=0)
    assert _labels(tmp_path) == [(1.0, 0.0, 0.0, 0.0, 30.0), (1.0, 40.0, 0.0, 0.0, 0.0)]


def test_an_attempt_that_was_asked_to_stop_wasted_nothing(tmp_path: Path) -> None:
    _attempt(tmp_path, 0, 1, "stopped", 14.0, reports={10: 10.0}, resumed_step=0, stop_reason="budget")
    assert _labels(tmp_path) == [(1.0, 14.0, 0.0, 0.0, 0.0)]
    _attempt(tmp_path, 0, 2, "completed", 9.0, reports={20: 9.0}, resumed_step=13)
    assert _labels(tmp_path) == [(1.0, 14.0, 0.0, 0.0, 0.0), (1.0, 9.0, 0.0, 0.0, 0.0)]


def test_what_was_kept_of_a_failed_or_pruned_trial_shares_its_fate(tmp_path: Path) -> None:
    for share in (0, 20):
        _attempt(tmp_path, share, 1, "lost", 30.0, reports={10: 10.0}, resumed_step=0)
    _attempt(tmp_path, 0, 2, "failed", 5.0, resumed_step=10)
    _attempt(tmp_path, 20, 2, "stopped", 5.0, resumed_step=10, stop_reason="asha")
    _events(tmp_path, {0: ("failed", None), 20: ("stopped", "asha")})
    by_trial = Ledger(tmp_path).sql(
        "SELECT trial_key, failed_seconds, stopped_seconds, lost_seconds FROM spending WHERE attempt = 1"
    )
    assert {row.pop("trial_key"): list(row.values()) for row in by_trial.to_pylist()} == {
        _key(0): [10.0, 0.0, 20.0],
        _key(20): [0.0, 10.0, 20.0],
    }


def test_going_back_behind_an_earlier_checkpoint_loses_both_attempts(tmp_path: Path) -> None:
    _attempt(tmp_path, 0, 1, "lost", 20.0, reports={10: 10.0, 20: 20.0}, resumed_step=0)
    _attempt(tmp_path, 0, 2, "lost", 20.0, reports={30: 10.0, 40: 20.0}, resumed_step=20)
    _attempt(tmp_path, 0, 3, "running", 3.0, resumed_step=10)
    assert _labels(tmp_path) == [(1.0, 10.0, 0.0, 0.0, 10.0), (1.0, 0.0, 0.0, 0.0, 20.0), (1.0, 3.0, 0.0, 0.0, 0.0)]


def test_an_attempt_begun_after_the_trial_was_complete_is_lost(tmp_path: Path) -> None:
    _attempt(tmp_path, 0, 1, "completed", 20.0, reports={10: 20.0}, resumed_step=0)
    _attempt(tmp_path, 0, 2, "running", 7.0, resumed_step=0)
    assert _labels(tmp_path) == [(1.0, 20.0, 0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 7.0)]


def test_an_attempt_killed_before_its_first_report_costs_its_startup(tmp_path: Path) -> None:
    write_part(tmp_path, "attempts", attempt_part(_key(0), 1), [{"trial_key": _key(0), "attempt": 1, "status": "running"}])
    assert _labels(tmp_path) == [(0.0, 0.0, 0.0, 0.0, 0.0)]


def test_attempts_at_shared_trials_are_charged_to_the_sweep_that_ran_them(history: Path) -> None:
    _plan(history, 0, 60, sweep_id="s2")
    _run(history, 10.0, run_id="run-2", sweep_id="s2")
    _attempt(history, 60, 1, "completed", 8.0, run_id="run-2", sweep_id="s2")
    seconds = {sweep: load_spending(Ledger(history), sweep).seconds for sweep in ("s1", "s2")}
    assert (seconds["s1"]["useful"], seconds["s2"]["useful"], seconds["s2"]["idle"]) == (35.0, 8.0, 11.0)
    table, _ = spending_table(Ledger(history))
    assert {row["sweep_id"]: row["gpu_hours"] for row in table.to_pylist() if row["kind"] == "useful"} == {
        "s1": pytest.approx(0.5 * 35 / 3600),
        "s2": None,
    }
    assert [row["share"] for row in spending_by_trial(Ledger(history), "s2").to_pylist()] == [60]


def test_attempts_beyond_the_runs_slots_are_told_and_idle_is_zero(history: Path) -> None:
    _run(history, 40.0)
    spending = load_spending(Ledger(history), "s1")
    assert spending.seconds["idle"] == 0.0
    assert spending.notes == (
        "s1: the attempts took 6.0 s more than the runs' slots had until they were last heard of; idle time is shown as 0",
    )


def test_rounding_is_no_excess(history: Path) -> None:
    _run(history, 43.0 * (1 - 1e-12))
    spending = load_spending(Ledger(history), "s1")
    assert (spending.seconds["idle"], spending.notes) == (0.0, ())


def test_a_ledger_from_before_runs_were_recorded_says_so(tmp_path: Path) -> None:
    _plan(tmp_path, 0)
    _attempt(tmp_path, 0, 1, "completed", 8.0, run_id=None)
    spending = load_spending(Ledger(tmp_path), "s1")
    assert (spending.seconds["useful"], spending.notes) == (8.0, ("s1: no run was recorded, so its idle time is unknown",))


def test_an_attempt_of_a_lost_run_is_counted_and_told(history: Path) -> None:
    _attempt(history, 40, 2, "running", 1.0, run_id="run-gone")
    spending = load_spending(Ledger(history), "s1")
    assert spending.notes[0] == "s1: 1 attempts belong to no recorded run; their seconds are beside the runs' slots"
    assert sum(spending.seconds.values()) == pytest.approx(200.0)


def test_an_unknown_sweep_is_refused(history: Path) -> None:
    with pytest.raises(QueryError, match="no sweep 's3'"):
        sweep_spending(Ledger(history), "s3")


def test_command_gives_data_on_stdout_and_notes_on_stderr(history: Path) -> None:
    _run(history, 40.0)
    result = CliRunner().invoke(app, ["table", "spending", "--sweep", "s1", "--format", "json", "--storage", str(history)])
    rows = json.loads(result.stdout)
    assert [row["kind"] for row in rows] == ["start-up", "useful", "stopped early", "failed", "lost", "idle"]
    assert "gpu_hours" not in rows[0]
    assert "idle time is shown as 0" in result.stderr
