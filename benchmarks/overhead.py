"""What a sweep costs beside its training steps: ours, two of Ray Tune, Optuna, Syne Tune, Hydra, a shell loop.

    python -m venv /tmp/peers           # optional, as far as this Python lacks them; never into the project's own environment
    /tmp/peers/bin/pip install -c constraints.txt torch==2.13.0 transformers accelerate 'ray[tune]' optuna
    /tmp/peers/bin/pip install -c constraints.txt syne-tune hydra-core hydra-joblib-launcher
    PEERS_PYTHON=/tmp/peers/bin/python python benchmarks/overhead.py

48 trials that do nothing but report (they import nothing on any side; our workers import torch all the same), and 24 tiny
ones: the embedded encoder, five steps, validation and test, weights saved. Two slots of one CPU and one torch thread, the
shell's by `xargs -P 2`. The others train with `transformers.Trainer`, tokenise and load the model for each trial, and evaluate
losses alone; ours decodes answers, scores them and records everything. All read the same rows and take the same number of
steps, whose seconds each process measures (`step_log`); the rest is overhead. The loss of a validation or test, which all sides
are to measure, is overhead too. Optuna's two threads share an interpreter: its steps also wait for the other thread, and these
seconds are not counted.

Goals: a thirtieth of Ray Tune's overhead a trial, a fifth of it with actors used again, 50 ms from a trial's last step to the
next one's first on a warm worker, and the first step within 1.3 times what starting Ray and importing takes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from overhead_work import SLOTS, Work, make_work
from rich.console import Console
from rich.table import Table
from step_log import clocked, gaps, read_steps

PEERS_PYTHON = "PEERS_PYTHON"
OURS, DEFAULT, REUSING = "ours", "Ray Tune", "Ray Tune, reuse_actors"

_HERE = Path(__file__).resolve().parent


class Cost(NamedTuple):
    """Of one sweep; seconds of slots but for `first`, and without those in steps."""

    whole: float  # a trial's share of the whole command, from its start to its exit
    within: float  # a trial's share of the time from the sweep's first step to its last
    first: float  # from the command's start to the first step
    gap: float | None  # median from a trial's last step to the next one's first on a worker; None where none goes on


def ours(work: Work, folder: Path) -> list[str]:
    """The grid's command on Ray."""
    grid = [sys.executable, "-m", "orchestrator.run", "grid", "--yes", "--preset", str(work.preset)]
    return [*grid, "--seeds", str(work.trials), "--storage", str(folder / "storage")]


def peer(side: str, needs: str) -> tuple[str, Callable[[Work, Path], list[str]]]:
    """A package and the command of a side of `overhead_peers.py`, which imports it."""
    script = str(_HERE / "overhead_peers.py")
    return needs, lambda work, folder: [_python(), script, side, work.kind, str(work.rows), str(work.trials), str(folder)]


def hydra(work: Work, folder: Path) -> list[str]:
    """Hydra's basic sweeper with the joblib launcher."""
    numbers = ",".join(map(str, range(work.trials)))
    settings = [f"kind={work.kind}", f"rows={work.rows}", f"number={numbers}", f"hydra.sweep.dir={folder}"]
    launcher = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={SLOTS}"]
    return [_python(), str(_HERE / "overhead_hydra.py"), "--multirun", *launcher, *settings]


def shell(work: Work, folder: Path) -> list[str]:
    """A loop over the plain script."""
    one = f"{_python()} {_HERE / 'overhead_plain.py'} --kind {work.kind} --rows {work.rows} --number {{}}"
    return ["bash", "-c", f"seq 0 {work.trials - 1} | xargs -P {SLOTS} -I {{}} {one}"]


SIDES: dict[str, tuple[str, Callable[[Work, Path], list[str]]]] = {
    OURS: ("orchestrator", ours),
    DEFAULT: peer("tune_default", "ray.tune"),
    REUSING: peer("tune_reusing", "ray.tune"),
    "Optuna, n_jobs=2": peer("optuna", "optuna"),
    "Syne Tune, local": peer("syne_tune", "syne_tune"),
    "Hydra, joblib": ("hydra_plugins.hydra_joblib_launcher", hydra),
    "shell loop": ("transformers", shell),
}
"""By name the package that each needs, and its command."""


def _python() -> str:
    return os.environ.get(PEERS_PYTHON, sys.executable)


def installed(sides: Sequence[str]) -> list[str]:
    """Those of the sides that can run."""
    look = "import sys; from importlib.util import find_spec; sys.exit(find_spec(sys.argv[1]) is None)"

    def is_there(name: str) -> bool:
        return name == OURS or subprocess.run([_python(), "-c", look, SIDES[name][0]], capture_output=True).returncode == 0

    return [name for name in sides if is_there(name)]


