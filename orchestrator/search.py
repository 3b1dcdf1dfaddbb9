"""A search as work for a run: it suggests trials, judges their reports, and can be rebuilt from what it has decided.

Each decision is in the ledger before anything follows from it. A search that is rebuilt hears its own decisions again in
their order, and then what its trials reported after the last of them; so it goes on as if it had never been interrupted.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.asha import Action, Asha, Decision, has_reached
from orchestrator.decisions import DecisionLog, load_decisions, suggested_trials
from orchestrator.errors import SweepError
from orchestrator.failures import FailureClass
from orchestrator.plan import Plan
from orchestrator.proposals import proposer_of
from orchestrator.standing import statuses
from orchestrator.stop import PAUSED
from orchestrator.study import SpaceExhaustedError, State, Told
from orchestrator.trial import Trial
from orchestrator.warm_start import fitting_trials, warm
from results.ledger import Ledger
from results.parts import read_attempts
from results.storage import StorageLike
from search_spaces.space import Value

__all__ = ["Search"]

STOPPED = "asha"

_RECORDED = """
    SELECT status, (SELECT list({epoch: epoch, loss: val_qa_loss} ORDER BY step) FROM reports
                    WHERE trial_key = $key AND val_qa_loss IS NOT NULL) AS curve,
           train_seconds, params_active
    FROM trials WHERE trial_key = $key
"""


_LOST = """
    SELECT trial_key FROM attempts GROUP BY trial_key
    HAVING arg_max(status, attempt) = 'lost' AND arg_max(sweep_id, attempt) = $sweep_id
