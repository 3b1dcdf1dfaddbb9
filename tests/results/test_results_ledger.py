"""Reading: what is skipped, refused, superseded and derived."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make_golden import STORES
from synthetic_ledger import plan_row, synthetic_ledger, trial_key

from results import scan
from results.compact import compact
from results.errors import LedgerMissingError, LedgerWarning, NewerSchemaError
from results.ledger import Ledger
from results.parts import attempt_part, write_part
from results.schema import SCHEMA_VERSION, arrow_schema
from results.search import load_search, search_ids
from results.verify import verify
from results.views import COLUMNS

KEY = "0123456789abcdef"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ROOT = Path(__file__).parents[2]


def _write_steps(storage: Path, attempt: int, steps: range, *, resumed_step: int | None, status: str = "running") -> None:
    name = attempt_part(KEY, attempt)
    if resumed_step is not None:
        row = {"trial_key": KEY, "attempt": attempt, "resumed_step": resumed_step, "status": status}
        write_part(storage, "attempts", name, [row])
    key = {"trial_key": KEY, "attempt": attempt}
    write_part(storage, "reports", name, [{**key, "step": step} for step in steps])
    write_part(
        storage,
        "evaluations",
        name,
        [{**key, "step": step, "split": "val", "domain": d, "em": 1.0 * attempt} for step in steps for d in ("a", "b")],
    )


def _kept(storage: Path, table: str = "reports") -> list[tuple[int, int]]:
    rows = Ledger(storage).sql(f"SELECT DISTINCT attempt, step FROM {table} ORDER BY step, attempt").to_pylist()
    return [(row["attempt"], row["step"]) for row in rows]


# --- absent and damaged parts


def test_missing_ledger_has_every_table_with_its_columns_and_no_rows(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "nowhere", must_exist=False)
    for table, columns in COLUMNS.items():
        rows = ledger.table(table)
        assert rows.num_rows == 0
        assert [(f.name, f.type) for f in rows.schema] == [(c.name, c.type) for c in columns]
    with pytest.raises(LedgerMissingError, match=r"run `python -m orchestrator.run grid` first"):
        Ledger(tmp_path / "nowhere")


def test_unfinished_files_are_ignored(tmp_path: Path) -> None:
    write_part(tmp_path, "reports", "r", [{"trial_key": KEY, "attempt": 1, "step": 1}])
    folder = tmp_path / "ledger/reports"
    for name in (".r.parquet.77-0.tmp", "r.parquet.tmp", ".hidden.parquet"):
        (folder / name).write_bytes(b"PAR1 torn")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Ledger(tmp_path).table("reports").num_rows == 1


@pytest.mark.parametrize("kept_bytes", [0, 3, 100, -1])
def test_torn_part_is_named_and_skipped(tmp_path: Path, kept_bytes: int) -> None:
    write_part(tmp_path, "reports", "good", [{"trial_key": KEY, "attempt": 1, "step": 1}])
    write_part(tmp_path, "reports", "torn", [{"trial_key": KEY, "attempt": 1, "step": 2}])
    torn = tmp_path / "ledger/reports/torn.parquet"
    torn.write_bytes(torn.read_bytes()[:kept_bytes])
    ledger = Ledger(tmp_path)
    with pytest.warns(LedgerWarning, match="torn.parquet"):
        assert ledger.sql("SELECT step FROM reports").to_pylist() == [{"step": 1}]
    assert list(ledger.skipped) == [str(torn)]
    assert torn.exists()


def test_part_repaired_by_the_next_write_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "ledger/reports").mkdir(parents=True)
    (tmp_path / "ledger/reports/r.parquet").write_bytes(b"torn")
    ledger = Ledger(tmp_path)
    with pytest.warns(LedgerWarning):
        assert ledger.table("reports").num_rows == 0
    write_part(tmp_path, "reports", "r", [{"trial_key": KEY, "attempt": 1, "step": 2}])
    assert ledger.table("reports").num_rows == 1


# A large predictions part is streamed: its footer is read before the query, its pages only by it.
@pytest.mark.parametrize(("table", "num_rows"), [("reports", 3000), ("predictions", 3000), ("predictions", 60_000)])
def test_flipped_bytes_inside_a_page_are_found(tmp_path: Path, table: str, num_rows: int) -> None:
    hashes = (hashlib.sha256(str(i).encode()).hexdigest() for i in range(num_rows))
    rows = [{"trial_key": text[:16], "attempt": 1} for text in hashes]
    write_part(tmp_path, table, "good", rows[:10])
    assert Ledger(tmp_path).table(table).num_rows == 10
    write_part(tmp_path, table, "rotten", rows)
    rotten = tmp_path / f"ledger/{table}/rotten.parquet"
    assert Ledger(tmp_path).sql(f"SELECT count(*) AS n FROM all_{table}").to_pylist() == [{"n": num_rows + 10}]
    content = bytearray(rotten.read_bytes())
    assert (len(content) > 256 * 1024) == (num_rows > 50_000)
    content[1000:1200] = bytes(byte ^ 0xFF for byte in content[1000:1200])
    rotten.write_bytes(content)
    with pytest.warns(LedgerWarning, match="rotten.parquet"):
        assert Ledger(tmp_path).sql(f"SELECT count(DISTINCT trial_key) AS n FROM {table}").to_pylist() == [{"n": 10}]
    with pytest.warns(LedgerWarning, match="rotten.parquet"):
        skipped, checked = Ledger(tmp_path).verify()
    assert (list(skipped), checked) == ([str(rotten)], 2)


def test_part_of_a_newer_schema_is_refused_by_name(tmp_path: Path) -> None:
    write_part(tmp_path, "reports", "r", [])
    path = tmp_path / "ledger/reports/future.parquet"
    newer = arrow_schema("reports").with_metadata({"schema_version": str(SCHEMA_VERSION + 1)})
    pq.write_table(newer.empty_table(), path)
    expected = rf"future\.parquet has schema version {SCHEMA_VERSION + 1}.*reads up to {SCHEMA_VERSION}: upgrade the package"
    with pytest.raises(NewerSchemaError, match=expected):
        Ledger(tmp_path).table("reports")
    assert Ledger(tmp_path).table("trials").num_rows == 0


def test_column_that_an_old_part_lacks_is_null_beside_new_parts(tmp_path: Path) -> None:
    write_part(tmp_path, "reports", "new", [{"trial_key": KEY, "attempt": 1, "step": 2, "epoch": 0.5}])
    names = ("trial_key", "attempt", "step")
    old = pa.schema([arrow_schema("reports").field(n) for n in names], metadata={"schema_version": "0"})
    pq.write_table(pa.Table.from_pylist([{"trial_key": KEY, "attempt": 1, "step": 1}], schema=old), _part(tmp_path, "old"))
    rows = Ledger(tmp_path).sql("SELECT step, epoch FROM reports ORDER BY step").to_pylist()
    assert rows == [{"step": 1, "epoch": None}, {"step": 2, "epoch": 0.5}]


def test_foreign_parquet_file_is_named_and_skipped(tmp_path: Path) -> None:
    write_part(tmp_path, "reports", "r", [{"trial_key": KEY, "attempt": 1, "step": 2}])
    pq.write_table(pa.table({"step": ["one"]}), _part(tmp_path, "foreign"))
    with pytest.warns(LedgerWarning, match="foreign.parquet: column step is string, not int64"):
        assert Ledger(tmp_path).table("reports").num_rows == 1


def _part(storage: Path, name: str) -> Path:
    return storage / f"ledger/reports/{name}.parquet"


def test_reader_beside_a_writing_process_never_sees_a_torn_part(tmp_path: Path) -> None:
    writer = """
