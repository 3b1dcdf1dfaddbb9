"""What a sweep costs beside its training steps: ours, two of Ray Tune, Optuna, Syne Tune, Hydra, a shell loop.

    python -m venv /tmp/peers                     # optional, for Syne Tune and Hydra; never into the project's own environment
    /tmp/peers/bin/pip install -c constraints.txt torch==2.13.0 transformers accelerate
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
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

from overhead_work import SLOTS, Work, make_work
from rich.console import Console
from rich.table import Table
from step_log import clocked, gaps, read_log

PEERS_PYTHON = "PEERS_PYTHON"
OURS, DEFAULT, REUSING = "ours", "Ray Tune", "Ray Tune, reuse_actors"

_TRIES = 4
"""Of a sweep of another side that fails; then it is left out."""

_HERE = Path(__file__).resolve().parent


class Cost(NamedTuple):
    """Of one sweep; seconds of slots but for `first`, and without those in steps."""

    whole: float  # a trial's share of the whole command, from its start to its exit
    within: float  # a trial's share of the time from the sweep's first step to its last
    first: float  # from the command's start to the first step
    gap: float | None  # median from a trial's last step to the next one's first on a worker; None where none goes on
    unevaluated: float | None  # the same without the seconds of evaluations, which ours alone logs


Found = dict[str, dict[str, list["Cost"]]]
"""Kind of trials -> side -> what each of its sweeps cost."""


class FailedError(Exception):
    """A side's command has failed."""


def _python(package: str) -> str:
    """The Python that has a package, this one before $PEERS_PYTHON; empty if neither has."""
    look = "import sys; from importlib.util import find_spec; sys.exit(find_spec(sys.argv[1].partition('.')[0]) is None)"
    pythons = dict.fromkeys((sys.executable, os.environ.get(PEERS_PYTHON, sys.executable)))
    return next((python for python in pythons if not subprocess.run([python, "-c", look, package]).returncode), "")


def ours(python: str, work: Work, folder: Path) -> list[str]:
    """The grid's command on Ray."""
    grid = [python, "-m", "orchestrator.run", "grid", "--yes", "--preset", str(work.preset)]
    return [*grid, "--seeds", str(work.trials), "--storage", str(folder / "storage")]


def peer(side: str, python: str, work: Work, folder: Path) -> list[str]:
    """A side of `overhead_peers.py`."""
    script = str(_HERE / "overhead_peers.py")
    return [python, script, side, work.kind, str(work.rows), str(work.trials), str(folder)]


def hydra(python: str, work: Work, folder: Path) -> list[str]:
    """Hydra's basic sweeper with the joblib launcher."""
    numbers = ",".join(map(str, range(work.trials)))
    settings = [f"kind={work.kind}", f"rows={work.rows}", f"number={numbers}", f"hydra.sweep.dir={folder}"]
    launcher = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={SLOTS}"]
    return [python, str(_HERE / "overhead_hydra.py"), "--multirun", *launcher, *settings]


def shell(python: str, work: Work, folder: Path) -> list[str]:
    """A loop over the plain script."""
    one = f"{python} {_HERE / 'overhead_plain.py'} --kind {work.kind} --rows {work.rows} --number {{}}"
    return ["bash", "-c", f"seq 0 {work.trials - 1} | xargs -P {SLOTS} -I {{}} {one}"]


SIDES: dict[str, tuple[str, Callable[[str, Work, Path], list[str]]]] = {
    OURS: ("ray", ours),
    DEFAULT: ("ray", partial(peer, "tune_default")),
    REUSING: ("ray", partial(peer, "tune_reusing")),
    "Optuna, n_jobs=2": ("optuna", partial(peer, "optuna")),
    "Syne Tune, local": ("syne_tune", partial(peer, "syne_tune")),
    "Hydra, joblib": ("hydra", hydra),
    "shell loop": ("transformers", shell),
}
"""By name the package that each needs, and its command."""


