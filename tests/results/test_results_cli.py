"""`python -m results`: golden outputs, formats, one-line errors, where data and talk go."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from make_golden import COMMANDS, FOLDER, SEARCH_COMMANDS, outputs
from synthetic_ledger import START, plan_row, synthetic_ledger
from typer.testing import CliRunner, Result

from results.__main__ import app
from results.figures import FIGURES
from results.parts import write_part

ROOT = Path(__file__).parents[2]


def _run(*arguments: str, storage: Path | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"SWEEPS_STORAGE": str(storage)} if storage else {})


@pytest.fixture(scope="module")
def printed(partial: Path, searched: Path) -> dict[str, str]:
    return {**outputs(partial, COMMANDS), **outputs(searched, SEARCH_COMMANDS)}


@pytest.mark.parametrize("name", [*COMMANDS, *SEARCH_COMMANDS])
def test_output_is_as_recorded(printed: dict[str, str], name: str) -> None:
    assert printed[name] == (FOLDER / name).read_text(encoding="utf-8")


def test_talk_goes_to_stderr(partial: Path) -> None:
    result = _run("table", "grid", "--format", "json", storage=partial)
    assert len(json.loads(result.stdout)) > 20
    assert "noise floor: mean" in result.stderr
    assert "2 of 24 trials have no test scores" in result.stderr


@pytest.fixture(scope="module")
def two_grids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid, and a newer and smaller one of one trial."""
    storage = synthetic_ledger(tmp_path_factory.mktemp("two"), shares=(0, 100))
    small = plan_row("distilbert", 0, "shuffled", 9, "grid-2", START + timedelta(days=1))
    write_part(storage, "plans", "grid-2", [{**small, "mixture_size": 50}])
    return storage


_NEWEST = "grid-2: 1 trial, 50 training examples; the newest of 2 grids, --sweep grid-1 for another"


@pytest.mark.parametrize("name", ["grid", "ranking", "claims", "effects", "pairs", "predictions", "ensembles"])
def test_a_table_says_which_grid_it_is_about(two_grids: Path, name: str) -> None:
    newest, named = (_run("table", name, *more, storage=two_grids) for more in ((), ("--sweep", "grid-1")))
    assert newest.stderr.splitlines()[-1] == _NEWEST
    assert named.stderr.splitlines()[-1] == "grid-1: 8 trials, 4,000 training examples"


@pytest.mark.parametrize("name", ["efficiency", "routing"])
def test_a_table_of_grids_or_searches_says_which_it_is_about(two_grids: Path, searched: Path, name: str) -> None:
    said = [_run("table", name, storage=storage).stderr.splitlines()[-1] for storage in (two_grids, searched)]
    assert said[0] == "grid-2: 1 trial; the newest of 2 grids, --sweep grid-1 for another"
    assert said[1].startswith("narrowing-1: ")
    assert said[1].endswith("; the newest of 2 searches, --sweep search-1 for another")


def test_a_figure_says_which_sweep_it_is_of(two_grids: Path, searched: Path, tmp_path: Path) -> None:
    out = ("--output", str(tmp_path / "x.html"))
    assert _run("figure", "fig2", *out, storage=two_grids).stderr.splitlines()[-1] == _NEWEST
    for command in (("figure", "history", *out), ("table", "search")):
        said = _run(*command, storage=searched).stderr.splitlines()[-1]
        assert said.endswith("; the newest of 2 searches, --sweep search-1 for another")


def test_claims_say_what_they_take_from_other_sweeps(two_grids: Path) -> None:
    said = _run("table", "claims", storage=two_grids).stderr
    assert "claims on full sets: on the largest trials on one domain alone, grid-1's\n" in said
    assert "claims on full sets" not in _run("table", "claims", "--sweep", "grid-1", storage=two_grids).stderr


