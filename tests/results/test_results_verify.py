"""Verifying and repairing a storage: each fault is named with its place, and nothing is ever deleted."""

from __future__ import annotations

import json
import os
import shutil
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.fs as fs
import pyarrow.parquet as pq
import pytest
from synthetic_ledger import START, plan_row, synthetic_ledger, trial_key
from typer.testing import CliRunner, Result

from results.__main__ import app
from results.checks import Finding
from results.errors import LedgerError, LedgerWarning
from results.identity import canonical_json
from results.ledger import Ledger
from results.parts import attempt_part, write_part
from results.quarantine import put_away
from results.storage import Storage
from results.verify import verify

TRIAL = ("exbert", 80, "shuffled", 0)
KEY = trial_key(*TRIAL)
STRAY = "0123456789abcdef"
NOW = START + timedelta(days=1)

pytestmark = pytest.mark.filterwarnings(f"ignore::{LedgerWarning.__module__}.{LedgerWarning.__name__}")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two completed trials with a frozen plan and final weights."""
    storage = tmp_path_factory.mktemp("original")
    synthetic_ledger(storage, trainables=("exbert",), orders=("shuffled",), shares=(60, 80))
    plans = [plan_row("exbert", share, "shuffled", 0, "grid-1") for share in (60, 80)]
    _freeze(storage, [_frozen(plan) for plan in plans])
    for plan in plans:
        _add_columns(storage, plan["trial_key"], checkpoint=f"checkpoints/{plan['trial_key']}/final.safetensors")
        (storage / f"checkpoints/{plan['trial_key']}").mkdir(parents=True)
        (storage / f"checkpoints/{plan['trial_key']}/final.safetensors").write_bytes(b"weights")
    return storage


@pytest.fixture
def storage(original: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(original, tmp_path / "storage"))


def _frozen(plan: dict[str, Any]) -> dict[str, Any]:
    return {
        "key": plan["trial_key"],
        "trainable": plan["architecture"],
        "version": plan["trainable_version"],
        "config": json.loads(plan["config"]),
        "data_fingerprint": plan["data_fingerprint"],
        "seed": plan["seed"],
        "parents": plan["parent_keys"],
    }


def _freeze(storage: Path, trials: list[dict[str, Any]]) -> Path:
    path = storage / "sweeps/grid-1/sweep.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"sweep_id": "grid-1", "trials": trials}), encoding="utf-8")
    return path


def _part(storage: Path, table: str, key: str = KEY, attempt: int = 1) -> Path:
    return storage / f"ledger/{table}/{attempt_part(key, attempt)}.parquet"


def _add_columns(storage: Path, key: str, **columns: Any) -> None:
    [row] = pq.ParquetFile(_part(storage, "attempts", key)).read().to_pylist()
    write_part(storage, "attempts", attempt_part(key, 1), [{**row, **columns}])


def _tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _findings(storage: Path) -> list[Finding]:
    return list(verify(Ledger(storage), NOW).findings)


def _one(storage: Path) -> Finding:
    [finding] = _findings(storage)
    return finding


def _repair(storage: Path) -> list[str]:
    ledger = Ledger(storage)
    return put_away(ledger, verify(ledger, NOW).findings, NOW)


def _status(storage: Path, key: str = KEY) -> str:
    [row] = Ledger(storage).sql("SELECT status FROM trials WHERE trial_key = $key", {"key": key}).to_pylist()
    return str(row["status"])


def _files(storage: Path) -> dict[str, bytes]:
    files = [path for path in storage.rglob("*") if path.is_file() and path.name != ".compact.lock"]
    return {path.relative_to(storage).as_posix(): path.read_bytes() for path in files}


def _run(storage: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["verify", "--storage", str(storage), *arguments])


# --- what is found


def test_nothing_is_wrong_with_a_whole_storage(original: Path) -> None:
    before = _files(original)
    assert _findings(original) == []
    assert _run(original).exit_code == 0
    assert _files(original) == before


@pytest.mark.parametrize("table", ["attempts", "reports", "evaluations", "predictions"])
def test_torn_part_of_a_completed_attempt_takes_the_whole_attempt_with_it(storage: Path, table: str) -> None:
    content = _files(storage)
    _tear(_part(storage, table))
    torn = next(finding for finding in _findings(storage) if finding.kind == "unreadable part")
    assert torn.where == f"ledger/{table}/{KEY}-1.parquet"
    assert "runs the trial again" in torn.todo
    moved = _repair(storage)
    parts = [name for name in content if name.startswith("ledger/") and f"{KEY}-1.parquet" in name]
    assert set(moved) == {f"quarantine/{name}" for name in parts}
    assert _status(storage) == "lost"
    assert _findings(storage) == []
    assert len(_files(storage)) == len(content)


def test_torn_part_of_an_unfinished_attempt_goes_alone(storage: Path) -> None:
    _add_columns(storage, KEY, status="lost")
    _part(storage, "predictions").unlink()
    _tear(_part(storage, "reports"))
    assert _repair(storage) == [f"quarantine/ledger/reports/{KEY}-1.parquet"]
    assert _part(storage, "attempts").exists()


def test_quarantined_files_are_never_overwritten(storage: Path) -> None:
    content = _part(storage, "reports").read_bytes()
    for _ in range(2):
        _part(storage, "reports").parent.mkdir(exist_ok=True)
        _part(storage, "reports").write_bytes(content[:-1])
        _repair(storage)
    names = [path.name for path in (storage / "quarantine/ledger/reports").iterdir()]
    assert sorted(names) == [f"{KEY}-1.parquet", f"{KEY}-1.parquet.2"]


def test_leftover_temporary_is_told_when_it_is_old_and_put_away(storage: Path) -> None:
    temporary = storage / f"ledger/reports/.{KEY}-1.parquet.77-0.tmp"
    temporary.write_bytes(b"PAR1")
    written = datetime.now(UTC)
    assert verify(Ledger(storage), written + timedelta(minutes=59)).findings == ()
    [finding] = verify(Ledger(storage), written + timedelta(minutes=61)).findings
    assert (finding.kind, finding.where) == ("leftover temporary", f"ledger/reports/{temporary.name}")
    assert _run(storage, "--repair").exit_code == 1
    assert (storage / f"quarantine/ledger/reports/{temporary.name}").read_bytes() == b"PAR1"
    assert _run(storage).exit_code == 0


def test_truncated_sweep_json_is_named_and_put_away(storage: Path) -> None:
    path = storage / "sweeps/grid-1/sweep.json"
    path.write_text(path.read_text(encoding="utf-8")[:100], encoding="utf-8")
    finding = _one(storage)
    assert (finding.kind, finding.where) == ("unreadable plan", "sweeps/grid-1/sweep.json")
    assert "JSONDecodeError" in finding.what
    assert _repair(storage) == ["quarantine/sweeps/grid-1/sweep.json"]
    assert _findings(storage) == []


def test_a_plan_that_lacks_a_trial_of_the_ledger_is_told(storage: Path) -> None:
    _freeze(storage, [_frozen(plan_row("exbert", 60, "shuffled", 0, "grid-1"))])
    assert "0 of its trials are not in the ledger's plans, 1 only there" in _one(storage).what


def test_results_stay_when_the_plans_part_is_torn(storage: Path) -> None:
    _tear(storage / "ledger/plans/grid-1.parquet")
    assert {finding.kind for finding in _findings(storage)} == {"unreadable part", "plans differ"}
    assert set(_repair(storage)) == {"quarantine/ledger/plans/grid-1.parquet", "quarantine/sweeps/grid-1/sweep.json"}
    assert _one(storage).kind == "plan missing"
    assert "2 trials were run for it" in _one(storage).what
    assert _repair(storage) == []
    assert _status(storage) == "completed"


@pytest.mark.parametrize(("column", "value"), [("seed", 1), ("config", "{}"), ("config", '{"epo'), ("parent_keys", [STRAY])])
def test_wrong_key_is_told_with_the_key_that_the_row_gives(storage: Path, column: str, value: Any) -> None:
    plans = [plan_row("exbert", share, "shuffled", 0, "grid-1") for share in (60, 80)]
    write_part(storage, "plans", "grid-1", [plans[0], {**plans[1], column: value}])
    finding = _one(storage)
    assert (finding.kind, finding.where) == ("wrong key", f"plans of grid-1, trial {KEY}")
    assert _repair(storage) == []


def test_wrong_key_in_the_frozen_plan_is_told(storage: Path) -> None:
    plans = [_frozen(plan_row("exbert", share, "shuffled", 0, "grid-1")) for share in (60, 80)]
    _freeze(storage, [plans[0], {**plans[1], "version": 2}])
    assert (_one(storage).kind, _one(storage).where) == ("wrong key", "sweeps/grid-1/sweep.json")


def test_rows_that_nobody_planned_are_put_away_and_others_of_the_part_stay(storage: Path) -> None:
    for table in ("attempts", "reports"):
        row = {"trial_key": STRAY, "attempt": 1, **({"step": 5} if table == "reports" else {})}
        write_part(storage, table, f"{STRAY}-1", [row])
    rows = pq.ParquetFile(storage / "ledger/events/driver-grid-1.parquet").read().to_pylist()
    stray = {"trial_key": STRAY, "sweep_id": "grid-1", "status": "running", "happened_at": START}
    write_part(storage, "events", "driver-grid-1", [*rows, stray])
    finding = _one(storage)
    assert (finding.kind, finding.what) == (
        "nobody planned it",
        "3 rows in attempts, events, reports, and no plan has the trial",
    )
    assert sorted(_repair(storage)) == [
        f"quarantine/ledger/attempts/{STRAY}-1.parquet",
        "quarantine/ledger/events/driver-grid-1.parquet",
        f"quarantine/ledger/reports/{STRAY}-1.parquet",
    ]
    assert _findings(storage) == []
    assert Ledger(storage).table("events").to_pylist() == rows


@pytest.mark.parametrize("table", ["predictions", "evaluations", "reports"])
def test_completed_trial_whose_part_is_gone_is_run_again_after_repair(storage: Path, table: str) -> None:
    _part(storage, table).unlink()
    finding = _one(storage)
    assert (finding.kind, finding.where) == ("incomplete trial", f"trial {KEY}")
    _repair(storage)
    assert _status(storage) == "lost"
    assert _status(storage, trial_key("exbert", 60, "shuffled", 0)) == "completed"
    assert _findings(storage) == []


def test_missing_predictions_are_counted(storage: Path) -> None:
    rows = pq.ParquetFile(_part(storage, "predictions")).read().to_pylist()
    write_part(storage, "predictions", f"{KEY}-1", [row for row in rows if row["domain"] == "squad"][:3])
    assert _one(storage).what == (
        "it counts as completed, but bioasq: 0 predictions for 12 examples; squad: 3 predictions for 12 examples"
    )


def test_a_domain_that_was_never_tested_is_missed(storage: Path) -> None:
    rows = pq.ParquetFile(_part(storage, "evaluations")).read().to_pylist()
    write_part(storage, "evaluations", f"{KEY}-1", [row for row in rows if row["domain"] == "squad"])
    assert "bioasq: no test evaluation" in _one(storage).what


def test_checkpoints_of_steps_go_with_the_attempt_so_that_no_report_is_missing_later(storage: Path) -> None:
    _part(storage, "predictions").unlink()
    (storage / f"checkpoints/{KEY}/step-00000500.safetensors").write_bytes(b"state")
    assert f"quarantine/checkpoints/{KEY}/step-00000500.safetensors" in _repair(storage)
    assert [path.name for path in (storage / f"checkpoints/{KEY}").iterdir()] == ["final.safetensors"]


def test_trial_that_ran_again_after_a_repair_is_completed(storage: Path) -> None:
    saved = {table: _part(storage, table).read_bytes() for table in ("attempts", "reports", "evaluations", "predictions")}
    _part(storage, "predictions").unlink()
    _repair(storage)
    for table, content in saved.items():
        _part(storage, table).write_bytes(content)
    assert (_status(storage), _findings(storage)) == ("completed", [])


def test_record_that_vanished_is_told(storage: Path) -> None:
    _part(storage, "attempts").unlink()
    assert (_one(storage).kind, _status(storage)) == ("record missing", "lost")


def test_unknown_status_is_told(storage: Path) -> None:
    _part(storage, "attempts").unlink()
    event = {"trial_key": KEY, "sweep_id": "grid-1", "status": "paused", "happened_at": NOW}
    write_part(storage, "events", "later", [event])
    assert "got 'paused'" in _one(storage).what


def test_steps_that_do_not_increase_are_told(storage: Path) -> None:
    rows = pq.ParquetFile(_part(storage, "reports")).read().to_pylist()
    again = {**rows[-1], "step": 500, "wall_seconds": 99.0, "extra": None}
    write_part(storage, "reports", f"{KEY}-1", [*rows, again])
    finding = _one(storage)
    assert (finding.where, finding.what) == (f"trial {KEY}, attempt 1", "a report at step 500 follows step 750")


def test_report_of_a_step_before_the_checkpoint_is_told(storage: Path) -> None:
    _add_columns(storage, KEY, resumed_step=250)
    assert _one(storage).what == "a report at step 250 follows step 250"


@pytest.mark.parametrize(("status", "todo"), [("completed", "its scores stand"), ("lost", "the trial starts over")])
def test_missing_checkpoint_is_told_with_what_follows(storage: Path, status: str, todo: str) -> None:
    (storage / f"checkpoints/{KEY}/final.safetensors").unlink()
    _add_columns(storage, KEY, status=status)
    finding = next(finding for finding in _findings(storage) if finding.kind == "checkpoint missing")
    assert finding.where == f"checkpoints/{KEY}/final.safetensors"
    assert todo in finding.todo


def test_checkpoint_that_a_newer_one_replaced_is_not_missed(storage: Path) -> None:
    _add_columns(storage, KEY, checkpoint=f"checkpoints/{KEY}/step-00000100.safetensors")
    assert _one(storage).kind == "checkpoint missing"
    (storage / f"checkpoints/{KEY}/step-00000200.safetensors").write_bytes(b"state")
    assert _findings(storage) == []


# --- when a repair is refused


def _claim(storage: Path, **columns: Any) -> None:
    row = {"run_id": "now", "sweep_id": "grid-1", "updated_at": NOW, "host": socket.gethostname(), "pid": os.getpid()}
    write_part(storage, "runs", "now", [{**row, **columns}])


@pytest.mark.parametrize("columns", [{}, {"host": "elsewhere"}])
def test_repair_waits_until_the_sweep_has_ended(storage: Path, columns: dict[str, Any]) -> None:
    _claim(storage, **columns)
    with pytest.raises(LedgerError, match="sweep grid-1 is being run by process"):
        _repair(storage)


@pytest.mark.parametrize("columns", [{"pid": 2**22 + 1}, {"updated_at": START}, {"finished_at": NOW}])
def test_repair_need_not_wait_for_a_run_that_is_over(storage: Path, columns: dict[str, Any]) -> None:
    _claim(storage, **columns)
    assert _repair(storage) == []


def test_object_store_is_verified_but_not_repaired(storage: Path) -> None:
    _part(storage, "predictions").unlink()
    elsewhere = Storage(fs.SubTreeFileSystem(storage.parent.as_posix(), fs.LocalFileSystem()), storage.name, "s3://bucket/x")
    ledger = Ledger(elsewhere)
    findings = verify(ledger, NOW).findings
    assert [finding.kind for finding in findings] == ["incomplete trial"]
    with pytest.raises(ValueError, match="--repair needs a local or mounted path, got s3://bucket/x"):
        put_away(ledger, findings, NOW)


# --- the command


def test_command_prints_a_finding_a_line_and_what_it_put_away(storage: Path) -> None:
    _part(storage, "predictions").unlink()
    first = _run(storage, "--repair", "--format", "json")
    [row] = json.loads(first.stdout)
    assert list(row) == ["kind", "where", "what", "what to do"]
    assert (first.exit_code, row["where"]) == (1, f"trial {KEY}")
    assert f"put away: quarantine/ledger/attempts/{KEY}-1.parquet" in first.stderr
    again = _run(storage, "--format", "csv")
    assert (again.exit_code, again.stdout) == (0, "kind,where,what,what to do\n")


def test_canonical_json_has_one_spelling_and_no_lenient_fallback() -> None:
    assert canonical_json({"b": [1.0, None], "a": "é"}) == '{"a":"é","b":[1.0,null]}'
    with pytest.raises(TypeError):
        canonical_json({"a": object()})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))
