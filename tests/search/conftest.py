"""Spaces that the tests of the search share, and a search with simulated workers: real ledger, no training."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

from orchestrator.asha import has_reached
from orchestrator.decisions import DecisionLog, load_decisions, next_sequence
from orchestrator.plan import Plan
from orchestrator.preset import load_preset
from orchestrator.record import LedgerWriter, plan_row
from orchestrator.search import Search
from orchestrator.search_plan import plan_search
from orchestrator.stop import PAUSED
from orchestrator.study import SpaceExhaustedError, Told
from orchestrator.trial import Trial
from results.parts import attempt_part, read_attempts, write_part
from search_spaces.space import Choice, Condition, Float, Int, Space
from search_spaces.stages import Narrowing
from trainables.embedded.corpora import corpora_in

NOW = datetime(2026, 1, 2, tzinfo=UTC)

Loss = Callable[[Trial, float], float]


@pytest.fixture
def mixed() -> Space:
    """A continuous, a whole, a listed dimension and one under a condition."""
    return Space(
        name="mixed",
        trainable="exbert",
        dimensions={
            "model.n_layers": Int(3, 6),
            "training.learning_rate": Float(1e-5, 1e-3, log=True),
            "model.dropout_placement": Choice(["none", "before", "after"]),
            "model.moe_dropout": Float(0.05, 0.5, when=Condition("model.dropout_placement", ["before", "after"])),
        },
    )


@pytest.fixture
def small() -> Space:
    """Four layers, and a dropout that only one of two placements has: 4 x (1 + 2) points."""
    return Space(
        name="small",
        trainable="exbert",
        dimensions={
            "model.n_layers": Int(3, 6),
            "model.dropout_placement": Choice(["none", "before"]),
            "model.moe_dropout": Choice([0.1, 0.3], when=Condition("model.dropout_placement", ["before"])),
        },
    )


@pytest.fixture(scope="session")
def plan_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Plan]:
    """A plan of the embedded preset: keywords are settings of its search, `space` may be an object, `set_` are others."""
    storage = tmp_path_factory.mktemp("corpora")
    files = corpora_in(storage)  # once: a plan would make them anew each time, to look whether they are the same
    domains = [f"domains.{name.replace('_', '.')}={path}" for name, path in files.items()]

    @cache
    def planned(*asked: str) -> Plan:
        return plan_search(load_preset("embedded", [*domains, *asked]), storage)

    def plan(*, space: Space | Narrowing | str = "exbert_embedded", set_: Collection[str] = (), **settings: Any) -> Plan:
        given = {"trials": 6, "max_epochs": 4, "reports_per_epoch": 1, "variant": "stopping", **settings}
        if isinstance(space, Narrowing):
            given["strategy"] = "narrowing"
        elif isinstance(space, str):
            given["space"] = space
        asked = [f"search.{name}={value if isinstance(value, str) else str(value).lower()}" for name, value in given.items()]
        from_file = any(each.endswith(".py") for each in asked)  # which may change
        made = (planned.__wrapped__ if from_file else planned)(*set_, *asked)
        if isinstance(space, str):
            return made
        assert made.search is not None
        return replace(made, search=replace(made.search, space=space))

    return plan


def bumpy(trial: Trial, epoch: float) -> float:
    """Best at a learning rate of 6e-4 and few layers, falls with the epochs; curves cross."""
    bump = int(hashlib.sha256(f"{trial.key} {epoch}".encode()).hexdigest()[:6], 16) / 2**24
    distance = abs(math.log10(trial.config.training.learning_rate) + 3.2)
    return distance + trial.config.model.n_layers / 20 + (1 + bump) / epoch


class TrialFailedError(Exception):
    """Raised by a loss: the worker fails at this report, because of its code or as the message says."""


@dataclass
class Worker:
    """One attempt: what it has reported, and where it stands."""

    trial: Trial
    row: dict[str, Any]
    place: int  # reports that are behind it, those of its checkpoint included
    reports: list[dict[str, Any]] = field(default_factory=list)
    pause: str | None = None


class Driver:
    """Drives a search as a run would, with workers that only write rows. Each step is one thing that happens."""

    def __init__(self, plan: Plan, storage: Path, *, slots: int = 1, seed: int = 0, loss: Loss = bumpy, **options: Any) -> None:
        assert plan.search is not None
        (storage / "sweeps").mkdir(parents=True, exist_ok=True)
        self.search = Search(plan, storage, **options)
        self.plan, self.settings, self.storage = plan, plan.search.settings, storage
        self.slots, self.random, self.loss = slots, Random(seed), loss
        self.workers: dict[str, Worker] = {}
        self.handed_out: list[str] = []
        self.shown: list[str] = []
        self.ended: list[tuple[str, str]] = []
        self._seconds = count()
        self._asked_in_vain = False
        run_id = f"{plan.sweep_id}-run{len(list(storage.glob('ledger/decisions/*'))):03d}"
        self.writer = LedgerWriter(storage, 0, lambda _: None)
        self._log = DecisionLog(self.writer, plan, run_id, self.now, next_sequence(storage, plan.sweep_id))

    def now(self) -> datetime:
        return NOW + timedelta(seconds=next(self._seconds))

    def begin(self) -> list[tuple[str, str]]:
        """What the former driver could not end is ended, as a run does; returned for the test."""
        to_end = self.search.begin(self._log, lambda trial: self.shown.append(trial.key))
        for key, reason in to_end:
            self._close(read_attempts(self.storage, key)[-1], "stopped", reason)
            self.search.ended(key, "stopped", reason, None)
        return to_end

    def run(self, after_each_step: Callable[[], object] = lambda: None) -> Driver:
        """To the end."""
        self.begin()
        after_each_step()
        while self.step():
            after_each_step()
        return self

    def step(self) -> bool:
        """Something happens somewhere; False when nothing can happen any more."""
        can_ask = len(self.workers) < self.slots and not self._asked_in_vain
        choices = [*self.workers, *([None] if can_ask else [])]
        if not choices:
            return False
        key = self.random.choice(choices)
        self._asked_in_vain = not self.ask() if key is None else self.advance(key)
        return True

    def ask(self) -> Trial | None:
        """Hands a trial to a worker, which goes on from its newest checkpoint."""
        trial = self.search.next()
        if trial is not None:
            assert trial.key not in self.workers
            self.handed_out.append(trial.key)
            earlier = read_attempts(self.storage, trial.key)
            place = max((row["resumed_step"] + (row["cpu_seconds"] or 0) for row in earlier), default=0)
            ids = {"trial_key": trial.key, "attempt": len(earlier) + 1, "sweep_id": self.plan.sweep_id}
            row = {**ids, "status": "running", "resumed_step": int(place), "started_at": self.now(), "params_active": 1000}
            self.workers[trial.key] = Worker(trial, row, int(place))
            self._write_attempt(self.workers[trial.key].row)
        return trial

    def advance(self, key: str) -> bool:
        """A worker's next report or end; always False, as the work may have something new afterwards."""
        worker = self.workers[key]
        if worker.pause is not None:
            self._end(worker, "stopped", worker.pause)
        elif worker.place == self.settings.max_epochs * self.settings.reports_per_epoch:
            self._end(worker, "completed", None)
        else:
            self._report(worker)
        return False

    def report_unheard(self, key: str) -> None:
        """A worker's next report is in the ledger, and then the driver dies."""
        self._write_report(self.workers[key])

    def fail(self, key: str, why: str) -> None:
        """A worker raises, and the policies allow no further attempt; "diverged" is a class of failure by itself."""
        worker = self.workers[key]
        failure_class = "diverged" if why == "diverged" else "code"
        self._close({**worker.row, "failure_class": failure_class}, "failed", None)
        event = {"trial_key": key, "status": "failed", "happened_at": self.now(), "failure_class": failure_class}
        write_part(self.storage, "events", f"failed-{key}-{worker.row['attempt']}", [event])
        self._let_go(worker, "failed", why, failure_class)

    def kill(self, *, at_checkpoint: bool = True) -> None:
        """All ends at once; the next driver finds attempts of dead workers, closed as lost before it looks at anything."""
        for worker in self.workers.values():
            if not at_checkpoint:  # they go on from one report earlier
                worker.row["cpu_seconds"] = max(0, len(worker.reports) - 1)
            self._close(worker.row, "lost", None)
        self.workers.clear()

    def _report(self, worker: Worker) -> None:
        try:
            shown = self._write_report(worker)
        except TrialFailedError as error:
            self.fail(worker.trial.key, str(error))
            return
        reason = self.search.reported(worker.trial.key, shown)
        if reason is not None:
            self._end(worker, "stopped", reason)

    def _write_report(self, worker: Worker) -> dict[str, Any]:
        epoch = (worker.place + 1) / self.settings.reports_per_epoch
        loss = self.loss(worker.trial, epoch)
        worker.place += 1
        ids = {"trial_key": worker.trial.key, "attempt": worker.row["attempt"], "step": worker.place}
        worker.reports.append({**ids, "epoch": epoch, "val_qa_loss": loss})
        write_part(self.storage, "reports", attempt_part(worker.trial.key, worker.row["attempt"]), worker.reports)
        worker.row |= {"train_seconds": 10.0 * len(worker.reports), "cpu_seconds": len(worker.reports)}
        self._write_attempt(worker.row)
        if self.settings.variant == "promotion":
            before = epoch - 1 / self.settings.reports_per_epoch
            due = [rung for rung in self.settings.rungs if has_reached(epoch, rung) and not has_reached(before, rung)]
            worker.pause = f"{PAUSED} at {due[0]:g})" if due else None
        return {"epoch": epoch, "val_qa_loss": loss}

    def _end(self, worker: Worker, status: str, reason: str | None) -> None:
        self._close(worker.row, status, reason)
        self._let_go(worker, status, reason)

    def _let_go(self, worker: Worker, status: str, reason: str | None, failure_class: str | None = None) -> None:
        del self.workers[worker.trial.key]
        self.ended.append((worker.trial.key, status))
        self.search.ended(worker.trial.key, status, reason, failure_class)

    def _close(self, row: Mapping[str, Any], status: str, reason: str | None) -> None:
        self._write_attempt({**row, "status": status, "stop_reason": reason})

    def _write_attempt(self, row: Mapping[str, Any]) -> None:
        write_part(self.storage, "attempts", attempt_part(row["trial_key"], row["attempt"]), [row])


