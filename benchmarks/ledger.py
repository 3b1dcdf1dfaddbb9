"""The ledger against its peers: how fast it takes reports, how fast it answers, how large it is.

    python -m venv /tmp/peers && echo $PWD/.venv/lib/python3.11/site-packages > /tmp/peers/lib/python3.11/site-packages/base.pth
    /tmp/peers/bin/pip install mlflow-skinny sqlalchemy alembic tensorboard     # optional, never into the project's environment
    PYTHONPATH=. /tmp/peers/bin/python benchmarks/ledger.py --output /tmp/ledger-benchmark

    ... --rows 10000 1000000 10000000 --parts 100000        # the large sizes: an hour, 15 GB of disk

Peers get the same synthetic trials and the same ten questions through their own API, and their answers are compared with ours.
Goals: an append takes 5 ms (median), however large the ledger; each question at 10 million report rows 0.5 s when warm; files a
tenth of CSV's; answers ten times as fast as the peers'.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from ledger_append import append
from ledger_child import ChildError, in_child, stored_bytes
from ledger_contender import missing_packages
from ledger_data import Asked, asked
from ledger_machine import machine
from ledger_markdown import to_markdown
from ledger_peers import CONTENDERS
from ledger_queries import Loaded, answer, compact_ledger, load, load_small_parts, same_rows
from ledger_questions import QUESTIONS

OURS = "ledger"
LIMIT_SECONDS = 3600
"""For what is ours, and for a load that is expected to stay within its own limit."""


class Benchmark:
    """Measures one thing after the other and keeps what it found."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self._arguments = arguments
        self._folder = folder
        self._asked: Asked = asked(arguments.seed)
        self._pace: dict[str, float] = {}  # seconds a report row at the last size that was loaded
        self._largest: dict[str, Path] = {}
        self.found: dict[str, Any] = {"machine": machine(), "sizes": [], "appends": [], "parts": [], "notes": []}

    def note(self, line: str) -> None:
        """Something that the tables do not say."""
        self.found["notes"].append(line)
        print(line, file=sys.stderr)

    def sizes(self, names: list[str]) -> None:
        """Every contender at every size that it can be loaded at in time."""
        for rows in sorted(self._arguments.rows):
            truth: dict[str, Any] = {}
            for name in names:
                self._size(name, rows, truth)

    def _size(self, name: str, rows: int, truth: dict[str, Any]) -> None:
        expected, limit = self._pace.get(name, 0.0) * rows, self._arguments.load_limit
        if name != OURS and expected > limit:
            self.note(f"{name}: not loaded with {rows:,} report rows, which would take it about {expected:.0f} s")
            return
        place = self._folder / f"{name.replace(' ', '-')}-{rows}"
        print(f"{name}: {rows:,} report rows", file=sys.stderr)
        try:
            loaded: Loaded = in_child(load, name, place, rows, self._arguments.seed, limit_seconds=LIMIT_SECONDS)
        except ChildError as error:
            self.note(f"{name}: could not be loaded with {rows:,} report rows: {error}")
            return
        self._pace[name] = loaded.seconds / loaded.report_rows
        size: dict[str, Any] = {"contender": name, "rows": rows, "loaded": vars(loaded), "bytes_loaded": stored_bytes(place)}
        if name == OURS:
            size["compacted"] = vars(in_child(compact_ledger, place, limit_seconds=LIMIT_SECONDS))
        size["bytes"] = stored_bytes(place)
        size["questions"] = self._questions(name, place, truth)
        self.found["sizes"].append(size)
        if name in self._largest:
            shutil.rmtree(self._largest[name])
        self._largest[name] = place

    def _questions(self, name: str, place: Path, truth: dict[str, Any]) -> dict[str, Any]:
        patience, limit = self._arguments.patience, self._arguments.question_limit
        found: dict[str, Any] = {}
        for question in QUESTIONS:
            try:
                told = in_child(answer, name, place, question.name, self._asked, patience, limit_seconds=limit)
            except ChildError as error:
                found[question.name] = {"failed": str(error)}
                continue
            if told is None:
                continue
            rows = truth.setdefault(question.name, told.rows) if name == OURS else truth.get(question.name, told.rows)
            if not same_rows(rows, told.rows):
                self.note(f"{name}: answers {question.name!r} otherwise than the ledger")
            found[question.name] = {**dataclasses.asdict(told), "rows": len(told.rows)}
        return found

    def appends(self, names: list[str]) -> None:
        """Into a store with nothing in it, and into the largest that was loaded; ours also without a pause."""
        for name in names:
            stores = {"empty": self._folder / f"empty-{name.replace(' ', '-')}", "loaded": self._largest.get(name)}
            for what, place in stores.items():
                if place is None:
                    continue
                for writers in self._arguments.writers:
                    paces = (self._arguments.pace, 0.0) if name == OURS else (self._arguments.pace,)
                    for pace in paces:
                        print(f"{name}, {what}: appends of {writers} writers", file=sys.stderr)
                        told = self._append(name, place, writers, pace)
                        self.found["appends"].append({"contender": name, "store": what, "place": place.name, **told})

    def _append(self, name: str, place: Path, writers: int, pace: float) -> dict[str, Any]:
        given = (name, place, writers, self._arguments.appends, pace)
        return vars(in_child(append, *given, limit_seconds=LIMIT_SECONDS))

    def small_parts(self) -> None:
        """The ledger while nobody has compacted it, and what compacting it takes."""
        place = self._folder / "small-parts"
        print(f"{self._arguments.parts:,} small parts", file=sys.stderr)
        loaded = in_child(load_small_parts, place, self._arguments.parts, self._arguments.seed, limit_seconds=LIMIT_SECONDS)
        before = {"bytes": stored_bytes(place), "questions": self._questions(OURS, place, {})}
        for writers in self._arguments.writers:
            told = self._append(OURS, place, writers, self._arguments.pace)
            self.found["appends"].append({"contender": OURS, "store": "small parts", "place": place.name, **told})
        shrunk = in_child(compact_ledger, place, limit_seconds=LIMIT_SECONDS)
        after = {"bytes": stored_bytes(place), "questions": self._questions(OURS, place, {})}
        self.found["parts"].append({"rows": loaded.report_rows, "compacted": vars(shrunk), "before": before, "after": after})


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000], help="report rows (default: 10000)")
    parser.add_argument(
        "--parts", type=int, default=1000, help="small parts that nobody has compacted; 0: none (default: 1000)"
    )
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 8], help="processes that append (default: 1 8)")
    parser.add_argument("--appends", type=int, default=50, help="reports of each of them (default: 50)")
    parser.add_argument("--pace", type=float, default=5.0, help="reports a second of each of them (default: 5)")
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), help="some of the contenders, the ledger always")
    parser.add_argument("--load-limit", type=float, default=180, help="seconds that loading a peer may take (default: 180)")
    parser.add_argument("--question-limit", type=float, default=600, help="seconds for one question (default: 600)")
    parser.add_argument("--patience", type=float, default=10, help="seconds after which warm repeats end (default: 10)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to put the stores, deleted afterwards (default: a temporary one)")
    parser.add_argument("--output", type=Path, help="folder for ledger.md and ledger.json, written after each stage")
    return parser.parse_args()


def main() -> None:
    """Measures, and prints tables in Markdown."""
    arguments = parse()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        benchmark = Benchmark(arguments, Path(folder))
        names = []
        for name, contender in CONTENDERS.items():
            missing = missing_packages(contender)
            if missing:
                benchmark.note(f"{name}: left out; to take part it needs `pip install {' '.join(missing)}`")
            elif name == OURS or not arguments.only or name in arguments.only:
                names.append(name)
        stages = [lambda: benchmark.sizes(names), lambda: benchmark.appends(names)]
        if arguments.parts:
            stages.append(benchmark.small_parts)
        for stage in stages:
            stage()
            if arguments.output is not None:
                arguments.output.mkdir(parents=True, exist_ok=True)
                (arguments.output / "ledger.json").write_text(json.dumps(benchmark.found, indent=1, default=str))
                (arguments.output / "ledger.md").write_text(to_markdown(benchmark.found))
        print(to_markdown(benchmark.found))


if __name__ == "__main__":
    main()
