"""How the orchestrator bears many trials: running, planning, and telling how they stand.

    python benchmarks/scale.py [--trials 10000] [--tune-trials 1000] [--planned 100000]

Trials wait and report (`scale_trial.py`); all else is real: plan, Ray or the inline backend, recorder, ledger. Ray's published
figures (docs.ray.io, Scalability and Overhead Benchmarks for Ray Tune) are of 16 cores: 10,000 trials of a second took 715 s
(625 at least), and about 500 results a second are taken in. Here as many trials run at a time whatever cores there are, since
they wait. Goals: memory does not grow with the trials, `plan` of 100,000 within 5 s, `status` of 100,000 within 1 s.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

from ledger_child import in_child
from rich.console import Console
from rich.table import Table
from scale_ledger import write_ledger
from scale_runs import Ended, Ran, Trials, child, inline, ours, tunes

_MB = 1_000_000

_GRID = """
encoder: embedded
domains: {squad: embedded, bioasq: embedded}
mixture_size: 1000
shares: [0, 20, 40, 60, 80]
orders: [concatenated, shuffled]
trainables: [distilbert]
"""

_CELLS = 10
"""Trials of each seed of `_GRID`."""


def runs(arguments: argparse.Namespace) -> Table:
    """Trials that wait, by this project and by Ray Tune, one after the other."""
    slots = arguments.slots
    many, few = (Trials(number, arguments.seconds, 1) for number in (arguments.trials, arguments.tune_trials))
    talking = Trials(arguments.tune_trials, 1.0, 10)
    at_once = Trials(4 * slots, 0.0, 100)
    plan = [
        ("orchestrator, inline", lambda: inline(Trials(arguments.inline_trials, 0.0, 1))),
        *((f"{name}, Ray", lambda run=run, trials=trials: run(trials, slots)) for name, run, trials in (
            ("orchestrator", ours, few), ("Ray Tune", tunes, few),
            ("orchestrator", ours, talking), ("Ray Tune", tunes, talking),
            ("orchestrator", ours, at_once), ("Ray Tune", tunes, at_once),
            *([("orchestrator", ours, many)] if many != few else []),
        )),
    ]  # fmt: skip
    table = Table(
        "", "trials x reports", "wait, s", "run, s", "waiting alone, s", "reports/s", "driver's CPU, s", "its peak, MB"
    )
    for name, run in plan:
        cells = _cells(run())
        table.add_row(name, *cells)
        print(name, *cells, f"load {os.getloadavg()[0]:.1f}", sep="  ", file=sys.stderr)  # it takes long: as it gets on
    return table


def _cells(ran: Ran) -> list[str]:
    waits = f"{ran.trials.seconds:g}" if ran.trials.seconds else ""
    least = f"{ran.least_seconds:.0f}" if ran.trials.seconds else ""
    run = [
        f"{ran.seconds:.0f}",
        least,
        f"{ran.reports_per_second:.1f}",
        f"{ran.cpu_seconds:.0f}",
        f"{ran.peak_bytes / _MB:.0f}",
    ]
    return [f"{ran.trials.number:,} x {ran.trials.reports}", waits, *run]


def looks(planned: int, repeats: int) -> Table:
    """`plan` of so many trials, and `status` of as many that have run, in parts as they are written and compacted."""
    table = Table("command", "trials", f"s, median of {repeats}", "CPU, s", "peak, MB", "goal, s")
    with tempfile.TemporaryDirectory() as name:
        folder, storage = Path(name), Path(name) / "storage"
        (folder / "grid.yaml").write_text(_GRID, encoding="utf-8")
        seeds = planned // _CELLS
        grid = ("--preset", str(folder / "grid.yaml"), "--seeds", str(seeds), "--storage", str(folder / "new"))
        _add(table, "plan grid", planned, 5, [_run("plan", "grid", *grid) for _ in range(repeats)])
        _add(table, "plan grid --json", planned, 5, [_run("plan", "grid", *grid, "--json") for _ in range(repeats)])
        in_child(write_ledger, storage, folder / "grid.yaml", seeds, limit_seconds=3600)  # whose memory is not this process's
        where = ("--storage", str(storage))
        _add(table, "status, uncompacted", planned, 1, [_run("status", *where)])
        child([sys.executable, "-m", "results", "compact", *where])
        _add(table, "status, compacted", planned, 1, [_run("status", *where) for _ in range(repeats)])
    return table


def _run(*arguments: str) -> Ended:
    return child([sys.executable, "-W", "ignore", "-m", "orchestrator.run", *arguments])


def _add(table: Table, what: str, trials: int, goal: float, ended: list[Ended]) -> None:
    seconds, cpu, peak = (median(getattr(each, name) for each in ended) for name in ("seconds", "cpu_seconds", "peak_bytes"))
    table.add_row(what, f"{trials:,}", f"{seconds:.1f}", f"{cpu:.1f}", f"{peak / _MB:.0f}", f"{goal:g}")


def main() -> None:
    """Measures, and prints a table each of running and of looking."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000, help="by the orchestrator on Ray; 10,000 take 11 min at least")
    parser.add_argument("--tune-trials", type=int, default=1000, help="by both sides")
    parser.add_argument("--inline-trials", type=int, default=10_000, help="by the inline backend, without waiting")
    parser.add_argument("--seconds", type=float, default=1.0, help="that a trial waits")
    parser.add_argument("--slots", type=int, default=16, help="trials at a time")
    parser.add_argument("--planned", type=int, default=100_000, help="trials of the plan and of the ledger")
    parser.add_argument("--repeats", type=int, default=3, help="of plan and status")
    parser.add_argument("--only", choices=("runs", "looks"))
    arguments = parser.parse_args()
    console = Console(width=140)
    if arguments.only != "looks":
        console.print(runs(arguments))
    if arguments.only != "runs":
        console.print(looks(arguments.planned, arguments.repeats))


if __name__ == "__main__":
    main()
