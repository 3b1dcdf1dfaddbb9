"""Runs trials on Ray Tune: the only module that knows Ray. Call `set_ray_environment` before importing it.

What is avoided, and why (measured on Ray 2.60): `Tuner.restore` can lose a sweep silently, so every run starts a fresh `Tuner`
on what the ledger lacks; the automatic loggers double the time to a first result and drop late metrics; an exception in a
callback would end the whole run, so none leaves ours.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler

from orchestrator.backend import Listener
from orchestrator.errors import InfeasibleError, StorageError, SweepError
from orchestrator.lease import holder_of
from orchestrator.machine import num_cpus
from orchestrator.preset import Resources
from orchestrator.stop import notice_sigterm, sigterm_noticed
from orchestrator.trial import Trial
from orchestrator.work import Work
from orchestrator.worker import Attempt, Ended, RunSettings, trial_lease

__all__ = ["RayBackend", "check_storage_is_shared", "ray_session"]

_log = logging.getLogger(__name__)
_MAX_RESTARTS = 100
"""Of one trial in one run of Tune, should our own policies ever fail to end it."""

_NODES_GONE_SECONDS = 20.0

_OBJECT_STORE_BYTES = 100 * 1024**2  # no data goes through Ray; its least is 75 MiB


class TrialActor(tune.Trainable):
    """Drives attempts, one after the other in a process that keeps its imports and caches.

    The attempt is claimed at the first step: Tune may start an actor for a trial, then hand the trial to an idle actor and drop
    the new one, which must leave no trace in the ledger.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Holds the first trial of this process."""
        self._attempt: Attempt | None = None
        age = max(0.0, time.time() - psutil.Process().create_time())  # of this process
        self._launched_at = time.monotonic() - age
        notice_sigterm(lambda: self._attempt is not None)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Holds the next trial."""
        self.cleanup()
        self._launched_at = time.monotonic()
        return True

    def step(self) -> dict[str, Any]:
        """One report, already in the ledger; at the end, how it ended.

        Raises:
            WorkerPreemptedError: this process was told to end; the trial goes on in another.
        """
        if self._attempt is None:
            self._attempt = Attempt(Trial.from_json(self.config["trial"]), self.config["settings"], self._launched_at)
        result = self._attempt.advance()
        if not isinstance(result, Ended):
            return {"shown": result}
        self.cleanup()
        if sigterm_noticed() and result.status != "completed":
            raise WorkerPreemptedError("the worker was told to end (SIGTERM)")
        return {"done": True, "ended": result}

    def cleanup(self) -> None:
        """Closes the attempt, also one that Tune stops early."""
        if self._attempt is not None:
            self._attempt.close()
            self._attempt = None


class WorkerPreemptedError(Exception):
    """A worker was told to end; its trial has made a checkpoint."""