@pytest.fixture
def driver(tmp_path: Path) -> Callable[..., Driver]:
    """A new driver of the test's storage: `driver(plan, slots=2, seed=1)`."""

    def new(plan: Plan, **options: Any) -> Driver:
        return Driver(plan, options.pop("storage", tmp_path), **options)

    return new


@pytest.fixture
def failed() -> Callable[[str], Exception]:
    """What a loss raises for a worker that fails."""
    return TrialFailedError


@pytest.fixture
def recorded(tmp_path: Path) -> Callable[..., None]:
    """Writes what another sweep's worker left of a trial: `recorded(plan, trial, [3.0, 2.0], "completed")`, a loss a report."""

    def record(plan: Plan, trial: Trial, losses: list[float], status: str = "completed", per_epoch: int = 1) -> None:
        other = replace(plan, kind="grid", trials=(trial,), search=None)
        write_part(tmp_path, "plans", f"{other.sweep_id}-{trial.key}", [plan_row(other, trial, NOW)])
        ids = {"trial_key": trial.key, "attempt": 1}
        rows = [{**ids, "step": n, "epoch": n / per_epoch, "val_qa_loss": loss} for n, loss in enumerate(losses, 1)]
        write_part(tmp_path, "reports", attempt_part(trial.key, 1), rows)
        sizes = {"params_active": 1000, "train_seconds": 10.0 * len(losses), "startup_seconds": 0.0, "cpu_seconds": len(losses)}
        row = {**ids, "status": status, "resumed_step": 0, "started_at": NOW, **sizes}
        write_part(tmp_path, "attempts", attempt_part(trial.key, 1), [row])

    return record


