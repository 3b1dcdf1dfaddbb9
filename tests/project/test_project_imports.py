"""Who may import whom (design: packages), and what stays out of commands that must start at once."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("orchestrator", "results", "search_spaces", "trainables")
MAY_IMPORT = {
    "orchestrator": {"results", "search_spaces", "trainables"},
    "search_spaces": {"trainables"},  # and of it only the trainables' settings
    "trainables": set(),
    "results": set(),
}
NEVER = {
    "results": {"torch", "ray", "transformers", "datasets"},
    "trainables": {"ray", "optuna", "duckdb"},
    "search_spaces": {"torch", "ray", "optuna", "transformers", "datasets"},
}


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    for name in imported(path):
        top = name.partition(".")[0]
        assert top not in NEVER.get(package, set()), f"{package} must not import {top}"
        if top in PACKAGES and top != package:
            assert top in MAY_IMPORT[package], f"{package} must not import {name}"
        if package == "search_spaces" and top == "trainables":
            assert name == "trainables.registry" or name.endswith(".config")


def test_nothing_unpickles() -> None:
    """What others can write to must not make a worker run code. (What a worker raises, Ray pickles for its own driver.)"""
    unpickle = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert [path for path in modules() if unpickle & {name.partition(".")[0] for name in imported(path)}] == []
    calls = re.compile(r"\btorch\.load\(|allow_pickle=True|weights_only=False")
    assert [path for path in modules() if calls.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("ray", {"orchestrator/ray_backend.py", "orchestrator/ray_cluster.py", "orchestrator/ray_hooks.py"}),
        ("optuna", {"orchestrator/study.py", "results/optuna_bridge.py"}),  # its samplers; its file format and importances
    ],
)
def test_a_scheduler_library_has_its_homes(library: str, homes: set[str]) -> None:
    users = {str(path.relative_to(ROOT)) for path in modules() for name in imported(path) if name.partition(".")[0] == library}
    assert users == homes


def test_what_results_exports_to_is_imported_only_for_that() -> None:
    names = [f"results.{path.stem}" for path in sorted((ROOT / "results").glob("*.py"))]
    code = f"import sys, {', '.join(names)}; print('optuna' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "False\n"


LIGHT = [
    ["orchestrator.run", "plan", "grid", "--storage", "{storage}"],
    ["orchestrator.run", "status", "--storage", "{storage}"],
    ["results", "sql", "SELECT 1", "--storage", "{storage}"],
]

RUN_AND_LIST = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as exit:
    assert not exit.code, exit.code
print("IMPORTED", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize("arguments", LIGHT, ids=lambda arguments: " ".join(arguments[:3]))
def test_looking_imports_neither_torch_nor_ray(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    filled = [argument.format(storage=tmp_path) for argument in arguments]
    done = subprocess.run([sys.executable, "-c", RUN_AND_LIST, *filled], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.rpartition("IMPORTED")[2].split())
    assert {"orchestrator", "results"} & loaded
    assert loaded.isdisjoint({"torch", "ray", "transformers", "datasets", "optuna", "altair"})