import sys
from results.parts import write_part
for round_number in range(1, 150):
    for part in ("a", "b", "c"):
        rows = [{"trial_key": part, "attempt": 1, "step": step, "epoch": float(round_number)} for step in range(round_number)]
        write_part(sys.argv[1], "reports", part, rows)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ledger, rounds = Ledger(tmp_path, must_exist=False), set()
    with warnings.catch_warnings(), subprocess.Popen([sys.executable, "-c", writer, str(tmp_path)], env=env) as process:
        warnings.simplefilter("error")
        while process.poll() is None:
            rows = ledger.sql("""
                SELECT a.trial_key, count(DISTINCT a.step) AS steps, min(a.epoch) AS low, max(b.epoch) AS high
                FROM reports a JOIN reports b USING (trial_key, step) GROUP BY ALL
            """).to_pylist()
            # A part is one round's rows: as many steps as the round's number, all stamped with it.
            assert all(row["steps"] == row["low"] == row["high"] for row in rows)
            rounds |= {row["steps"] for row in rows}
    assert process.returncode == 0
    assert len(rounds) > 1
    assert not ledger.skipped


# --- attempts


def test_retry_replaces_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    _write_steps(tmp_path, 1, range(1, 6), resumed_step=0)
    _write_steps(tmp_path, 2, range(4, 7), resumed_step=3)
    expected = [(1, 1), (1, 2), (1, 3), (2, 4), (2, 5), (2, 6)]
    assert _kept(tmp_path) == _kept(tmp_path, "evaluations") == expected
    assert Ledger(tmp_path).sql("SELECT count(*) AS n FROM evaluations").to_pylist() == [{"n": 12}]
    assert Ledger(tmp_path).sql("SELECT count(*) AS n FROM all_reports").to_pylist() == [{"n": 8}]