"""


@dataclass
class _Tried:
    """A trial of the search as far as the search has heard."""

    number: int
    trial: Trial
    values: Mapping[str, Value]
    state: State = "running"
    reason: str | None = None  # of a stop or pause
    curve: dict[float, float] = field(default_factory=dict)  # epoch -> val_qa_loss
    second: float | None = None  # the second objective, once completed

    @property
    def heard(self) -> float:
        """Epochs up to which its reports are known."""
        return max(self.curve, default=0.0)

    @property
    def told(self) -> Told:
        """What the sampler is told."""
        value = self.curve[self.heard] if self.state == "completed" and self.curve else None
        return Told(self.number, self.values, self.state, dict(self.curve), value, self.second)


class Search:
    """Hands out the trials of one search. See `Work`."""

    def __init__(self, plan: Plan, storage: StorageLike, retry: Collection[str] = ()) -> None:
        """Rebuilds the search of `plan` from the ledger. `retry`: keys of failed trials to try again.

        Raises:
            SweepError: this version of the program would have decided otherwise.
        """
        assert plan.search is not None
        self._spec = plan.search
        self._sweep_id = plan.sweep_id
        self._storage = storage
        self._proposer = proposer_of(self._spec)
        settings = self._spec.settings
        max_epochs = float(settings.max_epochs)
        self._asha = Asha(settings.grace if settings.rungs else max_epochs, settings.eta, max_epochs, settings.variant)
        self._tried: dict[int, _Tried] = {}
        self._history: list[Told] = []  # in the order of arrival
        self._waiting: deque[_Tried] = deque()  # to be handed out before anything new
        self._out: dict[str, _Tried] = {}  # by trial key
        self._set_aside: set[int] = set()  # not to be tried again in this run
        self._unsaid: set[int] = set()  # decided to be ended, by a driver that died before it could say so
        self._is_blocked = False  # what comes next depends on a trial that was set aside
        self._show: Callable[[Trial], None] = lambda _: None
        self._rows = load_decisions(storage, plan.sweep_id)
        self._rebuild(retry)
        self._unsaid |= self._lost(self._tried.values())
        self.total = self._most = max(self._spec.num_trials, len(self._tried))
        if self._spec.space.size is not None and self._tried and not self._running():
            self._look_ahead()

    @property
    def known(self) -> None:
        """See `Work.known`: what comes next follows from what is reported."""
        return None

    @property
    def waits(self) -> bool:
        """See `Work.waits`: trials of a search have no parents."""
        return False

    @property
    def num_left(self) -> int:
        """See `Work.num_left`."""
        promotable = self._spec.settings.variant == "promotion" and self._asha.promotable() is not None
        to_run = max(0, self._most - len(self._tried)) + len(self._running()) + promotable
        return len(self._unsaid) + (0 if self._is_blocked else to_run)

    @property
    def num_done(self) -> int:
        """See `Work.num_done`: also the paused ones are done, unless more reports take them up again."""
        return sum(
            tried.state in ("completed", "stopped") and number not in self._unsaid for number, tried in self._tried.items()
        )

    @property
    def num_stopped_early(self) -> int:
        """See `Work.num_stopped_early`."""
        return sum(tried.state == "stopped" for tried in self._tried.values())

    def limit(self, num_trials: int) -> None:
        """See `Work.limit`: those that were begun before come first."""
        running = self._running()
        self._set_aside |= set(running[num_trials:])
        self._most = min(self._most, len(self._tried) + max(0, num_trials - len(running)))

    def begin(self, log: DecisionLog, show: Callable[[Trial], None]) -> list[tuple[str, str]]:
        """See `Work.begin`."""
        self._log, self._show = log, show
        if self._spec.settings.warm_start and all(row["kind"] == "warm" for row in self._rows):
            self._warm_up()
        begun = [tried for tried in self._tried.values() if tried.state == "running"]
        for tried in begun:
            self._log.plan_trial(tried.number, tried.trial)
            self._catch_up(tried)
        self._unsaid |= self._lost(begun)
        to_end = []
        for tried in self._tried.values():
            if tried.state == "running" and tried.number not in self._set_aside:
                self._waiting.append(tried)
            elif tried.number in self._unsaid:
                self._show(tried.trial)
                to_end.append((tried.trial.key, str(tried.reason)))
        self._unsaid.clear()
        return to_end

    def next(self) -> Trial | None:
        """See `Work.next`."""
        tried = self._next()
        if tried is None:
            self._is_blocked = not self._out
            return None
        self._out[tried.trial.key] = tried
        self._show(tried.trial)
        return tried.trial

    def reported(self, trial_key: str, shown: dict[str, Any]) -> str | None:
        """See `Work.reported`."""
        if trial_key not in self._out or shown["val_qa_loss"] is None:
            return None
        tried = self._out[trial_key]
        if shown["epoch"] > tried.heard + 1.5 / self._spec.settings.reports_per_epoch:
            self._catch_up(tried)  # its worker goes on where another sweep's has left off
            return tried.reason
        decision = self._hear(tried, shown["epoch"], shown["val_qa_loss"])
        return tried.reason if decision.action is Action.STOP else None

    def ended(self, trial_key: str, status: str, reason: str | None, failure_class: str | None) -> None:
        """See `Work.ended`."""
        tried = self._out.pop(trial_key, None)
        if tried is None:
            return
        if status == "completed" and not has_reached(tried.heard, self._spec.settings.max_epochs):
            self._catch_up(tried)  # another sweep has run it while its worker waited
        elif status in ("completed", "failed"):
            if failure_class == FailureClass.diverged:  # comes to the rung that it was heading for, as the worst there
                self._hear(tried, tried.heard + 1 / self._spec.settings.reports_per_epoch, math.inf)
            self._end(tried, status)
        elif tried.state == "running" and (reason or "").startswith(PAUSED):
            self._waiting.append(tried)  # promoted meanwhile, or paused once more where it had been promoted before
        elif tried.state == "running":
            self._set_aside.add(tried.number)

    def hand_out_again(self) -> None:
        """See `Work.hand_out_again`."""
        self._waiting.extend(tried for tried in self._out.values() if tried.state == "running")
        self._out.clear()

    # --- deciding

    def _look_ahead(self) -> None:
        """Of a space with an end: whether anything is left in it, so that nothing is started for nothing."""
        if len(self._tried) < self._most:
            try:
                self._proposer.propose(len(self._tried), self._history)
            except SpaceExhaustedError:
                self.total = self._most = len(self._tried)
            except SweepError:
                self._is_blocked = True

    def _running(self) -> list[int]:
        return [number for number, tried in self._tried.items() if tried.state == "running" and number not in self._set_aside]

    def _next(self) -> _Tried | None:
        if self._waiting:
            return self._waiting.popleft()
        while True:  # until a trial has to be trained: what the ledger knows is heard at once, and may promote others
            promoted = self._promote()
            if promoted is None and len(self._tried) >= self._most:
                return None
            if promoted is None:
                suggested = self._suggest(len(self._tried))
                if suggested is None or suggested.state == "running":
                    return suggested
            elif promoted.state == "running" and promoted.trial.key not in self._out:
                return promoted

    def _promote(self) -> _Tried | None:
        """The paused trial to take up again; one whose worker has not let go of it yet, or that has ended, may come too."""
        number = self._asha.next_promotion() if self._spec.settings.variant == "promotion" else None
        if number is None:
            return None
        tried = self._tried[int(number)]
        self._log.add("promoted", tried.number, tried.trial.key)
        if tried.state == "stopped":  # else it has failed at its pause
            self._become(tried, "running")
            self._catch_up(tried)
        return tried

    def _suggest(self, number: int) -> _Tried | None:
        """A new trial; where the ledger has all of it already, it has ended with that. None: not yet, or no more."""
        try:
            proposal = self._proposer.propose(number, self._history)
        except SpaceExhaustedError:
            self.total = self._most = len(self._tried)
            return None
        if proposal is None:
            return None
        trial = self._spec.trial_at(proposal.values, number)
        parent = None if proposal.parent is None else self._tried[proposal.parent].trial.key
        self._log.suggest(number, trial, proposal.values, proposal.stage, parent)
        tried = self._add(number, trial, proposal.values)
        self._catch_up(tried)
        return tried

    def _add(self, number: int, trial: Trial, values: Mapping[str, Value]) -> _Tried:
        tried = self._tried[number] = _Tried(number, trial, values)
        self._history.append(tried.told)
        return tried

    def _hear(self, tried: _Tried, epoch: float, loss: float) -> Decision:
        """The decision on a report; one that was heard before gets the same answer and leaves no further trace."""
        is_new = epoch > tried.heard
        decision = self._asha.report(str(tried.number), epoch, loss)
        if is_new:
            value = loss if math.isfinite(loss) else None
            columns = {"epoch": epoch, "value": value, "action": decision.action.value, "rung": decision.rung}
            reason = _why(decision) if decision.action is Action.STOP else None
            self._log.add("judged", tried.number, tried.trial.key, **columns, reason=reason)
            self._note(tried, epoch, loss, decision)
        return decision

    def _note(self, tried: _Tried, epoch: float, loss: float, decision: Decision) -> None:
        tried.curve[epoch] = loss
        if decision.action in (Action.STOP, Action.PAUSE):
            tried.reason = _why(decision)
            self._become(tried, "stopped")

    def _end(self, tried: _Tried, status: str) -> None:
        if status == "completed":
            tried.second = self._second(tried.trial.key)
        value = tried.curve.get(tried.heard) if status == "completed" else None
        self._log.add("ended", tried.number, tried.trial.key, action=status, value=value)
        self._become(tried, "completed" if status == "completed" else "failed")

    def _become(self, tried: _Tried, state: State) -> None:
        tried.state = state
        if state != "stopped":
            tried.reason = None
        self._history.append(tried.told)

    # --- what the ledger knows

    def _rebuild(self, retry: Collection[str]) -> None:
        """Hears the recorded decisions again."""
        if [row["sequence"] for row in self._rows] != list(range(len(self._rows))):
            raise SweepError(
                f"decisions of {self._sweep_id} are missing from the ledger, so it cannot be gone on with; "
                "`python -m results verify` says which parts are damaged, another --seed starts it anew"
            )
        trials = suggested_trials(self._spec, self._rows)
        for row in self._rows:
            self._replay(row, trials)
        failed = {each.trial.key: each for each in self._tried.values() if each.state == "failed"}
        known = statuses(self._storage, failed) if failed else {}
        for key, each in failed.items():
            if key in retry or not known[key].is_failed:  # a retry that was interrupted is gone on with
                self._become(each, "running")

    def _replay(self, row: Mapping[str, Any], trials: Mapping[int, Trial]) -> None:
        number, kind = row["number"], row["kind"]
        if kind == "warm":
            told = warm(json.loads(row["parameters"]), row["epoch"], row["value"], self._spec.settings.max_epochs)
            self._history.append(replace(told, number=number, second=self._second(row["trial_key"])))
        elif kind == "suggested":
            self._add(number, trials[number], json.loads(row["parameters"]))
        elif kind == "judged":
            loss = math.inf if row["value"] is None else row["value"]
            decision = self._asha.report(str(number), row["epoch"], loss)
            if decision.action.value != row["action"]:
                raise SweepError(
                    f"this version decides on trial {number} of {row['sweep_id']} at epoch {row['epoch']:g} to "
                    f"{decision.action.value}, where {row['action']} is recorded; start the search anew with another --seed"
                )
            self._note(self._tried[number], row["epoch"], loss, decision)
        elif kind == "promoted":
            self._asha.promote(str(number))
            if self._tried[number].state == "stopped":
                self._become(self._tried[number], "running")
        else:
            tried = self._tried[number]
            if row["action"] == "completed":
                tried.second = self._second(row["trial_key"])
            self._become(tried, row["action"])

    def _catch_up(self, tried: _Tried) -> None:
        """Hears what the ledger has of the trial: recorded before its driver died, or by another sweep."""
        if not read_attempts(self._storage, tried.trial.key):
            return
        recorded = self._recorded(tried.trial.key)
        for report in recorded["curve"] or ():
            if report["epoch"] > tried.heard:
                self._hear(tried, report["epoch"], report["loss"])
            if tried.state == "stopped":
                return
        if recorded["status"] == "completed":
            self._end(tried, "completed")

    def _second(self, trial_key: str) -> float | None:
        """The second objective of a completed trial, where the search has one."""
        objectives = self._spec.settings.objectives
        return None if len(objectives) < 2 else float(self._recorded(trial_key)[objectives[1]])

    def _recorded(self, trial_key: str) -> dict[str, Any]:
        rows = Ledger(self._storage, must_exist=False).sql(_RECORDED, {"key": trial_key}).to_pylist()
        return rows[0] if rows else {"status": "planned", "curve": None}

    def _lost(self, among: Iterable[_Tried]) -> set[int]:
        """Numbers of the trials that are to end for a reason that their attempts do not know of."""
        ended = {tried.trial.key: tried.number for tried in among if tried.state != "running" and tried.reason is not None}
        if not ended:
            return set()
        rows = Ledger(self._storage, must_exist=False).sql(_LOST, {"sweep_id": self._sweep_id}).to_pylist()
        return {ended[row["trial_key"]] for row in rows if row["trial_key"] in ended}

    def _warm_up(self) -> None:
        """Tells the sampler of completed trials that are points of the space."""
        known = {row["trial_key"] for row in self._rows}  # its driver may have died on the way
        fresh = [(key, told) for key, told in fitting_trials(self._spec, self._storage) if key not in known]
        for number, (key, told) in enumerate(fresh, len(known) + 1):
            [(epoch, value)] = told.intermediate.items()
            self._log.add("warm", -number, key, parameters=json.dumps(dict(told.values)), epoch=epoch, value=value)
            self._history.append(replace(told, number=-number))


def _why(decision: Decision) -> str:
    if decision.action is Action.PAUSE:
        return f"{PAUSED} at {decision.rung:g})"
    return STOPPED + (f" (rung {decision.rung:g})" if decision.rung is not None else f" ({decision.reason})")