class _Relay(tune.Callback):
    """Passes Tune's events on to a listener; its errors are never raised into Tune's loop: one in the storage ends the run."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._nodes = _NodeWatch(time.monotonic)
        self.running: set[str] = set()
        self.trouble: SweepError | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles callbacks into its snapshots, which nothing here reads

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.add(_key_of(trial))
        self._tell(self._listener.started, trial)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        if "ended" in result:
            self.running.discard(_key_of(trial))
            self._tell(self._listener.ended, trial, result["ended"])

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.discard(_key_of(trial))
        self._tell(self._listener.errored, trial, *_error_of(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.discard(_key_of(trial))
        self._tell(self._listener.errored, trial, *_error_of(trial))

    def goes_on(self, trial: Any, shown: dict[str, Any]) -> bool:
        """Passes a report on; False when the trial is to end with it."""
        goes_on = self._tell(self._listener.reported, trial, shown) is not False
        if not goes_on:
            self.running.discard(_key_of(trial))
        return goes_on

    def is_over(self, stop_requested: Callable[[], bool]) -> bool:
        """True when Tune should end: after trouble, and once what runs has come to its end when a stop is requested."""
        if self._nodes.are_gone():
            self.trouble = SweepError("Ray has no node left (killed, or out of memory); run the same command again to go on")
        return self.trouble is not None or (stop_requested() and not self.running)

    def _tell(self, hear: Callable[..., object], trial: Any, *what: Any) -> object:
        """What the listener answers; None where it could not even be told."""
        try:
            return hear(_key_of(trial), *what)
        except StorageError as error:
            self.trouble = error
        except Exception:
            _log.exception("could not record what happened to trial %s", _key_of(trial))
        return None


class _Scheduler(FIFOScheduler):
    """Ends trials as the listener says."""

    def __init__(self, relay: _Relay) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._relay = relay

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        # Tune has flattened the result: shown/epoch and so on.
        shown = {name.removeprefix("shown/"): value for name, value in result.items() if name.startswith("shown/")}
        if self._relay.goes_on(trial, shown):
            return str(self.CONTINUE)
        if trial.temporary_state.ray_actor is not None:  # Tune may keep the actor for later: its trial is to be let go of now
            trial.temporary_state.ray_actor.cleanup.remote()
        return str(self.STOP)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # see _Relay


class _Searcher(tune.search.Searcher):
    """Hands out trials one by one, as the work finds them."""

    def __init__(self, work: Work, relay: _Relay, stop_requested: Callable[[], bool]) -> None:
        super().__init__()
        self._work = work
        self._relay = relay
        self._stop_requested = stop_requested
        self._out: set[str] = set()  # Tune's own ids

    def suggest(self, trial_id: str) -> Any:
        """A trial's configuration; None: not now; FINISHED: never again."""
        try:
            trial = None if self._stop_requested() or self._relay.trouble else self._work.next()
        except SweepError as error:
            self._relay.trouble, trial = error, None
        if trial is None:
            return None if self._out else str(self.FINISHED)
        self._out.add(trial_id)
        return {"trial": trial.to_json()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self._out.discard(trial_id)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # see _Relay

    def save(self, checkpoint_path: str) -> None:
        """Nothing reads Tune's snapshots."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""


def _key_of(trial: Any) -> str:
    key: str = trial.config["trial"]["key"]
    return key


def _error_of(trial: Any) -> tuple[str, str]:
    """The exception's class and text. Read where the driver wrote it: the copy that Tune's accessors read comes later."""
    try:
        error = ray.cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    except Exception:  # an exception that cannot be unpickled here still has its text
        return "TrialError", Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else "unknown error"
    return type(getattr(error, "cause", None) or error).__name__, str(error)


class _NodeWatch:
    """Notices that no node is left: Tune would wait for one for ever."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._looked_at = self._seen_at = clock()

    def are_gone(self) -> bool:
        """True when there has been no node for `_NODES_GONE_SECONDS`; asks Ray now and then only."""
        now = self._clock()
        if now - self._looked_at > _NODES_GONE_SECONDS / 4:
            self._looked_at = now
            if _nodes():
                self._seen_at = now
        return self._looked_at - self._seen_at > _NODES_GONE_SECONDS


class _StopAll(tune.Stopper):
    """Ends the run of Tune, with the trials that it has not begun."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        self._is_over = is_over

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._is_over()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # see _Relay


class RayBackend:
    """Runs trials on the Ray that `ray_session` has started or joined."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    @property
    def gpus_per_trial(self) -> float:
        """See `orchestrator.backend.Backend`; `auto` is one GPU where there are any."""
        asked = self._resources.gpus_per_trial
        gpus = float(min(max(node.get("GPU", 0) for node in _node_resources()), 1)) if asked == "auto" else float(asked)
        if not sum(self._fitting(gpus)):
            have = "; ".join(
                f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs and {node.get('memory', 0) / 1024**3:.1f} GiB"
                for node in _node_resources()
            )
            memory = self._resources.memory_gib_per_trial
            asked_memory = "" if memory is None else f" and {memory:g} GiB"
            raise InfeasibleError(
                f"a trial asks for {self._resources.cpus_per_trial} CPUs and {gpus:g} GPUs{asked_memory}, and the nodes have "
                f"{have}; lower resources.cpus_per_trial, resources.gpus_per_trial or resources.memory_gib_per_trial"
            )
        return gpus

    @property
    def slots(self) -> int:
        """See `orchestrator.backend.Backend`; of the nodes there are now."""
        fitting = sum(self._fitting(self.gpus_per_trial))
        return min(fitting, self._resources.max_concurrent or fitting)

    def _fitting(self, gpus: float) -> list[int]:
        """How many trials each node holds."""
        by_cpu = [int(node.get("CPU", 0) / self._resources.cpus_per_trial) for node in _node_resources()]
        by_gpu = [
            int(node.get("GPU", 0) / gpus + 1e-9) if gpus else cpus
            for node, cpus in zip(_node_resources(), by_cpu, strict=True)
        ]
        memory = self._resources.memory_bytes
        by_memory = [
            int(node.get("memory", 0) / memory) if memory else cpus
            for node, cpus in zip(_node_resources(), by_cpu, strict=True)
        ]
        return [min(each) for each in zip(by_cpu, by_gpu, by_memory, strict=True)]

    def run(self, work: Work, settings: RunSettings, listener: Listener, stop_requested: Callable[[], bool]) -> None:
        """See `orchestrator.backend.Backend.run`."""
        check_storage_is_shared(settings.storage)
        self._settings = settings
        scratch = Path(tempfile.mkdtemp(prefix="tune-"))
        relay = _Relay(listener)
        known = work.known
        which: dict[str, Any] = {}
        if known is None:
            searcher = _Searcher(work, relay, stop_requested)
            which = {"search_alg": searcher, "num_samples": -1, "max_concurrent_trials": self.slots}
        else:
            which = {"max_concurrent_trials": self._resources.max_concurrent or 0}
        tuner = tune.Tuner(
            tune.with_resources(TrialActor, self._request(settings)),
            param_space={"settings": settings}
            | ({"trial": tune.grid_search([each.to_json() for each in known])} if known else {}),
            tune_config=tune.TuneConfig(
                scheduler=_Scheduler(relay),
                reuse_actors=True,
                trial_dirname_creator=_key_of,
                trial_name_creator=_key_of,
                **which,
            ),
            run_config=tune.RunConfig(
                name=settings.sweep_id,
                storage_path=str(scratch),
                # Whether a trial is tried again is our policy: a worker that finds no attempt left ends its trial.
                failure_config=tune.FailureConfig(max_failures=_MAX_RESTARTS),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # trainables write their own
                callbacks=[relay],
                stop=_StopAll(lambda: relay.is_over(stop_requested)),
                verbose=0,
            ),
        )
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        try:
            ended = tuner.fit()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if relay.trouble is not None:
            raise relay.trouble
        if known is not None and not stop_requested():
            _check_all_ran({trial.key for trial in known}, [(ended[i].config or {})["trial"]["key"] for i in range(len(ended))])

    def _request(self, settings: RunSettings) -> dict[str, float]:
        """What Ray sets aside for a trial."""
        memory = {} if settings.memory_bytes is None else {"memory": float(settings.memory_bytes)}
        return {"cpu": settings.cpus, "gpu": settings.gpus, **memory}

    def kill(self, trial_key: str) -> None:
        """See `orchestrator.backend.Backend.kill`: asks every node whether it has the process that holds the trial's lease."""
        holder = holder_of(trial_lease(self._settings.storage, trial_key), time.time())
        if holder is not None and holder.owner == self._settings.run_id:
            _on_nodes(lambda: holder.end(), [node["NodeID"] for node in _nodes()])


def _check_all_ran(planned: set[str], ran: list[str]) -> None:
    if sorted(ran) != sorted(planned):
        raise SweepError(f"Ray Tune ran {len(ran)} trials where {len(planned)} were planned; run the same command again")


def _on_nodes(call: Callable[[], bool], node_ids: list[str]) -> list[bool]:
    """What `call` returns on each of the nodes."""
    pinned = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    task = ray.remote(num_cpus=0)(call)
    results: list[bool] = ray.get(
        [task.options(scheduling_strategy=pinned(node_id, soft=False)).remote() for node_id in node_ids]
    )
    return results


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _node_resources() -> list[dict[str, float]]:
    return [node["Resources"] for node in _nodes()]


def check_storage_is_shared(storage: Path) -> None:
    """Looks from every node for a file that the driver writes.

    Raises:
        SweepError: some node does not see the storage.
    """
    here = ray.get_runtime_context().get_node_id()
    others = [node["NodeID"] for node in _nodes() if node["NodeID"] != here]
    if not others:
        return
    marker = storage / f".seen-{os.getpid()}"
    marker.touch()
    try:
        seen = _on_nodes(lambda: marker.exists(), others)
    finally:
        marker.unlink()
    if not all(seen):
        blind = f"{seen.count(False)} of {len(seen)} other nodes do not see it"
        raise SweepError(f"storage {storage} is not shared: {blind}; name a folder that is mounted on every node")


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Joins the cluster at `address`, or starts a local Ray and stops it at the end."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address:
        ray.init(address=address, **quiet)
    else:
        ray.init(
            address="local", num_cpus=num_cpus(), object_store_memory=_OBJECT_STORE_BYTES, include_dashboard=False, **quiet
        )
    try:
        yield
    finally:
        ray.shutdown()
