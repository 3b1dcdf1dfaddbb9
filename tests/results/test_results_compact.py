"""Compaction: the same answers before, during and after, whatever it is interrupted by, and what becomes of damage."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from boundaries import Boundaries
from make_golden import STORES
from synthetic_ledger import synthetic_ledger
from synthetic_search import synthetic_search
from typer.testing import CliRunner

from results.__main__ import app
from results.compact import compact
from results.compacted import read_index
from results.errors import LedgerError, LedgerWarning, NewerSchemaError
from results.ledger import Ledger
from results.locking import exclusively
from results.parts import attempt_part, list_attempts, read_attempts, torn_parts, write_part
from results.schema import SCHEMA_VERSION, TABLES, arrow_schema
from results.storage import open_storage
from results.views import COLUMNS

KEY, OTHER = "0123456789abcdef", "fedcba9876543210"
ROOT = Path(__file__).parents[2]

Answers = dict[str, list[str]]


def _answers(storage: Path) -> Answers:
    """Every row of every table and view, in no order."""
    ledger = Ledger(storage)
    return {table: sorted(repr(row) for row in ledger.table(table).to_pylist()) for table in COLUMNS}


def _write_attempt(storage: Path, key: str, attempt: int, status: str, steps: range, resumed_step: int = 0) -> None:
    ids, name = {"trial_key": key, "attempt": attempt}, attempt_part(key, attempt)
    write_part(storage, "attempts", name, [{**ids, "status": status, "resumed_step": resumed_step, "sweep_id": "grid-1"}])
    write_part(storage, "reports", name, [{**ids, "step": step, "val_qa_loss": step / 8} for step in steps])
    write_part(storage, "predictions", name, [{**ids, "example_id": "x", "gold": ["a", "b"], "prediction": f"by {attempt}"}])


def _write_retried(storage: Path) -> None:
    """A trial in two attempts of which the second went on from step 3, and one in a single attempt."""
    _write_attempt(storage, KEY, 1, "lost", range(1, 6))
    _write_attempt(storage, KEY, 2, "running", range(4, 7), resumed_step=3)
    _write_attempt(storage, OTHER, 1, "completed", range(1, 4))


def _small(storage: Path) -> Path:
    _write_retried(storage)
    write_part(storage, "events", "driver-0000", [{"trial_key": KEY, "status": "running", "attempt": 1}])
    return storage


def _files(storage: Path) -> dict[str, int]:
    """Files of the ledger with their modification times."""
    paths = [path for path in (storage / "ledger").rglob("*.parquet") if path.is_file()]
    return {path.relative_to(storage).as_posix(): path.stat().st_mtime_ns for path in paths}


def _own(storage: Path) -> list[str]:
    return [path for path in _files(storage) if "compacted" not in path]


# --- the same rows


def test_every_table_and_view_answers_as_before(tmp_path: Path) -> None:
    synthetic_ledger(tmp_path, failed=[("exbert", 60, "shuffled", 0)])
    synthetic_search(tmp_path)
    _write_retried(tmp_path)
    before = _answers(tmp_path)
    done = compact(tmp_path)
    assert _own(tmp_path) == []
    assert _answers(tmp_path) == before
    by_table = {table.table: table for table in done.tables}
    assert list(by_table) == list(TABLES)
    assert by_table["reports"].rows == len(before["all_reports"])
    assert by_table["reports"].parts_before > 20 > by_table["reports"].parts_after
    assert by_table["reports"].bytes_before > by_table["reports"].bytes_after > 0


def test_compacting_again_changes_nothing_and_new_parts_are_merged_with_the_old(tmp_path: Path) -> None:
    _small(tmp_path)
    compact(tmp_path)
    files = _files(tmp_path)
    compact(tmp_path)
    assert _files(tmp_path) == files
    _write_attempt(tmp_path, "1" * 16, 1, "completed", range(1, 4))
    before = _answers(tmp_path)
    compact(tmp_path)
    assert _own(tmp_path) == []
    assert len([path for path in _files(tmp_path) if "reports/compacted" in path]) == 2  # of single and of several attempts
    assert _answers(tmp_path) == before


def test_part_written_again_after_compaction_counts_instead_of_its_old_rows(tmp_path: Path) -> None:
    _small(tmp_path)
    compact(tmp_path)
    _write_attempt(tmp_path, KEY, 2, "completed", range(4, 9), resumed_step=3)
    for _ in range(2):
        rows = Ledger(tmp_path).sql("SELECT step FROM reports WHERE trial_key = $key ORDER BY step", {"key": KEY})
        assert rows.column(0).to_pylist() == [1, 2, 3, 4, 5, 6, 7, 8]
        [row] = Ledger(tmp_path).sql(f"SELECT status FROM attempts WHERE trial_key = '{KEY}' AND attempt = 2").to_pylist()
        assert row == {"status": "completed"}
        compact(tmp_path)


def test_trial_that_is_retried_after_compaction_loses_the_rows_that_it_repeats(tmp_path: Path) -> None:
    _write_attempt(tmp_path, KEY, 1, "lost", range(1, 6))
    compact(tmp_path)
    _write_attempt(tmp_path, KEY, 2, "running", range(3, 4), resumed_step=2)
    for _ in range(2):
        rows = Ledger(tmp_path).sql("SELECT attempt, step FROM reports ORDER BY step").to_pylist()
        assert [(row["attempt"], row["step"]) for row in rows] == [(1, 1), (1, 2), (2, 3)]
        assert Ledger(tmp_path).sql("SELECT prediction FROM predictions").to_pylist() == [{"prediction": "by 2"}]
        compact(tmp_path)
    assert [path for path in _files(tmp_path) if "reports/compacted" in path] == [
        "ledger/reports/compacted/000002-000-retried.parquet"
    ]


@pytest.mark.parametrize("version", STORES)
def test_ledger_of_every_schema_version_is_compacted(tmp_path: Path, version: int) -> None:
    storage = Path(shutil.copytree(STORES[version], tmp_path / "store"))
    before = _answers(storage)
    compact(storage)
    assert _own(storage) == []
    assert _answers(storage) == before


def test_index_of_a_newer_version_is_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    _small(tmp_path)
    newer = arrow_schema("reports").with_metadata({"schema_version": str(SCHEMA_VERSION + 1)})
    pq.write_table(newer.empty_table(), tmp_path / "ledger/reports/~compacted.parquet")
    files = [path for path in _files(tmp_path) if "reports" in path]
    for act in (compact, _answers, lambda storage: torn_parts(storage, KEY)):
        with pytest.raises(NewerSchemaError, match=f"has schema version {SCHEMA_VERSION + 1}.*upgrade the package"):
            act(tmp_path)
    assert [path for path in _files(tmp_path) if "reports" in path] == files


# --- interruptions and neighbours


class _Interfering(Boundaries):
    """Calls `act` after each file operation of this process, and where an index is only half written."""

    def __init__(self, root: Path, log: Path, act: Callable[[str, str], None]) -> None:
        super().__init__(root, log, None)
        self._act = act

    def passed(self, path: Any, phase: str, damage: Callable[[], None] | None = None) -> None:
        relative = self._relative(path)
        if relative is None:
            return
        is_index = damage is not None and relative.endswith("~compacted.parquet")
        if phase in ("opened", "renamed", "removed") or is_index:
            self._act(relative, phase)


def _forked(work: Callable[[], None]) -> int:
    """Runs `work` in a copy of this process; its exit status, negative for a signal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the copy uses no thread that was running
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_between_any_two_file_operations_changes_no_answer(tmp_path: Path, every: int) -> None:
    """Of two compactions: from parts alone, and from a compacted file beside a part that was written again."""
    first = tmp_path / "first"
    for attempt, steps in ((1, range(1, 6)), (2, range(4, 7))):
        _write_attempt(first, KEY, attempt, "lost", steps, resumed_step=3 * (attempt - 1))
    shutil.rmtree(first / "ledger/predictions")
    second = Path(shutil.copytree(first, tmp_path / "second"))
    compact(second)
    _write_attempt(second, KEY, 2, "completed", range(4, 9), resumed_step=3)
    for original in (first, second):
        expected, number, status = _kept_rows(original), 0, -signal.SIGKILL
        while status == -signal.SIGKILL:
            number += every
            storage = Path(shutil.copytree(original, tmp_path / f"{original.name}-{number}"))
            status = _forked(lambda: _compact_until(storage, number))  # noqa: B023
            assert _kept_rows(storage) == expected, number
            compact(storage)
            assert _kept_rows(storage) == expected, number
            assert _own(storage) == [], number
        assert status == 0
        assert number > 20