def test_steps_that_the_retry_has_not_reached_yet_are_dropped(tmp_path: Path) -> None:
    _write_steps(tmp_path, 1, range(1, 10), resumed_step=0)
    _write_steps(tmp_path, 2, range(4, 5), resumed_step=3)
    assert _kept(tmp_path) == [(1, 1), (1, 2), (1, 3), (2, 4)]


def test_third_attempt_from_an_earlier_checkpoint_supersedes_both(tmp_path: Path) -> None:
    _write_steps(tmp_path, 1, range(1, 6), resumed_step=0)
    _write_steps(tmp_path, 2, range(5, 9), resumed_step=4)
    _write_steps(tmp_path, 3, range(3, 4), resumed_step=2)
    assert _kept(tmp_path) == [(1, 1), (1, 2), (3, 3)]


def test_attempt_from_the_start_supersedes_everything(tmp_path: Path) -> None:
    _write_steps(tmp_path, 1, range(1, 6), resumed_step=0)
    _write_steps(tmp_path, 2, range(0), resumed_step=0)
    assert _kept(tmp_path) == []


def test_where_the_attempts_row_is_lost_the_newest_attempt_of_a_step_counts(tmp_path: Path) -> None:
    _write_steps(tmp_path, 1, range(1, 4), resumed_step=0)
    _write_steps(tmp_path, 2, range(2, 5), resumed_step=None)
    assert _kept(tmp_path) == [(1, 1), (2, 2), (2, 3), (2, 4)]


def test_predictions_are_the_newest_attempts_only(tmp_path: Path) -> None:
    for attempt in (1, 2):
        row = {"trial_key": KEY, "attempt": attempt, "example_id": "x", "prediction": f"by {attempt}"}
        write_part(tmp_path, "predictions", attempt_part(KEY, attempt), [row, {**row, "example_id": f"only {attempt}"}])
    rows = Ledger(tmp_path).sql("SELECT example_id, prediction FROM predictions ORDER BY ALL").to_pylist()
    assert [tuple(row.values()) for row in rows] == [("only 2", "by 2"), ("x", "by 2")]


def test_an_attempt_begun_after_the_trial_was_complete_hides_nothing(tmp_path: Path) -> None:
    write_part(tmp_path, "attempts", f"{KEY}-1", [{"trial_key": KEY, "attempt": 1, "status": "completed", "resumed_step": 0}])
    write_part(tmp_path, "attempts", f"{KEY}-2", [{"trial_key": KEY, "attempt": 2, "status": "running", "resumed_step": 0}])
    for attempt, step in ((1, 10), (2, 5)):
        write_part(tmp_path, "reports", f"{KEY}-{attempt}", [{"trial_key": KEY, "attempt": attempt, "step": step}])
        prediction = {"trial_key": KEY, "attempt": attempt, "example_id": str(attempt)}
        write_part(tmp_path, "predictions", f"{KEY}-{attempt}", [prediction])
    ledger = Ledger(tmp_path)
    assert ledger.sql("SELECT attempt, step FROM reports").to_pylist() == [{"attempt": 1, "step": 10}]
    assert ledger.sql("SELECT example_id FROM predictions").to_pylist() == [{"example_id": "1"}]


