"""Write the golden outputs of `python -m results` over the synthetic ledger; look at the diff before committing it.

python tests/results/make_golden.py

Also writes the golden store of the current schema version if there is none yet. Those of earlier versions were written by the
code of their time and must be read for ever.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from synthetic_ledger import synthetic_ledger
from synthetic_search import synthetic_narrowing, synthetic_search
from typer.testing import CliRunner

from results.__main__ import app
from results.compact import compact
from results.schema import SCHEMA_VERSION

FOLDER = Path(__file__).parent / "golden"
STORES = {version: FOLDER / f"store-v{version}" for version in range(1, SCHEMA_VERSION + 1)}
"""A small storage of each schema version: a grid with one trial completed and one failed; from 3 on also a search; from 4 on
the grid is compacted."""

COMMANDS: dict[str, list[str]] = {
    "grid.txt": ["table", "grid"],
    "grid.csv": ["table", "grid", "--format", "csv"],
    "grid-f1.md": ["table", "grid", "--format", "markdown", "--metric", "f1"],
    "predictions.txt": ["table", "predictions", "--limit", "4"],
    "predictions-bioasq.json": ["table", "predictions", "--limit", "2", "--domain", "bioasq", "--format", "json"],
    "spending.txt": ["table", "spending"],
    "spending-trials.csv": ["table", "spending", "--by", "trial", "--format", "csv"],
    "trials.csv": ["table", "trials", "--format", "csv"],
    "status.json": ["sql", "SELECT status, count(*) AS trials FROM trials GROUP BY ALL ORDER BY ALL", "--format", "json"],
    "reports.txt": ["sql", "SELECT * EXCLUDE (trial_key) FROM reports ORDER BY trial_key, step LIMIT 3"],
    "columns-events.txt": ["columns", "events"],
    "columns-runs.txt": ["columns", "runs"],
    "columns-spending.txt": ["columns", "spending"],
    "verify.txt": ["verify"],
}
"""File to the command that prints it."""

SEARCH_COMMANDS: dict[str, list[str]] = {
    "search.txt": ["table", "search", "--sweep", "search-1"],
    "search.csv": ["table", "search", "--sweep", "search-1", "--format", "csv"],
    "search-narrowing.md": ["table", "search", "--format", "markdown"],
    "columns-decisions.txt": ["columns", "decisions"],
    "columns-searches.txt": ["columns", "searches"],
    "verify-search.txt": ["verify"],
}
"""The same over a storage with two searches."""


def outputs(storage: Path, commands: dict[str, list[str]]) -> dict[str, str]:
    """What each of `commands` prints over the ledger at `storage`."""
    runner, env = CliRunner(), {"SWEEPS_STORAGE": str(storage)}
    results = {name: runner.invoke(app, command, env=env) for name, command in commands.items()}
    for name, result in results.items():
        if result.exit_code:
            raise RuntimeError(f"{name}: exit {result.exit_code}: {result.stderr}")
    return {name: result.stdout for name, result in results.items()}


def write_store(folder: Path) -> None:
    """A storage as today's code writes it."""
    one_failed = [("exbert", 60, "shuffled", 0)]
    synthetic_ledger(folder, trainables=("exbert",), orders=("shuffled",), shares=(60, 80), failed=one_failed)
    compact(folder)
    synthetic_search(folder, num_trials=4)


if __name__ == "__main__":
    if not STORES[SCHEMA_VERSION].exists():
        write_store(STORES[SCHEMA_VERSION])
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        failed, planned = [("exbert", 60, "shuffled", 0)], [("exbert", 80, "shuffled", 0)]
        grid = synthetic_ledger(Path(folder) / "grid", failed=failed, planned=planned)
        searches = synthetic_narrowing(synthetic_search(Path(folder) / "searches", objectives=("val_qa_loss", "train_seconds")))
        for name, text in {**outputs(grid, COMMANDS), **outputs(searches, SEARCH_COMMANDS)}.items():
            (FOLDER / name).write_text(text, encoding="utf-8")
