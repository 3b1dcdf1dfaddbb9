"""What orchestration costs: real searches on a real Ray with two slots whose trials train nothing, ours and Ray Tune's own."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rich.table import Table as Shown
from search_replay import BEGAN, EPOCHS, LOSSES, STAMPS

_HERE = Path(__file__).parent

_PRESET = f"""
encoder: embedded
domains: {{squad: embedded, bioasq: embedded}}
mixture_size: 20
shares: [80]
orders: [shuffled]
evaluation: {{validation_examples: 4, test_examples: 4}}
resources: {{cpus_per_trial: 1, gpus_per_trial: 0, max_concurrent: 2}}
search: {{space: exbert_embedded, max_epochs: {EPOCHS}, reports_per_epoch: {len(LOSSES) // EPOCHS}}}
"""


class Cost(NamedTuple):
    """Milliseconds of two slots."""

    per_trial: float  # from the first report of a search to its last, so without start and end, divided by its trials
    per_report: float  # median from one report of a trial to its next


def ours(folder: Path, trials: int) -> list[str]:
    """The command of a search by this project."""
    preset = folder / "search.yaml"
    preset.write_text(_PRESET)
    command = [sys.executable, "-m", "orchestrator.run", "search", "--preset", str(preset), "--storage", str(folder / "x")]
    return [*command, "--trials", str(trials), "--yes"]


def tunes(folder: Path, trials: int) -> list[str]:
    """The command of a search by Ray Tune alone."""
    return [sys.executable, str(_HERE / "search_tune.py"), str(folder), str(trials)]


_SIDES = {"ours": ours, "Ray Tune": tunes}


def cost_of(side: str, trials: int) -> Cost:
    """Runs one search."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stamps = folder / "stamps"
        path = os.pathsep.join((str(_HERE / "search_site"), str(_HERE))) if side == "ours" else str(_HERE)
        settings = {STAMPS: str(stamps), BEGAN: str(time.time()), "PYTHONPATH": path, "SIMULATED_TRAINING": "search_replay"}
        _run(_SIDES[side](folder, trials), settings)
        lines = [line.split() for line in stamps.read_text().splitlines()]
    if len(lines) != trials * len(LOSSES):
        sys.exit(f"{side}: {trials} trials should make {trials * len(LOSSES)} reports, got {len(lines)}")
    reports = sorted((process, float(at), int(number)) for process, number, at in lines)
    gaps = [later[1] - earlier[1] for earlier, later in itertools.pairwise(reports) if later[2] > 0]
    times = [at for _, at, _ in reports]
    return Cost(1000 * (max(times) - min(times)) / trials, 1000 * median(gaps))


def _run(command: Sequence[str], settings: Mapping[str, str]) -> None:
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, cwd=_HERE.parent)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")


def overhead_table(repeats: int, trials: int) -> Shown:
    """Both sides in turn, `repeats` times; ratios are of runs that followed each other."""
    ours, theirs = zip(*([cost_of(side, trials) for side in _SIDES] for _ in range(repeats)), strict=True)
    title = f"Overhead: {trials} trials of {len(LOSSES)} reports on two slots, median (least to most) of {repeats} searches"
    shown = Shown("", *_SIDES, "ours ÷ Ray Tune", title=title)
    _add(
        shown,
        "milliseconds a trial, its reports included",
        [cost.per_trial for cost in ours],
        [cost.per_trial for cost in theirs],
    )
    _add(shown, "milliseconds a report", [cost.per_report for cost in ours], [cost.per_report for cost in theirs])
    return shown


def _add(shown: Shown, name: str, ours: Sequence[float], theirs: Sequence[float]) -> None:
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    shown.add_row(name, _text(ours, ".0f"), _text(theirs, ".0f"), _text(ratios, ".2f"))


def _text(values: Sequence[float], form: str) -> str:
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"