# --- trials


def _trial(storage: Path, events: list[dict[str, Any]], attempts: list[dict[str, Any]]) -> dict[str, Any]:
    plan = plan_row("distilbert", 0, "shuffled", 0, "s1")
    key = trial_key("distilbert", 0, "shuffled", 0)
    write_part(storage, "plans", "s1", [plan])
    stamped = [{"trial_key": key, "happened_at": NOON + timedelta(minutes=i), "attempt": 1, **e} for i, e in enumerate(events)]
    write_part(storage, "events", "driver", stamped)
    for number, attempt in enumerate(attempts, 1):
        write_part(storage, "attempts", attempt_part(key, number), [{"trial_key": key, "attempt": number, **attempt}])
    [row] = Ledger(storage).table("trials").to_pylist()
    return dict(row)


@pytest.mark.parametrize(
    ("events", "attempts", "status"),
    [
        ([], [], "planned"),
        (["planned", "running"], ["running"], "running"),
        (["running", "stopped"], ["running"], "stopped"),
        (["running", "lost"], ["running"], "lost"),
        (["running", "lost", "running"], ["running", "running"], "running"),
        (["running", "failed"], ["failed"], "failed"),
        (["running"], ["completed"], "completed"),
        (["running", "completed", "planned"], ["completed"], "completed"),
        (["running", "failed", "running", "completed"], ["failed", "completed"], "completed"),
        (["running", "completed"], [], "lost"),
        (["running", "completed"], ["running"], "lost"),
        (["running", "completed", "running"], [], "running"),
        (["running", "planned"], ["lost"], "planned"),
        (["running", "stopped"], ["stopped"], "stopped"),
    ],
)
def test_status_follows_from_events_and_attempts(tmp_path: Path, events: list[str], attempts: list[str], status: str) -> None:
    trial = _trial(tmp_path, [{"status": event} for event in events], [{"status": attempt} for attempt in attempts])
    assert trial["status"] == status


def test_error_is_that_of_the_newest_failure(tmp_path: Path) -> None:
    attempts = [
        {"status": "failed", "error_type": "OSError", "error": "first"},
        {"status": "failed", "error_type": "MemoryError", "error": "second"},
    ]
    events = [
        {"status": "failed", "attempt": 1, "error_type": "RayTaskError"},
        {"status": "failed", "attempt": 2, "reason": "oom"},
    ]
    trial = _trial(tmp_path, events, attempts)
    assert (trial["error_type"], trial["error"], trial["stop_reason"]) == ("MemoryError", "second", "oom")
    assert trial["attempts"] == 2


def test_trial_that_is_tried_again_shows_its_newest_failure(tmp_path: Path) -> None:
    attempts = [
        {"status": "failed", "failure_class": "oom", "error_signature": "aa", "error_type": "MemoryError", "error": "first"},
        {"status": "lost", "checkpoint": "checkpoints/x/step-00000007.safetensors"},
    ]
    events = [
        {"status": "failed", "attempt": 1, "failure_class": "oom"},
        {"status": "planned", "attempt": 2, "failure_class": "lost", "error_type": "ActorDiedError", "reason": "again"},
    ]
    trial = _trial(tmp_path, events, attempts)
    shown = [trial[name] for name in ("status", "failure_class", "error_type", "error_signature", "error", "checkpoint")]
    assert shown == ["planned", "lost", "ActorDiedError", None, None, "checkpoints/x/step-00000007.safetensors"]


def test_what_the_worker_did_not_record_of_a_failure_comes_from_the_driver(tmp_path: Path) -> None:
    attempts = [{"status": "failed", "error_type": "ValueError", "error": "worker's", "error_signature": "bb"}]
    events = [{"status": "failed", "failure_class": "code", "error_type": "RayTaskError", "error": "driver's"}]
    trial = _trial(tmp_path, events, attempts)
    shown = [trial[name] for name in ("failure_class", "error_type", "error_signature", "error")]
    assert shown == ["code", "ValueError", "bb", "worker's"]


