"""`from results import ...`: what it offers, what it costs, and that the extra `results` is all it needs."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from functools import cache
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from packaging.requirements import Requirement

import results
from results import Ledger, LedgerError, draw_figure, load_grid, load_search, render_report, verify_ledger
from results.errors import QueryError
from results.views import COLUMNS

ROOT = Path(__file__).parents[2]
ONLY_FOR_EXPORTS = {"mlflow", "optuna", "sqlalchemy", "tensorboard", "wandb"}
ONLY_FOR_OBJECT_STORES = {"boto3", "botocore", "obstore"}


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()


@pytest.mark.parametrize("name", results.__all__)
def test_everything_offered_is_there(name: str) -> None:
    assert getattr(results, name).__doc__
    assert name in dir(results)


def test_name_that_is_not_there_says_what_is() -> None:
    with pytest.raises(AttributeError, match="module 'results' has no attribute 'Ledgr'; it has Ledger, "):
        results.Ledgr  # noqa: B018
    with pytest.raises(ImportError):
        import_module("results.nothing")


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import results; print(sorted(set(sys.modules) - before - {'results'}))"
    loaded = set(ast.literal_eval(_run(code)))
    assert loaded.isdisjoint({"pyarrow", "duckdb", "altair", "results.ledger"})


def test_offered_functions_work_on_a_ledger(complete: Path, searched: Path) -> None:
    from datetime import UTC, datetime

    ledger, at = Ledger(complete), datetime(2026, 1, 5, tzinfo=UTC)
    assert len(load_grid(ledger).trials) == 24
    assert load_search(Ledger(searched)).trials
    assert draw_figure(ledger, "fig3")[1] == ["grid-1: 24 trials, 4,000 training examples"]
    assert verify_ledger(ledger, at).findings == ()
    assert "<html" in render_report(ledger, generated_at=at)


def test_answer_is_typed_and_its_columns_documented(complete: Path) -> None:
    ledger = Ledger(complete)
    for name in ("trials", "reports", "spending"):
        table = ledger.table(name)
        documented = ledger.columns(name).to_pylist()
        # DuckDB names a list's items in its own way.
        types = [(field.name, str(field.type).replace("list<l:", "list<item:")) for field in table.schema]
        assert [(row["column"], row["type"]) for row in documented] == types
        assert all(row["meaning"] for row in documented)
    assert ledger.columns().num_rows == sum(len(columns) for columns in COLUMNS.values())
    with pytest.raises(QueryError, match="no table 'trails', the nearest is 'trials'"):
        ledger.columns("trails")


def test_answer_becomes_a_data_frame(complete: Path) -> None:
    frame = Ledger(complete).sql("SELECT trainable, avg(train_seconds) AS s FROM trials GROUP BY ALL ORDER BY ALL").to_pandas()
    assert frame.to_dict("list") == {"trainable": ["distilbert", "exbert"], "s": [45.5, 45.5]}


def test_relation_goes_on_and_outlives_its_ledger(complete: Path) -> None:
    relation = Ledger(complete).relation("SELECT trainable, em FROM trials JOIN evaluations USING (trial_key)")
    assert isinstance(relation, duckdb.DuckDBPyRelation)
    means = relation.aggregate("trainable, count(em) AS n").order("trainable")
    assert means.fetchall() == [("distilbert", 24), ("exbert", 24)]
    assert isinstance(relation.to_arrow_table(), pa.Table)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT statsu FROM trials", "nearest is 'status'"),
        ("DROP VIEW trials", "read-only"),
        ("FROM x", "no table"),
    ],
)
def test_relation_is_guarded_like_a_query(complete: Path, query: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        Ledger(complete).relation(query)


def test_ledger_shows_itself_in_a_notebook(complete: Path, tmp_path: Path) -> None:
    ledger = Ledger(complete)
    assert repr(ledger) == f"Ledger({str(complete)!r})"
    page = ledger._repr_html_()
    assert "<tr><td>trials</td><td>24</td></tr>" in page
    assert "<tr><td>predictions</td><td>576</td></tr>" in page
    assert "<b>" not in Ledger(tmp_path / "<b>", must_exist=False)._repr_html_()


def test_every_error_is_a_ledger_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger at"):
        Ledger(tmp_path / "none")


@cache
def _allowed_modules() -> set[str]:
    """Top-level modules of the base dependencies, of the extra `results` and of the standard library."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["results"]]
    names = {Requirement(line).name.lower().replace("_", "-") for line in wanted}
    homes = packages_distributions()
    ours = {module for module, owners in homes.items() if {owner.lower().replace("_", "-") for owner in owners} & names}
    return ours | set(sys.stdlib_module_names) | {"results"}


@pytest.mark.parametrize("path", sorted((ROOT / "results").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_module_imports_nothing_outside_the_extra(path: Path) -> None:
    """Only exports, the Optuna bridge and object stores may, inside functions or for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late = {id(inner) for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.If)) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        outside = {name.partition(".")[0] for name in names} - _allowed_modules()
        may = ONLY_FOR_EXPORTS if "exports" in path.parts or path.name == "optuna_bridge.py" else set()
        may = ONLY_FOR_OBJECT_STORES if path.name == "object_storage.py" else may
        assert outside <= (may if id(node) in late else set()), f"line {node.lineno}"


BLOCKED = """
import sys
from importlib.abc import MetaPathFinder

class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
from results.__main__ import app
app({arguments!r}, standalone_mode=False)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["sql", "SELECT count(*) AS n FROM trials"],
        ["table", "grid"],
        ["figure", "fig6", "--output", "{out}/fig6.svg"],
        ["report", "--output", "{out}"],
        ["verify"],
        ["export", "--to", "csv", "{out}"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_command_needs_nothing_outside_the_extra(complete: Path, tmp_path: Path, arguments: list[str]) -> None:
    """With every package hidden that is installed here and no dependency of the extra."""
    heavy = {"torch", "ray", "transformers", "datasets", "numpy", "pandas", "scipy", "psutil"}
    heavy |= ONLY_FOR_EXPORTS | ONLY_FOR_OBJECT_STORES
    needed = _closure({"altair", "duckdb", "jinja2", "pandas", "pyarrow", "scipy", "statsmodels", "vl-convert-python"})
    filled = [argument.replace("{out}", str(tmp_path)) for argument in arguments]
    _run(BLOCKED.format(blocked=heavy - needed, arguments=[*filled, "--storage", str(complete)]))


def _closure(packages: set[str]) -> set[str]:
    """Names of these packages and of all that they depend on."""
    from importlib.metadata import PackageNotFoundError, requires

    found: set[str] = set()
    rest = set(packages)
    while rest:
        name = rest.pop()
        if name in found:
            continue
        found.add(name)
        try:
            lines = [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:
            continue
        rest |= {line.name for line in lines if line.marker is None or line.marker.evaluate({"extra": ""})}
    return found