def _kept_rows(storage: Path) -> list[list[dict[str, Any]]]:
    ledger = Ledger(storage)
    tables = ("attempts ORDER BY attempt", "all_reports ORDER BY attempt, step", "reports ORDER BY step")
    return [ledger.sql(f"SELECT * FROM {table}").to_pylist() for table in tables]


def _compact_until(storage: Path, number: int) -> None:
    """Is killed by the file operation of that number, if there are so many."""
    passed = []

    def count(relative: str, phase: str) -> None:
        passed.append(phase)
        if len(passed) == number:
            if phase == "torn":
                [temporary] = (storage / relative).parent.glob(".~compacted*.tmp")
                os.truncate(temporary, temporary.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    _Interfering(storage, storage.with_suffix(".log"), count).install()
    compact(storage)


@pytest.mark.parametrize("moment", ["merged", "set aside"])
def test_part_written_while_it_is_compacted_is_not_lost(tmp_path: Path, moment: str) -> None:
    _small(tmp_path)
    part = f"ledger/reports/{attempt_part(KEY, 2)}"

    def write_newer(relative: str, phase: str) -> None:
        just_committed = relative == "ledger/reports/~compacted.parquet" and phase == "renamed"
        just_aside = relative == f"{part}~.parquet" and phase == "renamed"
        if just_committed if moment == "merged" else just_aside:
            _write_attempt(tmp_path, KEY, 2, "running", range(4, 12), resumed_step=3)

    def work() -> None:
        _Interfering(tmp_path, tmp_path / "log", write_newer).install()
        compact(tmp_path)

    assert _forked(work) == 0
    assert _own(tmp_path)
    for _ in range(2):
        rows = Ledger(tmp_path).sql(f"SELECT step FROM reports WHERE trial_key = '{KEY}' ORDER BY step")
        assert rows.column(0).to_pylist() == list(range(1, 12))
        compact(tmp_path)
    assert _own(tmp_path) == []


def test_writers_and_readers_beside_compactions_see_every_row_once(tmp_path: Path) -> None:
    writer = """
import sys
from results.parts import attempt_part, write_part
for trial in range(40):
    key = f"{trial:016x}"
    part, ids = attempt_part(key, 1), {"trial_key": key, "attempt": 1}
    for steps in range(1, 6):
        write_part(sys.argv[1], "reports", part, [{**ids, "step": step} for step in range(steps)])
        write_part(sys.argv[1], "attempts", part, [{**ids, "peak_memory_bytes": steps}])
"""
    compactor = """
import sys
from pathlib import Path
from results.compact import compact
while not Path(sys.argv[1], "done").exists():
    compact(sys.argv[1])
"""
    write_part(tmp_path, "reports", "r", [])
    env, ledger, seen = {**os.environ, "PYTHONPATH": str(ROOT)}, Ledger(tmp_path), set[str]()
    with (
        subprocess.Popen([sys.executable, "-c", compactor, str(tmp_path)], env=env) as compacting,
        subprocess.Popen([sys.executable, "-c", writer, str(tmp_path)], env=env) as writing,
    ):
        try:
            while writing.poll() is None:
                rows = ledger.sql("SELECT trial_key, count(*) AS n, count(DISTINCT step) AS steps FROM all_reports GROUP BY 1")
                assert all(row["n"] == row["steps"] for row in rows.to_pylist())
                seen |= set(rows["trial_key"].to_pylist())
                # A part is one of its versions, and never none of them once it was there.
                assert rows.num_rows == len(seen)
                assert all(len(read_attempts(tmp_path, key)) == 1 for key in sorted(seen)[-3:-1])
        finally:
            (tmp_path / "done").touch()
    assert (writing.returncode, compacting.returncode) == (0, 0)
    compact(tmp_path)
    rows = Ledger(tmp_path).sql("SELECT count(*) AS n, count(DISTINCT trial_key) AS trials FROM reports").to_pylist()
    assert rows == [{"n": 200, "trials": 40}]
    assert Ledger(tmp_path).sql("SELECT min(peak_memory_bytes) AS least FROM attempts").to_pylist() == [{"least": 5}]


def test_two_compactions_at_a_time_are_refused_in_one_line(tmp_path: Path) -> None:
    _small(tmp_path)
    files = _files(tmp_path)
    with exclusively(open_storage(tmp_path)):
        result = CliRunner().invoke(app, ["compact", "--storage", str(tmp_path)])
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "another compaction or repair is at work" in result.stderr
    assert _files(tmp_path) == files


# --- workers


def test_workers_see_compacted_attempts(tmp_path: Path) -> None:
    _small(tmp_path)
    before = read_attempts(tmp_path, KEY)
    compact(tmp_path)
    assert list_attempts(tmp_path, KEY) == [1, 2]
    assert read_attempts(tmp_path, KEY) == before
    assert read_attempts(tmp_path, "0" * 16) == []
    write_part(tmp_path, "attempts", attempt_part(KEY, 2), [{**before[1], "status": "lost"}])
    write_part(tmp_path, "attempts", attempt_part(KEY, 3), [{"trial_key": KEY, "attempt": 3, "status": "running"}])
    assert [row["status"] for row in read_attempts(tmp_path, KEY)] == ["lost", "lost", "running"]
    assert torn_parts(tmp_path, KEY) == []


# --- damage


def test_torn_part_is_left_where_it_is_and_named(tmp_path: Path) -> None:
    torn = _small(tmp_path) / f"ledger/reports/{attempt_part(KEY, 1)}.parquet"
    torn.write_bytes(torn.read_bytes()[:-9])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LedgerWarning)
        before = _answers(tmp_path)
        assert list(compact(tmp_path).left) == [str(torn)]
        assert _answers(tmp_path) == before
    assert torn.exists()
    assert torn_parts(tmp_path, KEY) == [str(torn)]


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[10:60] = bytes(byte ^ 0xFF for byte in content[10:60])
    path.write_bytes(content)


