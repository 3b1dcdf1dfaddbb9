"""Kills in a row on one storage, then a run to the end, then a comparison; and the count of it all."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from boundaries import Passed, Point
from drivers import DriverServer, Ended
from golden import Golden, litter

from results.ledger import Ledger

__all__ = ["PREPARED", "SMALL", "Campaign", "Difference", "Recording", "Tally", "points_between"]

PREPARED = ("corpora", "prepared")
"""Folders of a storage that a template has."""

_SHOWN = 8

Difference = dict[str, Any]
"""A storage, the kills that it had survived, and what was found in it then."""


SMALL: dict[str, Any] = {
    "domains": {"squad": "embedded", "bioasq": "embedded"},
    "orders": ["shuffled"],
    "training": {"epochs": 2, "batch_size": 8, "learning_rate": 1.0e-3, "max_length": 128, "stride": 32},
    "recovery": {"checkpoint_seconds": 0},
}
"""Four trials of half a second, with a checkpoint at each of their four reports but the last."""


@dataclass
class Tally:
    """What the kills of a test session came to."""

    seed: int
    kills: Counter[str] = field(default_factory=Counter)  # what was killed -> times that the kill found it alive
    missed: Counter[str] = field(default_factory=Counter)  # the process had ended before
    boundaries: Counter[tuple[str, str]] = field(default_factory=Counter)  # killed at
    known_boundaries: set[tuple[str, str]] = field(default_factory=set)
    storages: int = 0  # run to the end and compared
    differences: list[Difference] = field(default_factory=list)
    litter: Counter[str] = field(default_factory=Counter)
    attempts_left: Counter[str] = field(default_factory=Counter)  # statuses in `attempts` of finished sweeps

    @property
    def line(self) -> str:
        """All in one line."""
        by = ", ".join(f"{number} {what}" for what, number in sorted(self.kills.items()))
        return (
            f"{self.kills.total()} kills ({by}; {self.missed.total()} came too late) on {self.storages} storages; "
            f"{len(self.boundaries)} of {len(self.known_boundaries)} write boundaries; "
            f"{len(self.differences)} differences; {self.litter.total()} files left over"
        )

    def write(self, path: Path) -> None:
        """The whole of it as JSON."""
        content: dict[str, Any] = {
            "seed": self.seed,
            "kills": dict(self.kills),
            "total_kills": self.kills.total(),
            "missed": dict(self.missed),
            "boundaries": {" ".join(name): number for name, number in sorted(self.boundaries.items())},
            "boundaries_never_killed_at": sorted(" ".join(name) for name in self.known_boundaries - set(self.boundaries)),
            "storages_compared": self.storages,
            "differences": self.differences,
            "litter": dict(self.litter),
            "attempts_left": dict(self.attempts_left),
        }
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Recording:
    """The undisturbed run from an empty storage: its boundaries in order, and how long its parts take."""

    passed: list[Passed]
    seconds: float
    num_trials: int

    @property
    def names(self) -> list[tuple[str, str]]:
        """Kind and phase of each boundary."""
        return [(each.kind, each.phase) for each in self.passed]

    @property
    def training_seconds(self) -> float:
        """From the first attempt to the end."""
        return self.seconds - next(each.seconds for each in self.passed if each.kind == "attempts")

    def sample(self, random: Random, *, empty: bool) -> list[int]:
        """A position in `passed` of each kind and phase, at a random ordinal, ascending.

        Of a storage that is not `empty`: without what writes the data that it has.
        """
        places: dict[tuple[str, str], list[int]] = {}
        for position, name in enumerate(self.names):
            if empty or not name[0].startswith(PREPARED):
                places.setdefault(name, []).append(position)
        return sorted(random.choice(found) for found in places.values())


def points_between(names: Sequence[tuple[str, str]], positions: Sequence[int]) -> list[Point]:
    """Where successive drivers of one storage die, so that together they come by `positions`: ordinals count from the last."""
    points = []
    for before, here in pairwise([-1, *positions]):
        kind, phase = names[here]
        points.append(Point(kind, phase, list(names[before + 1 : here + 1]).count((kind, phase))))
    return points


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """Drivers of one sweep, killed on storages below `folder`, against the golden ledger."""

    server: DriverServer
    command: list[str]  # of the sweep
    golden: Golden
    recording: Recording
    template: Path  # corpora and prepared data
    folder: Path
    tally: Tally
    random: Random

    @classmethod
    def of(cls, server: DriverServer, command: list[str], folder: Path, tally: Tally) -> Campaign:
        """Made by one undisturbed run of `command` from an empty storage."""
        storage, template = folder / "golden", folder / "template"
        ended = server.run(command, storage)
        assert ended.status == 0, ended.stderr
        golden = Golden.of(storage)
        recording = Recording(passed=ended.passed, seconds=ended.seconds, num_trials=golden.num_trials)
        tally.known_boundaries.update(recording.names)
        for name in PREPARED:
            shutil.copytree(storage / name, template / name)
        return cls(
            server=server,
            command=command,
            golden=golden,
            recording=recording,
            template=template,
            folder=folder,
            tally=tally,
            random=Random(tally.seed),
        )

    def storage(self, *, empty: bool = False) -> Path:
        """A fresh storage; with its data prepared, unless it is to be empty."""
        storage = Path(tempfile.mkdtemp(prefix="storage-", dir=self.folder))
        if not empty:
            shutil.copytree(self.template, storage, dirs_exist_ok=True)
        return storage

    def kill_at_boundaries(self, positions: Sequence[int], *, empty: bool) -> list[Difference]:
        """Kills at each of the recording's `positions`, on one storage as long as its sweep is not finished.

        Returns the differences that it found, as do the others.
        """
        done, before = 0, len(self.tally.differences)
        while done < len(positions):
            storage, survived = self.storage(empty=empty), []
            for point in points_between(self.recording.names, positions[done:]):
                done += 1
                if not self._kill(storage, survived, "driver at a boundary", kill_at=point):
                    break
                self.tally.boundaries[point.kind, point.phase] += 1
            self.finish(storage, survived)
        return self.tally.differences[before:]

    def kill_at_moments(self, number: int, in_a_row: int, *, empty: bool) -> list[Difference]:
        """Kills `number` times at moments drawn over what is left to run, `in_a_row` on each storage."""
        kills, before = 0, len(self.tally.differences)
        while kills < number:
            storage, survived = self.storage(empty=empty), []
            for _ in range(min(in_a_row, number - kills)):
                moment = self.random.uniform(0, self._expected_seconds(storage))
                if not self._kill(storage, survived, "driver at a moment", kill_after=moment):
                    break
                kills += 1
            self.finish(storage, survived)
        return self.tally.differences[before:]

    def finish(self, storage: Path, survived: Sequence[str]) -> None:
        """Runs the same command to the end and compares the ledger with the golden one."""
        ended = self.server.run(self.command, storage)
        found = [] if ended.status == 0 else [f"the last run ended with {ended.status}:\n{ended.stderr}"]
        if not self.compare(storage, survived, found):
            shutil.rmtree(storage)

    def compare(self, storage: Path, survived: Sequence[str], found: Sequence[str] = ()) -> list[str]:
        """Compares a finished sweep's ledger, and counts what is left beside it."""
        self.tally.storages += 1
        self.tally.litter.update(_sort_of(path) for path in litter(storage))
        attempts = Ledger(storage, must_exist=False).sql("SELECT status FROM attempts").to_pylist()
        self.tally.attempts_left.update(row["status"] for row in attempts)
        return self.note(storage, survived, [*found, *self.golden.differences(storage)])

    def _kill(self, storage: Path, survived: list[str], what: str, **how: Any) -> bool:
        """Runs a driver until its kill and counts it; True if it was alive, and False if the sweep was finished before."""
        ended = self.server.run(self.command, storage, **how)
        (self.tally.kills if ended.was_killed else self.tally.missed)[what] += 1
        if ended.was_killed:
            survived.append(_where(ended))
            self.note(storage, survived, self.golden.differences_of_part(storage))
        elif ended.status != 0:
            self.note(storage, survived, [f"a driver ended with {ended.status}:\n{ended.stderr}"])
        return ended.was_killed

    def note(self, storage: Path, survived: Sequence[str], found: Sequence[str]) -> list[str]:
        """Tells of `found` as one difference: of which storage, after which kills, and what."""
        if found:
            told = [*found[:_SHOWN], *[f"... and {len(found) - _SHOWN} more"][: len(found) > _SHOWN]]
            self.tally.differences.append({"storage": str(storage), "killed": list(survived), "found": told})
        return list(found)

    def _expected_seconds(self, storage: Path) -> float:
        """How long the next driver would run."""
        share = 1 - len(list(storage.glob("checkpoints/*/final.safetensors"))) / self.recording.num_trials
        preparing = 0.5 if (storage / "prepared").is_dir() else self.recording.seconds - self.recording.training_seconds
        return preparing + share * self.recording.training_seconds


def _sort_of(path: str) -> str:
    """Folder and ending of a file left over."""
    return f"{path.split('/')[0]}/*{re.sub('[0-9]+', '*', Path(path).suffix)}"


def _where(ended: Ended) -> str:
    """The last boundary that a killed driver came by, and when it died."""
    last = ended.passed[-1] if ended.passed else None
    number = sum((each.kind, each.phase) == (last.kind, last.phase) for each in ended.passed) if last else 0
    return f"after {ended.seconds:.2f} s, last seen: {f'{last.kind} {last.phase} {number}' if last else 'nothing'}"