def _run(command: Sequence[str], work: Work, log: Path, home: Path) -> float:
    """Runs one command with a home of its own and returns its wall seconds."""
    settings = {**clocked(work.tree, log), "HOME": str(home), "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    began = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, cwd=home)
    if done.returncode != 0:
        raise FailedError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    return time.perf_counter() - began


def cost_of(side: str, work: Work) -> Cost:
    """Runs one sweep. Raises FailedError where it fails, or takes other steps than it should."""
    with tempfile.TemporaryDirectory(prefix="cost-") as name:
        folder = Path(name)
        began = time.time()
        package, command = SIDES[side]
        wall = _run(command(_python(package), work, folder / "results"), work, folder / "steps", folder)
        steps, evaluations = read_log(folder / "steps")
    expected = sorted(list(range(1, work.steps + 1)) * work.trials)
    if sorted(step.number for step in steps) != expected:
        raise FailedError(f"{side}: {work.trials} trials should take {work.steps} steps each, got {len(steps)} in all")
    first, last = min(step.began for step in steps), max(step.began + step.seconds for step in steps)
    trained, between = sum(step.seconds for step in steps), gaps(steps, evaluations)
    goes_on = len(between) >= work.trials // 2
    return Cost(
        whole=(SLOTS * wall - trained) / work.trials,
        within=(SLOTS * (last - first) - trained) / work.trials,
        first=first - began,
        gap=median(gap.whole for gap in between) if goes_on else None,
        unevaluated=median(gap.whole - gap.evaluating for gap in between) if goes_on else None,
    )


def cost_at_last(side: str, work: Work, say: Callable[[str], None]) -> Cost | None:
    """`cost_of` a sweep, which is run again where it fails; None where it fails each time. Ours may not: raises FailedError."""
    for tries_left in reversed(range(_TRIES)):
        try:
            return cost_of(side, work)
        except FailedError as error:
            if side == OURS:
                raise
            again = "run again" if tries_left else "left out"
            say(f"{work.kind}, {side}, {again}: {str(error).strip().splitlines()[-1]}")
    return None


def bare_seconds(work: Work) -> float:
    """Wall seconds of starting a Ray and importing in one of its workers what training needs."""
    with tempfile.TemporaryDirectory(prefix="cost-") as name:
        return _run(peer("bare_ray", sys.executable, work, Path(name)), work, Path(name) / "steps", Path(name))


def rounds(works: Sequence[Work], sides: Sequence[str], number: int, console: Console) -> tuple[Found, list[float]]:
    """The costs of all sides by kind of trials, and the seconds of `bare_seconds`, one of each a round, in turn."""
    found: Found = {work.kind: {side: [] for side in sides} for work in works}
    bare: list[float] = []
    for _ in range(number):
        bare.append(bare_seconds(works[-1]))
        for work in works:
            for side, costs in list(found[work.kind].items()):
                cost = cost_at_last(side, work, partial(console.print, markup=False))
                console.print(f"{work.kind}, {side}: {cost}", style="dim", highlight=False)
                if cost is None:
                    del found[work.kind][side]
                else:
                    costs.append(cost)
    return found, bare


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


def goal_table(found: Found, bare: Sequence[float]) -> Table:
    """The goals, measured."""
    shown = Table("goal", "at most", "measured", "")

    def add(what: str, limit: float, measured: Sequence[float], form: str) -> None:
        shown.add_row(what, f"{limit:{form}}", _text(measured, form), "met" if median(measured) <= limit else "missed")

    for kind, side, limit in (("no-op", DEFAULT, 1 / 30), ("tiny", DEFAULT, 1 / 30), ("tiny", REUSING, 1 / 5)):
        for field, name in (("within", "first to last step"), ("whole", "whole command")):
            if side in found.get(kind, {}):
                costs = found[kind]
                add(f"overhead of a {kind} trial ÷ {side}, {name}", limit, ratios(costs[OURS], costs[side], field), ".3f")
    for kind, costs in found.items():
        for field, left_out in (("gap", ""), ("unevaluated", ", evaluations left out")):
            if seconds := [value for cost in costs[OURS] if (value := getattr(cost, field)) is not None]:
                add(f"{kind}: ms to the next first step{left_out}", 50, [1000 * value for value in seconds], ".0f")
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
    sides, console = [name for name in wanted if _python(SIDES[name][0])], Console(width=170)
    if missing := [name for name in wanted if name not in sides]:
        console.print(f"not installed here nor for ${PEERS_PYTHON}: {', '.join(missing)}")
    with tempfile.TemporaryDirectory(prefix="overhead-") as name:
        works = make_work(Path(name), given.noop_trials, given.tiny_trials)
        try:
            found, bare = rounds(works, sides, given.rounds, console)
        except FailedError as error:
            sys.exit(str(error))
    for work in works:
        console.print(cost_table(work, found[work.kind]))
    console.print(f"starting Ray and importing: {_text(bare, '.1f')} s")
    console.print(goal_table(found, bare))


if __name__ == "__main__":
    main()