@pytest.mark.parametrize("version", STORES)
def test_ledger_of_every_schema_version_is_read(version: int) -> None:
    ledger = Ledger(STORES[version])
    grid = ledger.sql("SELECT * FROM trials WHERE sweep_kind = 'grid'").to_pylist()
    trials = {row["squad_share"]: row for row in grid}
    assert {share: (row["status"], row["error_type"]) for share, row in trials.items()} == {
        60: ("failed", "RuntimeError"),
        80: ("completed", None),
    }
    assert trials[60]["failure_class"] == (None if version < 2 else "oom")
    attempts = ledger.sql("SELECT run_id FROM attempts WHERE sweep_id = 'grid-1'").to_pylist()
    assert {row["run_id"] for row in attempts} == {None if version < 2 else "grid-1-run"}
    assert ledger.table("runs").num_rows == (0 if version < 2 else 1)
    nodes = ledger.sql("SELECT DISTINCT node_id FROM attempts WHERE sweep_id = 'grid-1'").to_pylist()
    assert nodes == [{"node_id": None if version < 6 else "c0ffee"}]
    assert ledger.sql(
        "SELECT sum(useful_seconds), sum(failed_seconds) FROM spending WHERE sweep_id = 'grid-1'"
    ).to_pylist() == [{"sum(useful_seconds)": 45.5, "sum(failed_seconds)": 45.5}]
    assert search_ids(ledger) == ([] if version < 3 else ["search-1"])
    if version >= 3:
        assert [trial.state for trial in load_search(ledger).ranking] == ["completed", "stopped", "stopped", "stopped"]
    assert not verify(ledger, NOON).findings


def test_every_part_of_a_golden_store_is_of_its_version() -> None:
    for version, store in STORES.items():
        parts = list(store.glob("ledger/*/*.parquet"))
        assert len(parts) >= 8
        assert {pq.read_schema(part).metadata[b"schema_version"] for part in parts} == {str(version).encode()}


def test_completed_trial_shows_no_error_of_an_earlier_attempt(tmp_path: Path) -> None:
    trial = _trial(tmp_path, [], [{"status": "failed", "error_type": "OSError", "error": "first"}, {"status": "completed"}])
    assert (trial["status"], trial["error_type"], trial["error"], trial["stop_reason"]) == ("completed", None, None, None)


def test_seconds_are_summed_and_the_host_is_the_newest(tmp_path: Path) -> None:
    times = [NOON, NOON + timedelta(hours=1)]
    attempts = [
        {"status": s, "host": h, "started_at": t, "finished_at": t, "gpu_seconds": g, "train_seconds": 1.0, "params_total": 7}
        for s, h, t, g in zip(("failed", "completed"), ("h1", "h2"), times, (10.0, 5.0), strict=True)
    ]
    trial = _trial(tmp_path, [], attempts)
    assert (trial["gpu_seconds"], trial["train_seconds"], trial["cpu_seconds"]) == (15.0, 2.0, None)
    assert (trial["host"], trial["started_at"], trial["finished_at"]) == ("h2", times[0], times[1])


def test_trial_planned_twice_is_one_row_of_the_latest_sweep(tmp_path: Path) -> None:
    for number, sweep in enumerate(("s1", "s2")):
        row = plan_row("exbert", 80, "shuffled", 0, sweep, NOON + timedelta(days=number))
        write_part(tmp_path, "plans", sweep, [{**row, "sweep_kind": ("grid", "search")[number], "stage": number}])
    [trial] = Ledger(tmp_path).table("trials").to_pylist()
    assert (trial["sweep_id"], trial["sweep_kind"], trial["stage"], trial["attempts"]) == ("s2", "search", 0, 0)


def test_trial_whose_plan_is_lost_is_still_listed(tmp_path: Path) -> None:
    write_part(tmp_path, "attempts", attempt_part(KEY, 1), [{"trial_key": KEY, "attempt": 1, "status": "completed"}])
    [trial] = Ledger(tmp_path).table("trials").to_pylist()
    assert (trial["trial_key"], trial["status"], trial["trainable"]) == (KEY, "completed", None)


def test_many_parts_say_that_they_should_be_compacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "COMPACT_ABOVE_PARTS", 2)
    synthetic_ledger(tmp_path)
    with pytest.warns(LedgerWarning, match="parts, which takes long to read; run `python -m results compact`"):
        assert Ledger(tmp_path).table("reports").num_rows > 0
    compact(tmp_path)
    assert Ledger(tmp_path).table("reports").num_rows > 0
