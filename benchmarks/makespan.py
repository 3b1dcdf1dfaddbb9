"""How much longer a sweep takes than its training steps alone would: the grid on the embedded default, on a local Ray.

    python benchmarks/makespan.py [--seeds 1]

Wall time of the command from its start to its exit, over the sum of all training steps divided by the number of slots:
start-up, imports, preparing data, evaluating, recording and idle slots are all in it. Goals: 1.15 for the 24 trials of one
seed, 1.05 for the 96 of four. Scoring the held-out examples is work, not waiting, and the demo passes about as many windows
through its models to score them as to train them: hence also the ratio with the evaluations' seconds left out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table
from step_log import clocked, read_log

from results.ledger import Ledger
from results.spending import load_spending

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Runs the grid once and prints where its time went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1, help="24 trials each")
    seeds = list(range(parser.parse_args().seeds))
    with tempfile.TemporaryDirectory() as folder:
        wall, steps, evaluations = _run(Path(folder), seeds)
        ledger = Ledger(folder)
        [run] = ledger.sql("SELECT sweep_id, slots, wall_seconds FROM runs").to_pylist()
        [cost] = ledger.sql("SELECT count(*) AS trials, sum(train_seconds) AS inside FROM attempts").to_pylist()
        spent = load_spending(ledger, run["sweep_id"]).seconds
    ideal = sum(steps) / run["slots"]
    evaluating = sum(evaluations)
    table = Table("trials", "slots", "wall, s", "steps ÷ slots, s", "wall ÷ that", "without evaluating", "slots' other seconds")
    rest = {
        "evaluating": evaluating,
        "loading and saving in trials": cost["inside"] - sum(steps) - evaluating,
        "start-up of trials": spent["start-up"],
        "idle": spent["idle"],
        "before and after the run": (wall - run["wall_seconds"]) * run["slots"],
    }
    told = ", ".join(f"{name} {seconds / (wall * run['slots']):.1%}" for name, seconds in rest.items())
    without = (wall - evaluating / run["slots"]) / ideal
    cells = (str(cost["trials"]), str(run["slots"]), f"{wall:.1f}", f"{ideal:.1f}", f"{wall / ideal:.2f}", f"{without:.2f}")
    table.add_row(*cells, told)
    Console(width=140).print(table)


def _run(storage: Path, seeds: list[int]) -> tuple[float, list[float], list[float]]:
    """Wall seconds of the whole command, of each training step, and of each evaluation."""
    log = storage / "steps"
    command = [sys.executable, "-m", "orchestrator.run", "grid", "--yes", "--set", f"seeds={seeds}", "--storage", str(storage)]
    began = time.perf_counter()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, cwd=ROOT, env={**os.environ, **clocked(ROOT, log)})
    wall = time.perf_counter() - began
    steps, evaluations = ([each.seconds for each in found] for found in read_log(log))
    return wall, steps, evaluations


if __name__ == "__main__":
    main()
