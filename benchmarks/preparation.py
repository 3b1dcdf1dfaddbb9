"""Tokenising a training file of SQuAD's size: the first time, the second time, and the memory that each takes.

    python benchmarks/preparation.py           # 90,000 examples; SQuAD v1.1 has 87,599 for training

Each time is a process of its own. Goals: the second takes at most half a second, imports not counted, and maps the features.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from squad_sized import write_rows

_MB = 1_000_000
_IN_CHILD = "--in-child"


def prepare_once(rows: Path, prepared: Path, mixture_size: int) -> dict[str, float]:
    """Opens the data of a trial in this process: seconds of it, of its imports, memory, and what is mapped."""
    began = time.perf_counter()
    from trainables.config import MixtureConfig
    from trainables.data.prepared import open_prepared
    from trainables.data.spec import DataSpec, DomainSpec
    from trainables.embedded import ENCODER_PATH

    imported = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = DataSpec(encoder=str(ENCODER_PATH), domains={"squad": DomainSpec(train=str(rows))})
    mixture = MixtureConfig(size=mixture_size, share=100)

    def open_trial() -> tuple[float, float]:
        started, spent = time.perf_counter(), time.process_time()
        opened = open_prepared(data, mixture, max_length=384, stride=128, prepared_dir=prepared)
        opened.training_windows(mixture)
        return time.perf_counter() - started, time.process_time() - spent

    (first, cpu), (again, _) = open_trial(), open_trial()
    return {
        "imports": imported - began,
        "seconds": first,
        "cpu": cpu,
        "again": again,
        "before": before * 1024 / _MB,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _MB,
        "mapped": float("input_ids.npy" in Path("/proc/self/maps").read_text()),
    }


def in_child(rows: Path, prepared: Path, mixture_size: int) -> dict[str, float]:
    """`prepare_once` in a fresh process."""
    command = [sys.executable, __file__, _IN_CHILD, str(rows), str(prepared), str(mixture_size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(folder: Path, num_examples: int, repeats: int) -> Table:
    """The first time once, the second `repeats` times; the table."""
    rows, prepared = folder / "rows.jsonl", folder / "prepared"
    write_rows(rows, num_examples)
    mixture_size = min(4000, num_examples // 200 * 100)
    first = in_child(rows, prepared, mixture_size)
    later = [in_child(rows, prepared, mixture_size) for _ in range(repeats)]
    second = {name: median(each[name] for each in later) for name in first}
    size = sum(path.stat().st_size for path in prepared.rglob("*") if path.is_file()) / _MB
    title = f"{num_examples:,} examples, {rows.stat().st_size / _MB:.0f} MB of rows, {size:.0f} MB prepared"
    shown = Table("", "first time", f"second time, median of {repeats}", "goal", title=title)
    shown.add_row("seconds", f"{first['seconds']:.1f}", f"{second['seconds']:.2f}", "second: 0.5")
    shown.add_row("  of CPU", f"{first['cpu']:.1f}", f"{second['cpu']:.2f}", "")
    shown.add_row("  of the next trial in that process", f"{first['again']:.2f}", f"{second['again']:.2f}", "")
    shown.add_row("  imports, not counted", f"{first['imports']:.2f}", f"{second['imports']:.2f}", "")
    shown.add_row("peak memory, MB", f"{first['peak']:.0f}", f"{second['peak']:.0f}", "")
    shown.add_row("  before opening", f"{first['before']:.0f}", f"{second['before']:.0f}", "")
    shown.add_row("features mapped", *("yes" if each["mapped"] else "no" for each in (first, second)), "yes")
    return shown


def main() -> None:
    """Measures, and prints a table."""
    if sys.argv[1:2] == [_IN_CHILD]:
        print(json.dumps(prepare_once(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=90_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Console(width=120).print(measure(Path(folder), arguments.examples, arguments.repeats))


if __name__ == "__main__":
    main()
