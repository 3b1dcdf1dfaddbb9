"""SQL over the ledger: what is answered, what is refused, and how mistakes are explained."""

from pathlib import Path

import pyarrow as pa
import pytest

from results.errors import QueryError
from results.ledger import Ledger


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE x AS SELECT 1",
        "INSERT INTO plans VALUES (1)",
        "UPDATE plans SET seed = 1",
        "DELETE FROM plans",
        "DROP VIEW trials",
        "COPY trials TO '/tmp/leak.csv'",
        "ATTACH '/tmp/leak.db'",
        "INSTALL httpfs",
        "SET threads = 1",
        "PRAGMA database_list",
    ],
)
def test_statement_that_does_more_than_read_is_refused(complete: Path, statement: str) -> None:
    with pytest.raises(QueryError, match="the ledger is read-only: allowed are SELECT"):
        Ledger(complete).sql(statement)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM 'https://example.org/x.parquet'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '/tmp/leak.csv'",
    ],
)
def test_query_reaches_no_file(complete: Path, query: str) -> None:
    with pytest.raises(QueryError):
        Ledger(complete).sql(query)


@pytest.mark.parametrize(
    "query",
    ["DESCRIBE trials", "SHOW TABLES", "EXPLAIN SELECT 1", "SUMMARIZE reports", "FROM trials", "WITH a AS (SELECT 1) FROM a",
     "PIVOT trials ON status USING count(*)"],
)  # fmt: skip
def test_statement_that_reads_is_answered(complete: Path, query: str) -> None:
    assert Ledger(complete).sql(query).num_rows > 0


def test_catalogue_is_whole_also_after_a_question_about_one_table(complete: Path) -> None:
    ledger = Ledger(complete)
    ledger.sql("SELECT count(*) FROM reports")
    assert {"trials", "spending", "reports"} <= set(ledger.sql("SHOW TABLES").column("name").to_pylist())


def test_python_variables_are_no_tables(complete: Path) -> None:
    secret = pa.table({"x": [1]})
    with pytest.raises(QueryError, match="no table 'secret'"):
        Ledger(complete).sql("SELECT * FROM secret")
    assert secret.num_rows == 1


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT * FROM trails", "no table 'trails', the nearest is 'trials'; the tables are trials, plans"),
        ("SELECT squad_shar FROM trials", "no column 'squad_shar', the nearest is 'squad_share'"),
        ("SELECT zzzz FROM routing", "no column 'zzzz'; routing has trial_key, attempt, step, split, domain"),
        ("SELECT attempts, num_threads FROM trials", "have no column 'num_threads'; it is in attempts"),
        ("SELECT t.stpe FROM reports t", "no column 'stpe', the nearest is 'step'"),
        ("SELECT 1; SELECT 2", "one statement at a time, got 2"),
        ("", "one statement at a time, got 0"),
        ("SELEC 1", "syntax error"),
    ],
)
def test_mistake_in_a_query_is_explained_in_one_line(complete: Path, query: str, message: str) -> None:
    with pytest.raises(QueryError, match=message) as caught:
        Ledger(complete).sql(query)
    assert "\n" not in str(caught.value)


def test_parameters_are_values_not_sql(complete: Path) -> None:
    rows = Ledger(complete).sql("SELECT count(*) AS n FROM trials WHERE sweep_id = $sweep", {"sweep": "' OR 1=1 --"})
    assert rows.to_pylist() == [{"n": 0}]


def test_connection_is_locked_and_sees_everything(complete: Path) -> None:
    with Ledger(complete).connection() as connection:
        assert connection.sql("SELECT count(*) FROM trials").fetchall() == [(24,)]
        assert connection.sql("SELECT count(*) FROM predictions").fetchall() == [(24 * 24,)]