def test_damaged_compacted_file_is_named_and_what_stands_or_falls_with_it_is_put_away(tmp_path: Path) -> None:
    synthetic_ledger(tmp_path, trainables=("exbert",), orders=("shuffled",), shares=(60, 80))
    compact(tmp_path)
    [file] = (tmp_path / "ledger/evaluations/compacted").iterdir()
    _flip(file)
    keys = sorted(set(read_index(open_storage(tmp_path), "evaluations")["trial_key"].to_pylist()))
    assert [torn_parts(tmp_path, key) for key in keys] == [[str(file)]] * 2
    found = CliRunner().invoke(app, ["verify", "--storage", str(tmp_path), "--format", "csv"])
    assert found.exit_code == 1
    assert f"unreadable compacted file,ledger/evaluations/compacted/{file.name}" in found.stdout
    assert f"it holds 2 parts: {keys[0]}-1, {keys[1]}-1" in found.stdout
    CliRunner().invoke(app, ["verify", "--storage", str(tmp_path), "--repair"])
    assert (tmp_path / f"quarantine/ledger/evaluations/compacted/{file.name}").exists()
    for _ in range(2):
        statuses = Ledger(tmp_path).sql("SELECT DISTINCT status FROM trials").to_pylist()
        assert statuses == [{"status": "lost"}]
        assert all(read_attempts(tmp_path, key) == [] for key in keys)
        assert CliRunner().invoke(app, ["verify", "--storage", str(tmp_path)]).exit_code == 0
        compact(tmp_path)


