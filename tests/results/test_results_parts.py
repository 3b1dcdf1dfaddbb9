"""Parts: round trips, refusals, atomic replacement."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from results.ledger import Ledger
from results.parts import attempt_part, list_attempts, read_attempts, write_part
from results.schema import SCHEMA_VERSION, TABLES
from results.storage import Storage, open_storage

KEY = "0123456789abcdef"

_TIMES = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def _values(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_string(kind):
        return _TEXTS
    if pa.types.is_integer(kind):
        return st.integers(-(2**63), 2**63 - 1)
    if pa.types.is_floating(kind):
        return st.floats(allow_nan=False)
    if pa.types.is_timestamp(kind):
        return _TIMES
    if pa.types.is_map(kind):
        return st.dictionaries(_TEXTS, st.floats(allow_nan=False), max_size=3)
    if pa.types.is_list(kind):
        return st.lists(_values(kind.value_type), max_size=3)
    raise AssertionError(f"no strategy for {kind}")


def _rows(table: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    optional = {c.name: _values(c.type) for c in TABLES[table] if c.name not in ("trial_key", "attempt")}
    # One attempt only: which attempts supersede which is another test's subject.
    names = [column.name for column in TABLES[table]]
    required = {name: st.just(value) for name, value in (("trial_key", KEY), ("attempt", 1)) if name in names}
    return st.lists(st.fixed_dictionaries(required, optional=optional), max_size=4)


def _read_back(storage: Path, table: str) -> list[dict[str, Any]]:
    [part] = open_storage(storage).parts(table)
    rows = pq.ParquetFile(part.path).read().to_pylist()
    return [{name: dict(v) if name == "extra" and v is not None else v for name, v in row.items()} for row in rows]


@pytest.mark.parametrize("table", TABLES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_rows_come_back_from_parquet_as_they_were(table: str, data: st.DataObject) -> None:
    rows = data.draw(_rows(table))
    with tempfile.TemporaryDirectory() as folder:
        write_part(folder, table, "part", rows)
        names = [column.name for column in TABLES[table]]
        assert _read_back(Path(folder), table) == [{name: row.get(name) for name in names} for row in rows]


def test_sql_returns_what_was_written(tmp_path: Path) -> None:
    at = datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
    write_part(tmp_path, "events", "driver", [{"trial_key": KEY, "happened_at": at, "status": "lost", "reason": "it's gone"}])
    [row] = Ledger(tmp_path).sql("SELECT happened_at, status, reason, attempt FROM events").to_pylist()
    assert row == {"happened_at": at, "status": "lost", "reason": "it's gone", "attempt": None}


def test_part_carries_table_and_schema_version(tmp_path: Path) -> None:
    write_part(tmp_path, "reports", "r", [])
    metadata = pq.read_schema(tmp_path / "ledger/reports/r.parquet").metadata
    assert metadata[b"table"] == b"reports"
    assert metadata[b"schema_version"] == str(SCHEMA_VERSION).encode()


def test_rewriting_a_part_replaces_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    for steps in ([1], [1, 2], [1, 2, 3]):
        write_part(tmp_path, "reports", "r", [{"trial_key": KEY, "attempt": 1, "step": step} for step in steps])
    assert [path.name for path in (tmp_path / "ledger/reports").iterdir()] == ["r.parquet"]
    assert Ledger(tmp_path).sql("SELECT count(*) AS n FROM reports").to_pylist() == [{"n": 3}]


def test_refused_rows_leave_the_former_part(tmp_path: Path) -> None:
    write_part(tmp_path, "reports", "r", [{"trial_key": KEY, "attempt": 1, "step": 1}])
    with pytest.raises(ValueError, match=r"reports.step must hold int64"):
        write_part(tmp_path, "reports", "r", [{"trial_key": KEY, "attempt": 1, "step": "two"}])
    assert Ledger(tmp_path).sql("SELECT step FROM reports").to_pylist() == [{"step": 1}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"trial_key": KEY, "setp": 1}, "no column 'setp', the nearest is 'step'"),
        ({"step": 1}, "needs a trial_key"),
        ({"trial_key": KEY, "step": 3.5}, "reports.step must hold whole numbers"),
        ({"trial_key": KEY, "step": True}, "reports.step must hold int64"),
        ({"trial_key": KEY, "step": 2**70}, "reports.step must hold int64"),
        ({"trial_key": KEY, "train_qa_loss": "low"}, "reports.train_qa_loss must hold double"),
    ],
)
def test_a_row_that_does_not_fit_is_refused(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_part(tmp_path, "reports", "r", [row])


def test_a_time_without_zone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"events.happened_at must carry a time zone"):
        write_part(tmp_path, "events", "e", [{"trial_key": KEY, "happened_at": datetime(2026, 1, 1)}])


def test_unknown_table_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 'report', the nearest is 'reports'"):
        write_part(tmp_path, "report", "r", [])


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../x"])
def test_part_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="part name must match"):
        write_part(tmp_path, "reports", name, [])


def test_times_of_another_zone_keep_their_instant(tmp_path: Path) -> None:
    at = datetime.fromisoformat("2026-01-01T12:00:00+05:30")
    write_part(tmp_path, "events", "e", [{"trial_key": KEY, "happened_at": at}])
    [row] = Ledger(tmp_path).table("events").to_pylist()
    assert row["happened_at"] == at
    assert row["happened_at"].utcoffset() == timedelta(0)


def test_attempts_are_found_by_listing(tmp_path: Path) -> None:
    assert list_attempts(tmp_path, KEY) == []
    for key, attempt in [(KEY, 2), (KEY, 10), (KEY, 1), ("f" * 16, 3)]:
        write_part(tmp_path, "attempts", attempt_part(key, attempt), [{"trial_key": key, "attempt": attempt}])
    (tmp_path / f"ledger/attempts/.{KEY}-11.parquet.1-1.tmp").write_bytes(b"unfinished")
    assert list_attempts(tmp_path, KEY) == [1, 2, 10]


def test_attempts_rows_have_every_column_and_a_torn_one_takes_its_number(tmp_path: Path) -> None:
    for attempt in (1, 2, 3):
        write_part(tmp_path, "attempts", attempt_part(KEY, attempt), [{"trial_key": KEY, "attempt": attempt, "status": "lost"}])
    first, torn, _ = (tmp_path / f"ledger/attempts/{attempt_part(KEY, attempt)}.parquet" for attempt in (1, 2, 3))
    pq.write_table(pq.ParquetFile(first).read().drop_columns("run_id"), first)
    torn.write_bytes(torn.read_bytes()[:-9])
    rows = read_attempts(tmp_path, KEY)
    assert [(row["attempt"], row["status"], row["run_id"]) for row in rows] == [
        (1, "lost", None),
        (2, None, None),
        (3, "lost", None),
    ]
    assert all(set(row) == {column.name for column in TABLES["attempts"]} for row in rows)


def test_a_table_without_trials_needs_no_trial_key(tmp_path: Path) -> None:
    write_part(tmp_path, "runs", "run-1", [{"run_id": "run-1", "slots": 2}])
    assert Ledger(tmp_path).sql("SELECT run_id, slots FROM runs").to_pylist() == [{"run_id": "run-1", "slots": 2}]


def test_storage_takes_uris_home_and_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s").mkdir()
    roots = {open_storage(given_).root for given_ in ("~/s", "s", "./s", tmp_path / "s", f"file://{tmp_path}/s")}
    assert roots == {(tmp_path / "s").as_posix()}


def test_storage_of_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="got 'gopher://x/y'"):
        open_storage("gopher://x/y")


def test_credentials_in_a_uri_are_never_shown() -> None:
    with pytest.raises(ValueError, match=r"not have credentials .* write s3://bucket/folder\?region=us-east-1,") as error:
        open_storage("s3://key:secret@bucket/folder?region=us-east-1")
    assert "secret" not in str(error.value)


def test_storage_that_is_not_a_local_disk_is_written_and_read(tmp_path: Path) -> None:
    elsewhere = Storage(fs.SubTreeFileSystem(tmp_path.as_posix(), fs.LocalFileSystem()), "bucket/sweeps", "sub://bucket/sweeps")
    assert not elsewhere.has_ledger()
    write_part(elsewhere, "reports", "r", [{"trial_key": KEY, "attempt": 1, "step": 1}])
    assert Ledger(elsewhere).sql("SELECT step FROM reports").to_pylist() == [{"step": 1}]
    assert (tmp_path / "bucket/sweeps/ledger/reports/r.parquet").exists()