def _run(command: Sequence[str], work: Work, log: Path, home: Path) -> float:
    """Runs one command with a home of its own and returns its wall seconds."""
    settings = {**clocked(work.tree, log), "HOME": str(home), "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    began = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, cwd=home)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    return time.perf_counter() - began


def cost_of(side: str, work: Work) -> Cost:
    """Runs one sweep.

    Raises SystemExit where it fails, or takes other steps than it should.
    """
    with tempfile.TemporaryDirectory(prefix="cost-") as name:
        folder = Path(name)
        began = time.time()
        wall = _run(SIDES[side][1](work, folder / "results"), work, folder / "steps", folder)
        steps = read_steps(folder / "steps")
    expected = sorted(list(range(1, work.steps + 1)) * work.trials)
    if sorted(step.number for step in steps) != expected:
        sys.exit(f"{side}: {work.trials} trials should take {work.steps} steps each, got {len(steps)} in all")
    first, last = min(step.began for step in steps), max(step.began + step.seconds for step in steps)
    trained, between = sum(step.seconds for step in steps), gaps(steps)
    return Cost(
        whole=(SLOTS * wall - trained) / work.trials,
        within=(SLOTS * (last - first) - trained) / work.trials,
        first=first - began,
        gap=median(between) if len(between) >= work.trials // 2 else None,
    )


def bare_seconds(work: Work) -> float:
    """Wall seconds of starting a Ray and importing in one of its workers what training needs."""
    with tempfile.TemporaryDirectory(prefix="cost-") as name:
        return _run(peer("bare_ray", "ray")[1](work, Path(name)), work, Path(name) / "steps", Path(name))


def cost_table(work: Work, costs: Mapping[str, Sequence[Cost]]) -> Table:
    """What each side costs; ratios are of sweeps of the same round."""
    repeats = len(costs[OURS])
    title = f"{work.kind}: {work.trials} trials of {work.steps} steps on {SLOTS} slots, median (least to most) of {repeats}"
    shown = Table("", "whole command, s a trial", "ours ÷", "first to last step, s a trial", "ours ÷", title=title)
    shown.add_column("to the next first step, ms")
    shown.add_column("first step after, s")
    for side, found in costs.items():
        gap_ms = [1000 * cost.gap for cost in found if cost.gap is not None]
        shown.add_row(
            side,
            _text([cost.whole for cost in found], ".3f"),
            _text(ratios(costs[OURS], found, "whole"), ".3f"),
            _text([cost.within for cost in found], ".3f"),
            _text(ratios(costs[OURS], found, "within"), ".3f"),
            _text(gap_ms, ".0f") if gap_ms else "other process",
            _text([cost.first for cost in found], ".1f"),
        )
    return shown


def ratios(ours: Sequence[Cost], theirs: Sequence[Cost], field: str) -> list[float]:
    """Ours to theirs, round by round."""
    return [getattr(mine, field) / getattr(other, field) for mine, other in zip(ours, theirs, strict=True)]


def goal_table(found: Mapping[str, Mapping[str, Sequence[Cost]]], bare: Sequence[float]) -> Table:
    """The goals, measured; `found`: kind of trials -> side -> its costs."""
    shown = Table("goal", "at most", "measured", "")

    def add(what: str, limit: float, measured: Sequence[float], form: str) -> None:
        shown.add_row(what, f"{limit:{form}}", _text(measured, form), "met" if median(measured) <= limit else "missed")

    for kind, side, limit in (("no-op", DEFAULT, 1 / 30), ("tiny", DEFAULT, 1 / 30), ("tiny", REUSING, 1 / 5)):
        for field, name in (("within", "first to last step"), ("whole", "whole command")):
            if side in found.get(kind, {}):
                costs = found[kind]
                add(f"overhead of a {kind} trial ÷ {side}, {name}", limit, ratios(costs[OURS], costs[side], field), ".3f")
    for kind, costs in found.items():
        add(f"{kind}: ms to the next first step", 50, [1000 * cost.gap for cost in costs[OURS] if cost.gap is not None], ".0f")
    if "tiny" in found:
        firsts = [cost.first / floor for cost, floor in zip(found["tiny"][OURS], bare, strict=True)]
        add("tiny: first step ÷ starting Ray and importing", 1.3, firsts, ".2f")
    return shown


def _text(values: Sequence[float], form: str) -> str:
    spread = f" ({min(values):{form}} to {max(values):{form}})" if len(values) > 1 else ""
    return f"{median(values):{form}}{spread}"


def main() -> None:
    """Measures all sides in turn, some rounds, and prints tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="sweeps of each side (default: 3)")
    parser.add_argument("--noop-trials", type=int, default=48, help="trials that do nothing (default: 48)")
    parser.add_argument("--tiny-trials", type=int, default=24, help="trials that train a little (default: 24)")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES), help=f"beside {OURS} (default: all)")
    given = parser.parse_args()
    wanted = list(dict.fromkeys([OURS, *given.sides]))
    sides, console = installed(wanted), Console(width=170)
    if missing := [name for name in wanted if name not in sides]:
        console.print(f"not installed in {_python()} ({PEERS_PYTHON}): {', '.join(missing)}")
    found: dict[str, dict[str, list[Cost]]] = {}
    with tempfile.TemporaryDirectory(prefix="overhead-") as name:
        works = make_work(Path(name), given.noop_trials, given.tiny_trials)
        bare: list[float] = []
        for _ in range(given.rounds):
            bare.append(bare_seconds(works[1]))
            for work in works:
                for side in sides:
                    found.setdefault(work.kind, {}).setdefault(side, []).append(cost_of(side, work))
    for work in works:
        console.print(cost_table(work, found[work.kind]))
    console.print(f"starting Ray and importing: {_text(bare, '.1f')} s")
    console.print(goal_table(found, bare))


if __name__ == "__main__":
    main()