def test_rows_that_nobody_planned_are_put_away_from_compacted_files(tmp_path: Path) -> None:
    synthetic_ledger(tmp_path, trainables=("exbert",), orders=("shuffled",), shares=(60, 80))
    before = _answers(tmp_path)
    _write_attempt(tmp_path, OTHER, 1, "lost", range(1, 3))
    rows = pq.ParquetFile(tmp_path / "ledger/events/driver-grid-1.parquet").read().to_pylist()
    write_part(tmp_path, "events", "driver-grid-1", [*rows, {"trial_key": OTHER, "sweep_id": "grid-1", "status": "lost"}])
    compact(tmp_path)
    assert CliRunner().invoke(app, ["verify", "--storage", str(tmp_path), "--repair"]).exit_code == 1
    names = {path.relative_to(tmp_path / "quarantine").as_posix() for path in (tmp_path / "quarantine").rglob("*.parquet")}
    assert names == {
        "ledger/events/driver-grid-1.parquet",
        *(f"ledger/{table}/{OTHER}-1.parquet" for table in ("attempts", "reports", "predictions")),
    }
    for _ in range(2):
        assert _answers(tmp_path) == before
        compact(tmp_path)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"PAR1")])
def test_lost_index_is_refused_in_one_line_and_written_again(tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    _small(tmp_path)
    before = _answers(tmp_path)
    compact(tmp_path)
    damage(tmp_path / "ledger/attempts/~compacted.parquet")
    for act in (_answers, lambda storage: read_attempts(storage, KEY)):
        with pytest.raises(LedgerError, match="run `python -m results compact`, which writes it again"):
            act(tmp_path)
    compact(tmp_path)
    assert _answers(tmp_path) == before


# --- reading