@pytest.fixture
def decisions(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """The recorded decisions of a search, of one kind or all, without what tells of the way to them."""

    def read(plan: Plan, kind: str | None = None, storage: Path = tmp_path) -> list[dict[str, Any]]:
        rows = load_decisions(storage, plan.sweep_id)
        assert [row["sequence"] for row in rows] == list(range(len(rows)))
        way = ("sequence", "run_id", "happened_at", "sweep_id")
        return [{k: v for k, v in row.items() if k not in way} for row in rows if kind in (None, row["kind"])]

    return read


def _plain(told: Told) -> Told:
    """NaN and infinity say the same to every sampler."""
    curve = {epoch: loss if math.isfinite(loss) else math.inf for epoch, loss in told.intermediate.items()}
    return replace(told, intermediate=curve)


@pytest.fixture
def state() -> Callable[[Search], dict[str, Any]]:
    """All that a search goes on from."""

    def describe(search: Search) -> dict[str, Any]:
        number = len(search._tried)
        try:
            suggestion: object = search._proposer.propose(number, search._history)
        except SpaceExhaustedError as error:
            suggestion = str(error)
        tried = {n: (t.trial.key, t.values, t.state, t.reason, t.second) for n, t in search._tried.items()}
        history = [_plain(told) for told in search._history]
        return {
            "tried": tried,
            "curves": {told.number: dict(told.intermediate) for told in (_plain(t.told) for t in search._tried.values())},
            "rungs": search._asha.rung_table(),
            "promotable": search._asha.promotable(),
            "history": history,
            "next": suggestion,
            "done": (search.num_done, search.total),
        }

    return describe
