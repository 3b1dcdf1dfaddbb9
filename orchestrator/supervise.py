"""What the driver looks after once a second, beside the backend: budget, lease, trials that hang, a storage in trouble."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from types import TracebackType

from orchestrator.backend import Backend
from orchestrator.budget import Spent
from orchestrator.errors import LeaseLostError
from orchestrator.lease import Lease, holder_of
from orchestrator.record import RunLog
from orchestrator.recorder import Recorder
from orchestrator.stop import TAKEN_OVER
from orchestrator.worker import trial_lease
from results.storage import open_sweep_storage

__all__ = ["Supervisor"]

_log = logging.getLogger(__name__)

_TICK_SECONDS = 1.0
_TICKS_PER_BEAT = 2


class Supervisor:
    """A thread for as long as the context is open; it only asks to stop, kills what hangs, and speaks."""

    def __init__(
        self,
        recorder: Recorder,
        backend: Backend,
        *,
        lease: Lease,
        run_log: RunLog,
        spent: Spent,
        say: Callable[[str], None],
    ) -> None:
        """`spent`: what earlier runs of the sweep have cost."""
        self._recorder = recorder
        self._backend = backend
        self._lease = lease
        self._run_log = run_log
        self._spent = spent
        self._say = say
        self._ticks_per_look = math.ceil(open_sweep_storage(recorder.settings.storage).look_seconds / _TICK_SECONDS)
        self._said: dict[str, str] = {}  # trial key -> what its worker waits for
        self._trouble = ""  # with the storage
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __enter__(self) -> Supervisor:
        self._run_log.beat()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        ticks = 0
        while not self._done.wait(_TICK_SECONDS):
            ticks += 1
            try:
                self._tick(ticks)
            except Exception:  # whatever one look comes upon, the next ones are needed
                _log.exception("could not look after the run, will try again")

    def _tick(self, ticks: int) -> None:
        self._check_budget()
        self._check_lease()
        self._recorder.stop.renew()
        self._end_overdue()
        if ticks % self._ticks_per_look == 0:
            self._pass_on_notes()
        if self._trouble or ticks % _TICKS_PER_BEAT == 0:
            self._beat()

    def _beat(self) -> None:
        """Renews the run's row, by which trouble with the storage shows."""
        self._run_log.grow(self._backend.slots)
        trouble = self._run_log.beat()
        if bool(trouble) != bool(self._trouble):
            waiting = f"{trouble}; free space or bring it back, and everything goes on by itself"
            self._say(waiting if trouble else "the storage is back; everything goes on")
            for running in list(self._recorder.running.values()):
                running.heard = time.monotonic()  # waiting is not hanging
        self._trouble = trouble

    def _check_budget(self) -> None:
        running = list(self._recorder.running.values())
        now = time.monotonic()
        gpu_seconds = self._recorder.gpu_seconds + sum(now - each.began for each in running) * self._recorder.settings.gpus
        spent = Spent(
            hours=self._spent.hours + self._run_log.wall_seconds / 3600,
            gpu_hours=self._spent.gpu_hours + gpu_seconds / 3600,
        )
        reason = self._recorder.budget.reached(spent)
        if reason is not None:
            self._recorder.stop.request(reason)

    def _check_lease(self) -> None:
        try:
            self._lease.check()
        except LeaseLostError:
            self._recorder.stop.request(TAKEN_OVER)

    def _end_overdue(self) -> None:
        limit = self._recorder.settings.recovery.timeout_seconds
        if limit is None:
            return
        now = time.monotonic()
        for trial_key, running in list(self._recorder.running.items()):
            waits = bool(self._trouble or self._said.get(trial_key))
            if now - running.heard > limit and not self._is_ours(trial_key):  # it waits for another sweep's worker
                running.heard = now
            if now - running.heard > limit and not waits and trial_key not in self._recorder.overdue:
                self._recorder.overdue.add(trial_key)
                self._say(f"{trial_key} has not reported for {limit:g} s; its worker is ended")
                self._backend.kill(trial_key)

    def _is_ours(self, trial_key: str) -> bool:
        holder = holder_of(trial_lease(self._recorder.settings.storage, trial_key), time.time())
        return holder is None or holder.owner == self._recorder.settings.run_id

    def _pass_on_notes(self) -> None:
        """Workers cannot speak to the user, but their leases can."""
        for trial_key, running in list(self._recorder.running.items()):
            holder = holder_of(trial_lease(self._recorder.settings.storage, trial_key), time.time())
            note = "" if holder is None else holder.note
            if note != self._said.get(trial_key, ""):
                self._said[trial_key] = note
                running.heard = time.monotonic()  # waiting is not hanging
                if note and not self._trouble and list(self._said.values()).count(note) == 1:
                    self._say(note)  # one storage, one trouble, one line
