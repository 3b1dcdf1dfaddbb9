"""Planning imports these modules for every command: they must not bring in the heavy libraries."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "datasets", "transformers")


@pytest.mark.parametrize(
    "name", ["spec", "sources", "revisions", "mixture", "splits", "scores", "counts", "answers", "prepared"]
)
def test_importing_it_brings_in_nothing_heavy(name: str) -> None:
    code = f"import sys, trainables.data.{name}; print([m for m in {HEAVY!r} if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
