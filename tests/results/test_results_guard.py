"""Attacks on the SQL guard: nothing is written or read outside the tables, and a query that grows or never ends is stopped."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from results.__main__ import app
from results.compact import compact
from results.errors import QueryError
from results.guard import QueryLimits
from results.ledger import Ledger

ROOT = Path(__file__).parents[2]

WRITES = [
    "CREATE TABLE x AS SELECT 1",
    "CREATE TEMP TABLE x AS SELECT 1",
    "CREATE OR REPLACE VIEW trials AS SELECT 1",
    "CREATE MACRO f() AS 1",
    "CREATE SECRET (TYPE s3)",
    "CREATE TABLE x AS PIVOT trials ON status USING count(*)",
    "INSERT INTO plans VALUES (1)",
    "UPDATE plans SET seed = 1",
    "DELETE FROM plans",
    "TRUNCATE plans",
    "MERGE INTO plans USING plans ON 1 = 1 WHEN MATCHED THEN DELETE",
    "ALTER TABLE plans ADD COLUMN y INT",
    "COMMENT ON TABLE plans IS 'x'",
    "DROP VIEW trials",
    "COPY trials TO '{out}/leak.csv'",
    "COPY (PIVOT trials ON status USING count(*)) TO '{out}/leak.csv'",
    "EXPORT DATABASE '{out}/leak'",
    "IMPORT DATABASE '{out}'",
    "ATTACH '{out}/leak.db'",
    "ATTACH ':memory:' AS other",
    "DETACH memory",
    "USE memory",
    "SET threads = 1",
    "SET VARIABLE a = 1",
    "RESET threads",
    "PRAGMA database_list",
    "PRAGMA enable_profiling",
    "INSTALL httpfs",
    "LOAD '{out}/x.duckdb_extension'",
    "UPDATE EXTENSIONS",
    "CALL enable_logging()",
    "CHECKPOINT",
    "VACUUM",
    "BEGIN",
    "COMMIT",
    "PREPARE x AS SELECT 1",
    "EXECUTE x",
]

OUTSIDE = [
    "FROM read_csv('/etc/passwd')",
    "FROM read_text('/etc/passwd')",
    "FROM read_text('file:///etc/passwd')",
    "FROM read_blob('/etc/passwd')",
    "FROM read_json('/etc/passwd')",
    "FROM read_parquet('{storage}/ledger/plans/grid-1.parquet')",
    "FROM parquet_metadata('{storage}/ledger/plans/grid-1.parquet')",
    "FROM parquet_schema('/etc/passwd')",
    "FROM read_duckdb('/etc/passwd')",
    "FROM sniff_csv('/etc/passwd')",
    "FROM glob('/etc/*')",
    "FROM '/etc/passwd'",
    "FROM 'plans.parquet'",
    "FROM 's3://bucket/x.parquet'",
    "FROM 'https://example.org/x.parquet'",
    "FROM query('SELECT * FROM read_text(''/etc/passwd'')')",
    "FROM json_execute_serialized_sql(json_serialize_sql('FROM read_text(''/etc/passwd'')'))",
    "FROM enable_logging()",
    "FROM enable_profiling(save_location = '{out}/leak.json')",
    "FROM duckdb_secrets()",
    "FROM which_secret('s3://x', 's3')",
    "FROM pandas_scan(NULL)",
    "FROM arrow_scan(NULL, NULL, NULL)",
    "SELECT getenv('HOME')",
    "WITH x AS (INSERT INTO plans VALUES (1) RETURNING *) FROM x",
    "WITH x AS (DELETE FROM plans RETURNING *) FROM x",
    "SELECT nextval('x')",
]

ENDLESS = "WITH RECURSIVE r AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM r) SELECT count(*) FROM r"
FINDS_NOTHING = "FROM range(1000000000000) WHERE range = -5 AND random() > 2"
HUGE = "SELECT a.question, b.gold, c.prediction FROM predictions a, predictions b, predictions c"


def _fingerprint(folder: Path) -> dict[str, tuple[int, int]]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


def _filled(statement: str, storage: Path, out: Path) -> str:
    return statement.replace("{storage}", str(storage)).replace("{out}", str(out))


@pytest.fixture
def unharmed(complete: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to attack and to be in; afterwards it is still empty and the ledger as it was."""
    monkeypatch.chdir(tmp_path)
    before = _fingerprint(complete)
    yield tmp_path
    assert list(tmp_path.rglob("*")) == []
    assert _fingerprint(complete) == before