@pytest.mark.parametrize("command", [("report",), ("figure", "fig3")])
def test_a_storage_that_cannot_be_written_is_one_line_that_says_where_else(
    complete: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "ledger").symlink_to(complete / "ledger")
    (tmp_path / "report").touch()
    result = _run(*command, storage=tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"error: cannot write into {tmp_path}/report: File exists; name another place with --output\n"


def test_a_ledger_that_compact_cannot_write_is_named_in_one_line(complete: Path, tmp_path: Path) -> None:
    (tmp_path / "ledger" / ".compact.lock").mkdir(parents=True)
    for table in (complete / "ledger").iterdir():
        (tmp_path / "ledger" / table.name).symlink_to(table)
    result = _run("compact", storage=tmp_path)
    assert result.exit_code == 2
    assert result.stderr == f"error: the storage {tmp_path} cannot be written: Is a directory\n"


def test_parquet_goes_to_stdout_or_to_a_file(complete: Path, tmp_path: Path) -> None:
    query = "SELECT trial_key, status FROM trials"
    piped = _run("sql", query, "--format", "parquet", storage=complete)
    target = tmp_path / "trials.parquet"
    saved = _run("sql", query, "--format", "parquet", "--output", str(target), storage=complete)
    assert saved.stdout == ""
    assert pq.read_table(io.BytesIO(piped.stdout_bytes)).num_rows == pq.ParquetFile(target).metadata.num_rows == 24


@pytest.mark.parametrize(
    ("suffix", "begins"),
    [("txt", b"  a  b"), ("csv", b"a,b"), ("json", b'[{"a": 1'), ("md", b"| a |"), ("tex", b"\\begin"), ("parquet", b"PAR1")],
)
def test_a_file_is_written_as_its_name_says_unless_format_says_otherwise(
    complete: Path, tmp_path: Path, suffix: str, begins: bytes
) -> None:
    query = ("sql", "SELECT 1 AS a, 2 AS b")
    for given, expected in ((), begins), (("--format", "csv"), b"a,b"):
        result = _run(*query, "--output", str(tmp_path / f"x.{suffix}"), *given, storage=complete)
        assert result.exit_code == 0
        assert (tmp_path / f"x.{suffix}").read_bytes().lstrip().startswith(expected.lstrip())


@pytest.mark.parametrize("command", [("sql", "SELECT 1"), ("table", "grid"), ("figure", "fig3"), ("report",), ("columns",)])
@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("missing/x.html", "there is no folder {}/missing to write x.html into; make it, or name another"),
        ("folder.html", "the output {}/folder.html is a folder; name a file in it"),
        ("x.docx", "must end with|format must be one of"),
    ],
)
def test_an_output_that_cannot_be_written_is_one_line(
    complete: Path, tmp_path: Path, command: tuple[str, ...], output: str, message: str
) -> None:
    (tmp_path / "folder.html").mkdir()
    form = ("--format", "csv") if command[0] in ("sql", "table", "columns") and "docx" not in output else ()
    result = _run(*command, "--output", str(tmp_path / output), *form, storage=complete)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert any(part in result.stderr for part in message.format(tmp_path).split("|"))
    assert [path.name for path in tmp_path.rglob("*")] == ["folder.html"]


def test_a_figure_of_a_named_sweep_leaves_that_of_the_newest_as_it_is(complete: Path) -> None:
    usual = _run("figure", "fig3", storage=complete).stdout.split()
    named = _run("figure", "fig3", "--sweep", "grid-1", storage=complete).stdout.split()
    assert [Path(path).relative_to(complete) for path in (usual[0], named[0])] == [
        Path("report/fig3.html"),
        Path("report/grid-1/fig3.html"),
    ]


def test_every_type_can_be_written_as_csv_and_json(complete: Path) -> None:
    query = """SELECT * FROM (VALUES (1, 'a,"b"', TIMESTAMPTZ '2026-01-01 00:00:00+00', [1, 2], MAP {'k': 'nan'::DOUBLE},
               'inf'::DOUBLE, NULL, 1.5::DECIMAL(4, 2), DATE '2026-01-02')) AS t(i, s, at_time, l, m, f, n, d, day)"""
    [row] = json.loads(_run("sql", query, "--format", "json", storage=complete).stdout)
    assert row == {
        "i": 1, "s": 'a,"b"', "at_time": "2026-01-01T00:00:00+00:00", "l": [1, 2], "m": {"k": None}, "f": None, "n": None,
        "d": "1.50", "day": "2026-01-02",
    }  # fmt: skip
    assert _run("sql", query, "--format", "csv", storage=complete).stdout.splitlines()[1].startswith('1,"a,""b""",2026-01-01T')


def test_columns_of_equal_name_are_both_kept(complete: Path) -> None:
    query = "SELECT a.seed, b.seed FROM trials a JOIN trials b USING (trial_key) LIMIT 1"
    [row] = json.loads(_run("sql", query, "--format", "json", storage=complete).stdout)
    assert len(row) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sql", "SELECT * FROM trails"], "no table 'trails', the nearest is 'trials'"),
        (["sql", "DROP TABLE trials"], "the ledger is read-only"),
        (["sql", "SELECT 1", "--format", "xml"], "must be one of table, csv, json, markdown, latex, parquet, got 'xml'"),
        (["columns", "trails"], "no table"),
        (["figure", "fig9"], "figure must be one of fig2, fig3, fig6, fig4, fig5, history"),
        (["figure", "fig3", "--output", "x.gif"], "figure format must be one of html, png, svg, pdf, got 'gif'"),
        (["table", "grid", "--sweep", "grid-9"], "no sweep 'grid-9' in the ledger, the nearest is 'grid-1'"),
        (["table", "trials", "--sweep", "grid-9"], "no sweep 'grid-9' in the ledger, the nearest is 'grid-1'"),
        (["table", "spending", "--sweep", "grid-9"], "no sweep 'grid-9' in the ledger, the nearest is 'grid-1'"),
        (["table", "spending", "--by", "day"], "by must be sweep or trial, got 'day'"),
        (["figure", "history"], "no search in this ledger: run `python -m orchestrator.run search`"),
        (["table", "search"], "no search in this ledger: run `python -m orchestrator.run search`"),
        (["table", "effects", "--metric", "loss"], "metric must be em or f1, got 'loss'"),
        (["table", "claims", "--sweep", "grid-9"], "no sweep 'grid-9' in the ledger, the nearest is 'grid-1'"),
        (["table", "pairs", "--sweep", "grid-9"], "no sweep 'grid-9' in the ledger, the nearest is 'grid-1'"),
        (["table", "predictions", "--domain", "law"], "domain must be one of squad, bioasq"),
    ],
)
def test_mistake_is_one_line_on_stderr_and_exit_2(complete: Path, arguments: list[str], message: str) -> None:
    result = _run(*arguments, storage=complete)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


