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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import ray
from ray import tune

from orchestrator.backend import Listener
from orchestrator.errors import InfeasibleError, SweepError
from orchestrator.machine import num_cpus
from orchestrator.preset import Resources
from orchestrator.trial import Trial
from orchestrator.worker import Attempt, RunSettings

__all__ = ["RayBackend", "check_storage_is_shared", "ray_session"]

_log = logging.getLogger(__name__)
_OBJECT_STORE_BYTES = 100 * 1024**2  # no data goes through Ray; its least is 75 MiB


class TrialActor(tune.Trainable):
    """Drives attempts, one after the other in a process that keeps its imports and caches.

    The attempt is claimed at the first step: Tune may start an actor for a trial, then hand the trial to an idle actor and drop
    the new one, which must leave no trace in the ledger.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Holds the first trial of this process."""
        self._attempt: Attempt | None = None
        self._launched_at = psutil.Process().create_time()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Holds the next trial."""
        self.cleanup()
        self._launched_at = time.time()
        return True

    def step(self) -> dict[str, Any]:
        """One report, already in the ledger; at the end, `done`."""
        if self._attempt is None:
            self._attempt = Attempt(Trial.from_json(self.config["trial"]), self.config["settings"], self._launched_at)
        shown = self._attempt.advance()
        return {"done": True} if shown is None else {"shown": shown}

    def cleanup(self) -> None:
        """Closes the attempt, also one that Tune stops early."""
        if self._attempt is not None:
            self._attempt.close()
            self._attempt = None


class _Relay(tune.Callback):
    """Passes Tune's events on to a listener; its errors are logged, never raised into Tune's loop."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles callbacks into its snapshots, which nothing here reads

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._tell(self._listener.started, trial)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        if "shown" in result:
            self._tell(self._listener.reported, trial, result["shown"])

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._tell(self._listener.retrying, trial, *_error_of(trial))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._tell(self._listener.completed, trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._tell(self._listener.failed, trial, *_error_of(trial))

    @staticmethod
    def _tell(hear: Callable[..., None], trial: Any, *what: Any) -> None:
        try:
            hear(_key_of(trial), *what)
        except Exception:
            _log.exception("could not record what happened to trial %s", _key_of(trial))


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
            have = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in _node_resources())
            raise InfeasibleError(
                f"a trial asks for {self._resources.cpus_per_trial} CPUs and {gpus:g} GPUs, and the nodes have {have}; "
                "lower resources.cpus_per_trial or resources.gpus_per_trial"
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
        return [min(pair) for pair in zip(by_cpu, by_gpu, strict=True)]

    def run(self, trials: Sequence[Trial], settings: RunSettings, listener: Listener, *, max_retries: int) -> None:
        """See `orchestrator.backend.Backend.run`."""
        check_storage_is_shared(settings.storage)
        actor = tune.with_resources(TrialActor, {"cpu": settings.cpus, "gpu": settings.gpus})
        scratch = Path(tempfile.mkdtemp(prefix="tune-"))
        tuner = tune.Tuner(
            actor,
            param_space={"trial": tune.grid_search([trial.to_json() for trial in trials]), "settings": settings},
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                max_concurrent_trials=self._resources.max_concurrent or 0,
                trial_dirname_creator=_key_of,
                trial_name_creator=_key_of,
            ),
            run_config=tune.RunConfig(
                name=settings.sweep_id,
                storage_path=str(scratch),
                failure_config=tune.FailureConfig(max_failures=max_retries),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # trainables write their own
                callbacks=[_Relay(listener)],
                verbose=0,
            ),
        )
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        try:
            ended = tuner.fit()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        _check_all_ran({trial.key for trial in trials}, [(ended[i].config or {})["trial"]["key"] for i in range(len(ended))])


def _check_all_ran(planned: set[str], ran: list[str]) -> None:
    if sorted(ran) != sorted(planned):
        raise SweepError(f"Ray Tune ran {len(ran)} trials where {len(planned)} were planned; run the same command again")


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
    see = ray.remote(num_cpus=0)(lambda: marker.exists())
    pinned = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    try:
        seen = ray.get([see.options(scheduling_strategy=pinned(node_id, soft=False)).remote() for node_id in others])
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
