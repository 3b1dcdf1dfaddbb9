"""How long a grid takes with 1, 2, 4 and 8 trials on each GPU, and with as many as `resources.trials_per_gpu: auto` finds.

    python benchmarks/packing.py                   # the paper's 24 models at 4,000 examples, from the hub
    python benchmarks/packing.py --preset mine.yaml --sharing 1 4 auto --set mixture_size=400
    python benchmarks/packing.py --logical-gpus 1 --preset embedded --sharing 1 2 --set mixture_size=50     # without a GPU

Each number of trials a GPU is a grid of its own, from its command's start to its exit; features are prepared once before, and
what `auto` measures is in its time. Memory is what `nvidia-smi` shows of all GPUs together, looked at every half second. Goal:
`auto` takes at most 1.05 times as long as the best.

`--logical-gpus` tells Ray of GPUs that are not there and trains on the CPU: this tries the benchmark and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from orchestrator.machine import num_gpus
from results.ledger import Ledger

ROOT = Path(__file__).resolve().parents[1]
AUTO, GOAL = "auto", 1.05
LOOK_SECONDS = 0.5
_ON_GPU = "resources.gpus_per_trial=1"
_RUN = "SELECT slots, gpus_per_trial, wall_seconds, probed_bytes FROM runs"
_TRIALS = "SELECT count(*) FILTER (status = 'completed') AS completed, max(peak_memory_bytes) AS peak FROM attempts"


class Packed(NamedTuple):
    """One grid."""

    seconds: float  # of the command
    run_seconds: float  # of these, with Ray there
    trials: int
    slots: int
    per_gpu: int
    gpu_gib: float | None  # at most, of all GPUs together; None without any
    worker_gib: float  # of the largest worker's own memory
    probed_gib: float | None  # what the hungriest trial takes, as `auto` measured it


def measure(sharing: str, given: argparse.Namespace, prepared: Path) -> Packed:
    """Runs the grid with that many trials on a GPU."""
    with tempfile.TemporaryDirectory(prefix="packing-") as name:
        storage = Path(name) / "storage"
        shutil.copytree(prepared, storage / "prepared")
        began = time.perf_counter()
        most = _run(_grid(storage, given, f"resources.trials_per_gpu={sharing}"), given.logical_gpus)
        seconds = time.perf_counter() - began
        [run], [trials] = (Ledger(storage).sql(query).to_pylist() for query in (_RUN, _TRIALS))
    probed = run["probed_bytes"]
    return Packed(
        seconds=seconds,
        run_seconds=run["wall_seconds"],
        trials=trials["completed"],
        slots=run["slots"],
        per_gpu=round(1 / run["gpus_per_trial"]),
        gpu_gib=most,
        worker_gib=trials["peak"] / 1024**3,
        probed_gib=None if probed is None else probed / 1024**3,
    )


def _grid(storage: Path, given: argparse.Namespace, *settings: str) -> list[str]:
    chosen = [argument for setting in (_ON_GPU, *given.set, *settings) for argument in ("--set", setting)]
    where = ["--preset", given.preset, "--storage", str(storage)]
    return [sys.executable, "-m", "orchestrator.run", "grid", "--yes", *where, *chosen]


def _run(command: list[str], logical_gpus: int) -> float | None:
    """Runs a grid to its end; the most GPU memory that was in use meanwhile, GiB."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if logical_gpus:
        site = str(ROOT / "tests" / "faults" / "faulty_site")
        pretended = {"RAY_OVERRIDE_RESOURCES": json.dumps({"GPU": logical_gpus}), "SWEEP_ON_CPU": "1"}
        environment |= {**pretended, "PYTHONPATH": os.pathsep.join((site, str(ROOT)))}
    most = 0.0
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        while process.poll() is None:
            most = most if logical_gpus else max(most, _gpu_gib_in_use())
            time.sleep(LOOK_SECONDS)
        if process.returncode != 0:
            said.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{said.read()[-3000:]}")
    return None if logical_gpus else most


def _gpu_gib_in_use() -> float:
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return sum(map(float, subprocess.check_output(query, text=True).split())) / 1024


def packing_table(found: dict[str, Packed], logical_gpus: int) -> Table:
    """One row for each number of trials a GPU."""
    title = f"NOT MEASURED: {logical_gpus} GPUs that are not there, trained on the CPU" if logical_gpus else None
    shown = Table("trials a GPU", "found", "slots", "trials", "seconds", "÷ best", "with Ray there, s", title=title)
    for column in ("GPU memory, GiB", "largest worker, GiB", "a trial's GPU memory as measured, GiB"):
        shown.add_column(column)
    best = min(packed.seconds for packed in found.values())
    for sharing, packed in found.items():
        times = (f"{packed.seconds:.1f}", f"{packed.seconds / best:.2f}", f"{packed.run_seconds:.1f}")
        memory = (packed.gpu_gib, packed.worker_gib, packed.probed_gib)
        counts = map(str, (packed.per_gpu, packed.slots, packed.trials))
        shown.add_row(sharing, *counts, *times, *("" if size is None else f"{size:.2f}" for size in memory))
    return shown


def check(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuses what cannot be measured here."""
    if given.logical_gpus and AUTO in given.sharing:
        parser.error("auto measures a real GPU, and --logical-gpus are none; name numbers, for example --sharing 1 2")
    if not given.logical_gpus and not num_gpus():
        parser.error(
            "no CUDA device here; run it on a machine with an NVIDIA GPU, or try how it goes with --logical-gpus 1 "
            "--sharing 1 2 --preset embedded, which measures nothing"
        )
    if bad := [sharing for sharing in given.sharing if sharing != AUTO and not sharing.isdecimal()]:
        parser.error(f"--sharing takes numbers of trials or {AUTO}, got {', '.join(bad)}")


def main() -> None:
    """Runs the grids one after the other and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper", help="of the grid: a name or a file (default: paper)")
    parser.add_argument("--sharing", nargs="+", default=["1", "2", "4", "8", AUTO], help="trials on each GPU (default: all)")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="as the grid's --set")
    parser.add_argument("--logical-gpus", type=int, default=0, help="GPUs to pretend; measures nothing")
    given = parser.parse_args()
    check(given, parser)
    console = Console(width=150)
    with tempfile.TemporaryDirectory(prefix="packing-") as name:
        first = Path(name) / "first"
        _run([*_grid(first, given), "--max-trials", "1"], given.logical_gpus)  # downloads and prepares what all grids read
        found = {}
        for sharing in given.sharing:
            found[sharing] = measure(sharing, given, first / "prepared")
            console.print(f"{sharing} trials a GPU: {found[sharing].seconds:.1f} s", style="dim")
    console.print(packing_table(found, given.logical_gpus))
    fixed = [packed.seconds for sharing, packed in found.items() if sharing != AUTO]
    if AUTO in found and fixed:
        ratio = found[AUTO].seconds / min(fixed)
        console.print(f"auto ÷ the best number: {ratio:.2f}; goal at most {GOAL}: {'met' if ratio <= GOAL else 'missed'}")


if __name__ == "__main__":
    main()