@pytest.mark.parametrize("command", [["sql", "FROM trials"], ["table", "grid"], ["figure", "fig3"], ["report"], ["verify"]])
def test_storage_without_a_ledger_says_what_to_do(tmp_path: Path, command: list[str]) -> None:
    result = _run(*command, "--storage", str(tmp_path / "none"))
    assert result.exit_code == 2
    assert "no ledger at" in result.stderr
    assert "run `python -m orchestrator.run grid` first, or name another with --storage" in result.stderr
    assert not (tmp_path / "none").exists()


def test_torn_part_is_a_warning_and_verify_finds_it(tmp_path: Path) -> None:
    folder = tmp_path / "ledger/reports"
    folder.mkdir(parents=True)
    (folder / "torn.parquet").write_bytes(b"PAR1")
    asked = _run("sql", "SELECT count(*) AS n FROM reports", "--format", "csv", storage=tmp_path)
    assert (asked.exit_code, asked.stdout) == (0, "n\n0\n")
    assert asked.stderr.startswith("warning: skipped the unreadable part ")
    assert "torn.parquet" in asked.stderr
    verified = _run("verify", storage=tmp_path)
    assert verified.exit_code == 1
    assert "torn.parquet" in verified.stdout


def test_report_prints_the_page_it_wrote(complete: Path, tmp_path: Path) -> None:
    result = _run("report", "--output", str(tmp_path / "out"), storage=complete)
    assert result.stdout.strip() == str(tmp_path / "out/index.html")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"index.html"}


def test_figure_goes_beside_the_ledger_by_default(tmp_path: Path, complete: Path) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    (storage / "ledger").symlink_to(complete / "ledger")
    result = _run("figure", "fig6", storage=storage)
    assert result.stdout.split() == [str(storage / "report/fig6.html"), str(storage / "report/fig6.png")]
    assert (storage / "report/fig6.png").read_bytes().startswith(b"\x89PNG")


def test_help_of_figure_names_every_figure() -> None:
    shown = _run("figure", "--help").stdout.split()
    assert set(FIGURES) <= {word.strip(".|") for word in shown}


@pytest.mark.parametrize(
    "command",
    [
        "sql",
        "columns",
        "export",
        "figure",
        "report",
        "verify",
        "table claims",
        "table effects",
        "table grid",
        "table pairs",
        "table predictions",
        "table search",
        "table spending",
        "table trials",
    ],
)
def test_help_of_every_command_has_an_example(command: str) -> None:
    assert f"Example: python -m results {command}" in " ".join(_run(*command.split(), "--help").stdout.split())


def test_query_starts_without_drawing_or_training_libraries(complete: Path) -> None:
    code = """
import sys
from results.__main__ import app
app(["sql", "SELECT count(*) FROM trials"], standalone_mode=False)
heavy = {"altair", "vl_convert", "torch", "ray", "optuna", "jinja2", "orchestrator", "trainables", "search_spaces"}
heavy |= {"scipy", "statsmodels", "pandas"}
print(sorted(heavy & set(sys.modules)))
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "SWEEPS_STORAGE": str(complete)}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_select_1_costs_little(complete: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "SWEEPS_STORAGE": str(complete)}
    before = os.times()
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "results", "sql", "SELECT 1 AS one"], env=env, capture_output=True, text=True, check=True
    )
    after = os.times()
    assert done.stdout == "one\n  1\n"
    # CPU seconds: what this machine's other work cannot inflate; the wall clock only bounds the absurd.
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1.5
    assert time.monotonic() - began < 20


def test_reader_that_leaves_early_sees_no_error(complete: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "SWEEPS_STORAGE": str(complete)}
    query = "SELECT * FROM range(2000000)"
    command = [sys.executable, "-m", "results", "sql", query, "--format", "csv"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "range\n"
        process.stdout.close()
        assert process.stderr.read() == ""
