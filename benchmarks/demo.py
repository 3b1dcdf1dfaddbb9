"""The demo's limits: wall time, memory per worker and in all, start-up of the commands that only look.

    python benchmarks/demo.py

Runs the 24-model grid on the embedded default in a fresh folder while sampling the memory of all its processes.
Limits: 5 minutes on 2 cores, 700 MB a worker, 4 GB in all, 1.5 s for `plan` and `sql`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil
from rich.console import Console
from rich.table import Table

from results.ledger import Ledger

MB = 1_000_000


def resident_bytes(process: psutil.Process) -> dict[str, int]:
    """Proportional set size (shared pages divided among their users) of each process of a tree, by what it is."""
    sizes: dict[str, int] = {}
    for each in [process, *process.children(recursive=True)]:
        try:
            kind = "worker" if "ray::TrialActor" in " ".join(each.cmdline()) else "other"
            sizes[f"{kind} {each.pid}"] = each.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return sizes


def run_grid(storage: Path) -> tuple[float, int]:
    """Wall seconds of the whole grid, and the largest sum of its processes' memory."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "orchestrator.run", "grid", "--yes", "--storage", str(storage)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    largest = 0
    while process.poll() is None:
        try:
            largest = max(largest, sum(resident_bytes(psutil.Process(process.pid)).values()))
        except psutil.NoSuchProcess:
            break
        time.sleep(0.5)
    if process.wait() != 0:
        sys.exit(f"the grid failed with exit code {process.returncode}")
    return time.perf_counter() - began, largest


def start_up(*arguments: str, repeats: int = 5) -> float:
    """Median wall seconds of a command from start to exit."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", *arguments], check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def main() -> None:
    """Measures, and prints a table of value beside limit."""
    with tempfile.TemporaryDirectory() as folder:
        storage = Path(folder) / "sweeps-data"
        wall_seconds, all_bytes = run_grid(storage)
        [spent] = (
            Ledger(storage)
            .sql("SELECT max(peak_memory_bytes) AS peak, sum(train_seconds) AS train, count(*) AS n FROM attempts")
            .to_pylist()
        )
        again, _ = run_grid(storage)
        where = ("--storage", str(storage))
        rows = [
            ("grid of 24, wall seconds", wall_seconds, 300),
            ("  ÷ (train seconds ÷ 2 slots)", wall_seconds / (spent["train"] / 2), None),
            ("the same command again, seconds", again, None),
            ("largest worker, MB (peak RSS)", spent["peak"] / MB, 700),
            ("all processes, MB (PSS)", all_bytes / MB, 4000),
            ("plan grid, seconds", start_up("orchestrator.run", "plan", "grid", *where), 1.5),
            ("results sql, seconds", start_up("results", "sql", "SELECT 1", *where), 1.5),
        ]
    table = Table("what", "measured", "limit", title=f"{spent['n']} trials, {len(os.sched_getaffinity(0))} cores")
    for name, value, limit in rows:
        table.add_row(name, f"{value:.2f}", "" if limit is None else f"{limit:g}")
    Console().print(table)


if __name__ == "__main__":
    main()
