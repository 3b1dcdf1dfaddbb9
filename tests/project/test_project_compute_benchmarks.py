"""The benchmarks of computing run at a tiny size: each checks that what it compares gives the same, and prints its table."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL_MODEL = ["--width", "64", "--blocks", "1", "--experts", "4", "--max-length", "32", "--batch-size", "2", "--steps", "2"]
TINY = {
    "evaluation": ["--examples", "200", "--repeats", "1"],
    "moe": ["--sizes", "embedded", "--experts", "4", "--repeats", "1"],
    "preparation": ["--examples", "200", "--repeats", "1"],
    "scale": [
        *("--trials", "6", "--tune-trials", "6", "--inline-trials", "6", "--seconds", "0.1", "--slots", "2"),
        *("--planned", "100", "--repeats", "1"),
    ],
    "training": [*SMALL_MODEL, "--models", "exbert", "--threads", "1"],
    "families": [*SMALL_MODEL, "--threads", "1"],
}
SAYS = {
    "evaluation": "all predictions equal",
    "moe": "in slots",
    "preparation": "features mapped",
    "scale": "status, compacted",
    "training": "ours",
    "families": "molora-4",
}


@pytest.mark.parametrize(
    "name",
    ["moe", *(pytest.param(name, marks=pytest.mark.slow) for name in TINY if name != "moe")],
)
def test_a_benchmark_runs_and_finds_what_it_compares_equal(name: str) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *TINY[name]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr[-2000:]
    assert SAYS[name] in done.stdout
