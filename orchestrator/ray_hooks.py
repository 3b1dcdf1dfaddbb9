"""What Ray Tune asks and tells us through its hooks: a callback, a scheduler, a searcher and a stopper.

An exception in a callback would end the whole run of Tune (measured on Ray 2.60), so none leaves ours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler

from orchestrator.backend import Listener
from orchestrator.errors import StorageError, SweepError
from orchestrator.ray_cluster import NodeWatch
from orchestrator.work import Work

__all__ = ["Relay", "Scheduler", "Searcher", "Silence", "StopAll", "key_of"]

_log = logging.getLogger(__name__)


class Relay(tune.Callback):
    """Passes Tune's events on to a listener; its errors are never raised into Tune's loop: one in the storage ends the run."""

    def __init__(self, listener: Listener, watch: NodeWatch) -> None:
        self._listener = listener
        self._nodes = watch
        self.running: set[str] = set()
        self.trouble: SweepError | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles callbacks into its snapshots, which nothing here reads

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.add(key_of(trial))
        self._tell(self._listener.started, trial)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        if "ended" in result:
            self.running.discard(key_of(trial))
            self._tell(self._listener.ended, trial, result["ended"])

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.discard(key_of(trial))
        self._tell(self._listener.errored, trial, *_error_of(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.discard(key_of(trial))
        self._tell(self._listener.errored, trial, *_error_of(trial))

    def goes_on(self, trial: Any, shown: dict[str, Any]) -> bool:
        """Passes a report on; False when the trial is to end with it."""
        goes_on = self._tell(self._listener.reported, trial, shown) is not False
        if not goes_on:
            self.running.discard(key_of(trial))
        return goes_on

    def is_over(self, stop_requested: Callable[[], bool]) -> bool:
        """True when Tune should end: after trouble, and once what runs has come to its end when a stop is requested."""
        try:
            if self._nodes.are_gone():
                raise SweepError("Ray has no node left (killed, or out of memory); run the same command again to go on")
        except SweepError as error:
            self.trouble = error
        return self.trouble is not None or (stop_requested() and not self.running)

    def _tell(self, hear: Callable[..., object], trial: Any, *what: Any) -> object:
        """What the listener answers; None where it could not even be told."""
        try:
            return hear(key_of(trial), *what)
        except StorageError as error:
            self.trouble = error
        except Exception:
            _log.exception("could not record what happened to trial %s", key_of(trial))
        return None


class Silence(TrialProgressCallback):
    """In place of Tune's own printing: told to print nothing, it still writes a text for each result and keeps every trial."""

    def log_result(self, trial: Trial, result: dict[str, Any], error: bool = False) -> None:
        """Called for each result, and each error."""

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Prints nothing."""


class Scheduler(FIFOScheduler):
    """Ends trials as the listener says, and lets those go first that were under way already."""

    def __init__(self, relay: Relay) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._relay = relay
        self._interrupted: set[str] = set()  # Tune's own ids

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._interrupted.add(trial.trial_id)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The trial that gets the next free worker: Tune by itself puts one whose node died behind all that have not begun."""
        _forget_ended(tune_controller)  # here Tune is between two events
        pending = (trial for trial in tune_controller.get_trials() if trial.status == Trial.PENDING)
        if not self._interrupted:  # Tune asks all the time, and goes through all trials in vain at each
            return next(pending, None)
        waiting = list(pending)
        return next((trial for trial in waiting if trial.trial_id in self._interrupted), next(iter(waiting), None))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        # Tune has flattened the result: shown/epoch and so on.
        shown = {name.removeprefix("shown/"): value for name, value in result.items() if name.startswith("shown/")}
        if self._relay.goes_on(trial, shown):
            return str(self.CONTINUE)
        if trial.temporary_state.ray_actor is not None:  # Tune may keep the actor for later: its trial is to be let go of now
            trial.temporary_state.ray_actor.cleanup.remote()
        return str(self.STOP)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # see Relay


class Searcher(tune.search.Searcher):
    """Hands out trials one by one, as the work finds them."""

    def __init__(self, work: Work, relay: Relay, stop_requested: Callable[[], bool], room: Callable[[], int]) -> None:
        """`room`: how many trials may be under way, as of now."""
        super().__init__()
        self._work = work
        self._relay = relay
        self._stop_requested = stop_requested
        self._room = room
        self._out: set[str] = set()  # Tune's own ids

    def suggest(self, trial_id: str) -> Any:
        """A trial's configuration; None: not now; FINISHED: never again."""
        if len(self._out) >= self._room():
            return None
        is_over = self._stop_requested() or self._relay.trouble
        try:
            trial = None if is_over else self._work.next()
        except SweepError as error:
            self._relay.trouble, trial = error, None
        if trial is None:
            return None if self._out else str(self.FINISHED)
        self._out.add(trial_id)
        return {"trial": trial.to_json()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._out.discard(trial_id)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # see Relay

    def save(self, checkpoint_path: str) -> None:
        """Nothing reads Tune's snapshots."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""


class StopAll(tune.Stopper):
    """Ends the run of Tune, with the trials that it has not begun."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        self._is_over = is_over

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._is_over()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # see Relay


_ENDED_KEPT = 100
"""Ended trials that Tune may have: the last ones, which it may still be letting go of."""


def _forget_ended(tune_controller: Any) -> None:
    """Takes trials that have ended long ago out of Tune, which has no way to (`ray/tune/execution/tune_controller.py`, 2.60).

    It keeps some 60 kB of each as long as it runs, goes through all of them at each event, and writes them all at its end.
    """
    trials = tune_controller.get_trials()
    ended = [trial for trial in trials if trial.is_finished()]
    if len(ended) < 2 * _ENDED_KEPT:
        return
    forgotten = set(ended[:-_ENDED_KEPT])
    trials[:] = (trial for trial in trials if trial not in forgotten)  # Tune's own list
    controller = tune_controller._tune_controller
    for kept in (controller._stopped_trials, controller._failed_trials, controller._trials_to_cache):
        kept.difference_update(forgotten)


def key_of(trial: Any) -> str:
    """Our key of one of Tune's trials."""
    key: str = trial.config["trial"]["key"]
    return key


def _error_of(trial: Any) -> tuple[str, str]:
    """The exception's class and text. Read where the driver wrote it: the copy that Tune's accessors read comes later."""
    try:
        error = ray.cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    except Exception:  # an exception that cannot be unpickled here still has its text
        return "TrialError", Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else "unknown error"
    return type(getattr(error, "cause", None) or error).__name__, str(error)
