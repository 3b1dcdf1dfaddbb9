"""What orchestration costs: real searches on a real Ray with two slots whose trials train nothing, ours and Ray Tune's own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from rich.table import Table as Shown
from search_replay import BEGAN, EPOCHS, REPORTS, STAMPS

FEW, MANY = 10, 50
"""Reports of a trial. What more of them cost is what a report costs."""

_HERE = Path(__file__).parent

_PRESET = f"""
encoder: embedded
domains: {{squad: embedded, bioasq: embedded}}
mixture_size: 20
shares: [80]
orders: [shuffled]
evaluation: {{validation_examples: 4, test_examples: 4}}
resources: {{cpus_per_trial: 1, gpus_per_trial: 0, max_concurrent: 2}}
search: {{space: exbert_embedded, max_epochs: {EPOCHS}}}
"""


def ours(folder: Path, trials: int, reports: int) -> list[str]:
    """The command of a search by this project."""
    preset = folder / "search.yaml"
    preset.write_text(_PRESET)
    command = [sys.executable, "-m", "orchestrator.run", "search", "--preset", str(preset), "--storage", str(folder / "x")]
    return [*command, "--trials", str(trials), "--yes", "--set", f"search.reports_per_epoch={reports // EPOCHS}"]


def tunes(folder: Path, trials: int, reports: int) -> list[str]:
    """The command of a search by Ray Tune alone."""
    return [sys.executable, str(_HERE / "search_tune.py"), str(folder), str(trials)]


_SIDES = {"ours": ours, "Ray Tune": tunes}


def seconds_per_trial(side: str, trials: int, reports: int) -> float:
    """Wall seconds from the first report of a search to its last, so without start and end, for each trial."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stamps = folder / "stamps"
        path = os.pathsep.join((str(_HERE / "search_site"), str(_HERE))) if side == "ours" else str(_HERE)
        settings = {STAMPS: str(stamps), REPORTS: str(reports), BEGAN: str(time.time()), "PYTHONPATH": path}
        _run(_SIDES[side](folder, trials, reports), settings)
        times = sorted(float(line) for line in stamps.read_text().split())
    if len(times) != trials * reports:
        sys.exit(f"{side}: {trials} trials should make {trials * reports} reports, got {len(times)}")
    return (times[-1] - times[0]) / trials


def _run(command: Sequence[str], settings: Mapping[str, str]) -> None:
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, cwd=_HERE.parent)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")


def overhead_table(repeats: int, trials: int) -> Shown:
    """Both sides in turn, `repeats` times; ratios are of runs that followed each other."""
    measured: dict[tuple[str, int], list[float]] = {(side, reports): [] for side in _SIDES for reports in (FEW, MANY)}
    for _ in range(repeats):
        for side, reports in measured:
            measured[side, reports].append(seconds_per_trial(side, trials, reports))
    per_report = {
        side: [(many - few) / (MANY - FEW) for few, many in zip(measured[side, FEW], measured[side, MANY], strict=True)]
        for side in _SIDES
    }
    title = f"Overhead: {trials} trials a search, two slots, median (least to most) of {repeats}"
    shown = Shown("", *_SIDES, "ours ÷ Ray Tune", title=title)
    for reports in (FEW, MANY):
        _add(shown, f"milliseconds a trial of {reports} reports", measured["ours", reports], measured["Ray Tune", reports])
    _add(shown, "milliseconds a report more", per_report["ours"], per_report["Ray Tune"])
    return shown


def _add(shown: Shown, name: str, ours: Sequence[float], theirs: Sequence[float]) -> None:
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    milliseconds = (_text([1000 * value for value in side], ".0f") for side in (ours, theirs))
    shown.add_row(name, *milliseconds, _text(ratios, ".2f"))


def _text(values: Sequence[float], form: str) -> str:
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"
