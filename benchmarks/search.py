"""A search against its alternatives: what it finds for the epochs it trains, and what orchestration costs.

    python -m venv /tmp/syne && /tmp/syne/bin/pip install syne-tune     # optional, never into the project's own environment
    SYNE_PYTHON=/tmp/syne/bin/python python benchmarks/search.py

Quality is simulated on recorded curves (`data/README.md`) with a clock and two workers, overhead measured on a real Ray.
Goals: no contender has less regret for the same epochs; random search needs three times the epochs for the same regret; a
trial costs at most a fifth of what it costs Ray Tune.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings

import optuna
from rich.console import Console
from search_contenders import SYNE_PYTHON, contenders
from search_overhead import overhead_table
from search_quality import quality_tables, search_all
from search_table import DATA, load_table

SCENARIOS = (("exbert_embedded_200", 1), ("exbert_embedded_200", 2), ("exbert_embedded_400", 1))
"""Curves, and the epochs before trials are first judged: as a preset's `search` has it by default, and twice that."""


def show_quality(console: Console, repeats: int) -> None:
    """Simulates all searches and prints what they found."""
    if SYNE_PYTHON not in os.environ:
        console.print(f"Syne Tune: not installed ({SYNE_PYTHON} is not set)")
    searchers = list(contenders())
    for name, grace in SCENARIOS:
        began = time.perf_counter()
        table = load_table(DATA / f"{name}.csv")
        found = search_all(table, grace, searchers, repeats)
        console.rule(f"{name}, first rung at epoch {grace}")
        console.print(f"{len(table.trials)} recorded curves of {table.max_epochs} epochs, best final loss {table.best:.3f}")
        told = ", ".join(f"{table.rank_correlation(rung):.2f} at epoch {rung}" for rung in (1, 2, 4))
        console.print(f"rank correlation with the final loss: {told}")
        for shown in quality_tables(table, found):
            console.print(shown)
        console.print(f"{repeats} seeds each, {time.perf_counter() - began:.0f} s")


def main() -> None:
    """Measures, and prints tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=100, help="seeds of each contender's search (default: 100)")
    parser.add_argument("--runs", type=int, default=5, help="real searches of each kind, for the overhead (default: 5)")
    parser.add_argument("--trials", type=int, default=16, help="trials of each of them (default: 16)")
    parser.add_argument("--quick", action="store_true", help="5 seeds and a single run of 6 trials, to see that it works")
    parser.add_argument("--only", choices=["quality", "overhead"], help="one of the two parts")
    arguments = parser.parse_args()
    repeats, runs, trials = (5, 1, 6) if arguments.quick else (arguments.repeats, arguments.runs, arguments.trials)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore")  # of contenders about their own settings
    console = Console(width=160)
    if arguments.only != "overhead":
        show_quality(console, repeats)
    if arguments.only != "quality":
        console.print(overhead_table(runs, trials))


if __name__ == "__main__":
    main()
