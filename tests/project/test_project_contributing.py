"""The trainable that CONTRIBUTING.md makes from nothing: it trains, and passes the contract suite."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from results.ledger import Ledger

ROOT = Path(__file__).resolve().parents[2]
CONFIG, TRAIN, SUITE = re.findall(
    r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.DOTALL
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The packages and tests with the example's files among them."""
    folder = tmp_path / "checkout"
    for name in ("orchestrator", "results", "search_spaces", "trainables", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    probe = folder / "trainables" / "probe"
    probe.mkdir()
    (probe / "__init__.py").write_text('"""A linear probe."""\n', encoding="utf-8")
    (probe / "config.py").write_text(CONFIG, encoding="utf-8")
    (probe / "train.py").write_text(TRAIN, encoding="utf-8")
    with (folder / "tests" / "training" / "test_training_trainables.py").open("a", encoding="utf-8") as suite:
        suite.write(f"\n\n{SUITE}")
    return folder


def run(checkout: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )


def test_it_is_planned_trained_and_recorded_like_the_others(
    checkout: Path, tmp_path: Path, preset_file: Callable[..., Path]
) -> None:
    preset = preset_file(trainables=["probe", "probe:one_block"], shares=[60], orders=["shuffled"], model={"n_layers": 2})
    storage = tmp_path / "storage"
    done = run(
        checkout, "orchestrator.run", "grid", "--preset", str(preset), "--backend", "inline", "--storage", str(storage), "--yes"
    )
    assert done.returncode == 0, done.stderr
    rows = Ledger(storage).sql("SELECT trainable, status, n_layers, params_trainable FROM trials ORDER BY 1").to_pylist()
    assert [tuple(row.values()) for row in rows] == [("probe", "completed", 2, 194), ("probe:one_block", "completed", 1, 194)]


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_it_passes_the_contract_suite(checkout: Path) -> None:
    suite = "tests/training/test_training_trainables.py"
    done = run(checkout, "pytest", "-q", suite, "-k", "TestProbe", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout
    assert "[100%]" in done.stdout