@pytest.mark.parametrize("statement", WRITES)
@pytest.mark.parametrize("wrapped", ["{}", "EXPLAIN ANALYZE {}", "/* a */ -- b\n{};", "EXPLAIN /* SELECT */ (ANALYZE) {}"])
def test_statement_that_does_more_than_read_is_refused(complete: Path, unharmed: Path, wrapped: str, statement: str) -> None:
    # EXPLAIN does not parse before some of them.
    message = "the ledger is read-only: allowed are SELECT" + ("|syntax error" if wrapped.startswith("EXPLAIN") else "")
    with pytest.raises(QueryError, match=message) as caught:
        Ledger(complete).sql(wrapped.replace("{}", _filled(statement, complete, unharmed)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("query", OUTSIDE)
def test_query_reaches_nothing_but_the_tables(complete: Path, unharmed: Path, query: str) -> None:
    with pytest.raises(QueryError) as caught:
        Ledger(complete).sql(_filled(query, complete, unharmed))
    assert "\n" not in str(caught.value)
    assert "root:" not in str(caught.value)


@pytest.mark.parametrize(
    "query",
    [
        "/* a */ EXPLAIN -- b\n ANALYZE SELECT 1",
        "EXPLAIN (FORMAT json) SELECT 1",
        "EXPLAIN (SELECT 1)",
        "EXPLAIN PIVOT trials ON status",
        "-- what is there\nSHOW ALL TABLES",
        "(SELECT 1)",
        "SELECT 'a; DROP TABLE b' AS c;",
        "FROM query('SELECT 1')",
        "UNPIVOT (SELECT 1 AS a, 2 AS b) ON a, b",
        "WITH p AS (PIVOT trials ON status USING count(*)) FROM p",
        "VALUES (1)",
    ],
)
def test_statement_that_reads_is_not_taken_for_one_that_writes(complete: Path, query: str) -> None:
    assert Ledger(complete).sql(query).num_rows > 0


def test_two_statements_are_refused_whatever_they_are(complete: Path) -> None:
    for query in ("SELECT 1; DROP VIEW trials", "SELECT 1; SELECT 2"):
        with pytest.raises(QueryError, match="one statement at a time, got 2"):
            Ledger(complete).sql(query)


def test_a_thousand_comments_cost_nothing(complete: Path) -> None:
    began = time.process_time()
    with pytest.raises(QueryError, match="read-only"):
        Ledger(complete).sql("/**/" * 10_000 + "EXPLAIN" + "/**/" * 10_000 + "CREATE TABLE x AS PIVOT y ON z")
    assert time.process_time() - began < 2


def test_connection_and_relation_are_locked_too(complete: Path, unharmed: Path) -> None:
    with Ledger(complete).connection() as connection:
        for statement in (
            "SET threads = 1",
            "LOAD httpfs",
            f"COPY (SELECT 1) TO '{unharmed}/x.csv'",
            "FROM read_text('/etc/passwd')",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(statement)
    with pytest.raises(duckdb.Error):
        Ledger(complete).relation("SELECT 1 AS one").write_csv(f"{unharmed}/x.csv")


@pytest.mark.parametrize("query", [ENDLESS, FINDS_NOTHING])
def test_query_without_end_is_stopped(complete: Path, query: str) -> None:
    began = time.monotonic()
    with pytest.raises(QueryError, match=r"the query was stopped after 0\.5 seconds: narrow it, or allow more"):
        Ledger(complete, limits=QueryLimits(seconds=0.5)).sql(query)
    assert time.monotonic() - began < 20


def test_answer_that_would_fill_the_memory_is_refused(complete: Path) -> None:
    with pytest.raises(QueryError, match=r"the answer is larger than 48MB of memory .* aggregate, add LIMIT, or allow more"):
        Ledger(complete, limits=QueryLimits(memory="48MB")).sql(HUGE)


def test_query_that_needs_too_much_to_work_with_is_refused_and_leaves_nothing(complete: Path, unharmed: Path) -> None:
    query = "SELECT max(a) FROM (SELECT x.range AS a, random() AS b FROM range(30000000) x ORDER BY b LIMIT 20000000)"
    with pytest.raises(QueryError, match="the query needs more than 48MB of memory and 10MB on disk"):
        Ledger(complete, limits=QueryLimits(memory="48MB", spill="10MB")).sql(query)
    assert not list(Path(tempfile.gettempdir()).glob(f"ledger-{os.getpid()}-*"))


def test_sort_larger_than_the_memory_is_answered_from_disk(complete: Path, unharmed: Path) -> None:
    query = "SELECT count(*) AS n FROM (SELECT range, random() AS b FROM range(4000000) ORDER BY b LIMIT 3000000)"
    assert Ledger(complete, limits=QueryLimits(memory="48MB")).sql(query).to_pylist() == [{"n": 3_000_000}]
    assert not list(Path(tempfile.gettempdir()).glob(f"ledger-{os.getpid()}-*"))


@pytest.mark.parametrize("query", [ENDLESS, FINDS_NOTHING, HUGE])
def test_ctrl_c_stops_a_query(complete: Path, query: str) -> None:
    code = f"""
import signal
from results import Ledger, QueryLimits
signal.signal(signal.SIGINT, signal.default_int_handler)  # which whoever started the tests may have switched off
print("asking", flush=True)
try:
    Ledger({str(complete)!r}, limits=QueryLimits(memory="40%")).sql({query!r})
except KeyboardInterrupt:
    print("stopped", flush=True)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asking\n"
        time.sleep(1)  # the query has to be under way; how far does not matter
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[0] == "stopped\n"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"memory": "lots"}, "memory must be a size such as 512MB, 2GiB or 40%, got 'lots'"),
        ({"spill": "1'; SET threads = 1"}, "spill must be a size"),
        ({"seconds": 0}, "seconds must be at least 0.001, got 0"),
        ({"seconds": float("nan")}, "seconds must be at least 0.001, got nan"),
    ],
)
def test_limit_that_cannot_be_is_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QueryLimits(**given)  # type: ignore[arg-type]


def test_limits_can_be_given_on_the_command_line(complete: Path) -> None:
    asked = ["sql", FINDS_NOTHING, "--storage", str(complete), "--timeout", "0.3"]
    result = CliRunner().invoke(app, asked)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: the query was stopped after 0.3 seconds: narrow it, or allow more: ")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT t.stat FROM trials t", "no column 'stat', the nearest is 'status'"),
        ("SELECT * FROM reports JOIN evaluations USING (tril_key)", "no column 'tril_key', the nearest is 'trial_key'"),
        ("SELECT * FROM trials ORDER BY lerning_rate", "no column 'lerning_rate', the nearest is 'learning_rate'"),
        ("SELECT em FROM main.evaluation", "no table 'evaluation', the nearest is 'evaluations'"),
        ("SELECT x.status FROM trials t", "no table 'x'; the tables are"),
        ("SELECT meen(em) FROM evaluations", 'name meen does not exist! Did you mean "mean"'),
        ("SELECT em, count(*) FROM evaluations", 'column "em" must appear in the GROUP BY clause'),
        ("SELECT step FROM reports JOIN evaluations USING (trial_key)", r'Ambiguous .* "step" \(use: .reports.step. or'),
    ],
)
def test_mistake_is_explained_with_the_nearest_name(complete: Path, query: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        Ledger(complete).sql(query)


_SQL = """
    SELECT FROM WITH x AS ( ) ; , * = 'a' trials plans reports read_text COPY TO INSERT INTO VALUES 1 CREATE TABLE VIEW DROP
    EXPLAIN ANALYZE PIVOT ON status USING count(*) ATTACH SET PRAGMA CALL RETURNING UNION ALL WHERE -- /* */ UPDATE DELETE
    range(3) LIMIT 2 DESCRIBE SHOW SUMMARIZE
"""
_WORDS = st.sampled_from(_SQL.split())
_BEFORE = ["", "EXPLAIN ", "EXPLAIN ANALYZE ", "EXPLAIN (ANALYZE) ", "WITH a AS (SELECT 1) ", "SELECT 1; ", "/* a */ "]
_STATEMENTS = st.one_of(
    st.lists(_WORDS, min_size=1, max_size=14).map(" ".join),
    st.tuples(
        st.sampled_from(_BEFORE),
        st.sampled_from([*WRITES, *OUTSIDE]),
        st.sampled_from(["", ";", " --", " RETURNING *", " LIMIT 1", ") TO '{out}/y'"]),
    ).map("".join),
)


@given(statement=_STATEMENTS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_statement_writes(complete: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
    monkeypatch.chdir(tmp_path)
    before = _fingerprint(complete)
    try:
        Ledger(complete, limits=QueryLimits(seconds=5)).sql(_filled(statement, complete, tmp_path))
    except QueryError as error:
        assert "\n" not in str(error)
    assert list(tmp_path.rglob("*")) == []
    assert _fingerprint(complete) == before


def test_compacted_file_outside_the_ledger_stays_closed_to_queries(complete: Path, tmp_path: Path) -> None:
    for storage in ("ours", "theirs"):
        shutil.copytree(complete / "ledger", tmp_path / storage / "ledger")
        compact(tmp_path / storage)
    path = tmp_path / "theirs/ledger/reports/compacted/000001-000.parquet"
    assert path.exists()
    with pytest.raises(QueryError, match=r"[Pp]ermission"):
        Ledger(tmp_path / "ours").sql(f"SELECT count(*) FROM read_parquet('{path}'), reports")
