"""Runs trials on Ray Tune: the only module that knows Ray.

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

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C is ours: KeyboardInterrupt
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")  # they go to the ledger, and to the user in our words
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # explicit, or a local start writes a token that changes later clusters
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray  # noqa: E402  (Ray reads the variables above when it is imported)
from ray import tune  # noqa: E402

from orchestrator.backend import Listener  # noqa: E402
from orchestrator.errors import InfeasibleError, SweepError  # noqa: E402
from orchestrator.preset import Resources  # noqa: E402
from orchestrator.trial import Trial  # noqa: E402
from orchestrator.worker import Attempt, RunSettings  # noqa: E402

__all__ = ["RayBackend", "ray_session"]

_log = logging.getLogger(__name__)
_OBJECT_STORE_BYTES = 100 * 1024**2  # no data goes through Ray; its least is 75 MiB


class TrialActor(tune.Trainable):  # type: ignore[misc]
    """Drives attempts, one after the other in a process that keeps its imports and caches."""

    def setup(self, config: dict[str, Any]) -> None:
        """Takes the first trial of this process."""
        self._take(config, launched_at=psutil.Process().create_time())

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next trial."""
        self._attempt.close()
        self._take(new_config, launched_at=time.time())
        return True

    def step(self) -> dict[str, Any]:
        """One report, already in the ledger; at the end, `done`."""
        shown = self._attempt.advance()
        return {"done": True} if shown is None else {"shown": shown}

    def cleanup(self) -> None:
        """Closes the attempt, also one that Tune stops early."""
        self._attempt.close()

    def _take(self, config: dict[str, Any], launched_at: float) -> None:
        self._attempt = Attempt(Trial.from_json(config["trial"]), config["settings"], launched_at)


class _Relay(tune.Callback):  # type: ignore[misc]
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

    def gpus_per_trial(self) -> float:
        """What `auto` means here.

        Raises:
            InfeasibleError: no node has the CPUs or GPUs that one trial asks for.
        """
        asked = self._resources.gpus_per_trial
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        most_gpus = max(node.get("GPU", 0) for node in nodes)
        gpus = float(min(most_gpus, 1)) if asked == "auto" else float(asked)
        cpus = self._resources.cpus_per_trial
        if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
            have = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
            raise InfeasibleError(
                f"a trial asks for {cpus} CPUs and {gpus:g} GPUs, and the nodes have {have}; "
                "lower resources.cpus_per_trial or resources.gpus_per_trial"
            )
        return gpus

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
        _check_all_ran({trial.key for trial in trials}, [result.config["trial"]["key"] for result in ended])


def _check_all_ran(planned: set[str], ran: list[str]) -> None:
    if sorted(ran) != sorted(planned):
        raise SweepError(f"Ray Tune ran {len(ran)} trials where {len(planned)} were planned; run the same command again")


def check_storage_is_shared(storage: Path) -> None:
    """Looks from every node for a file that the driver writes.

    Raises:
        SweepError: some node does not see the storage.
    """
    others = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != ray.get_runtime_context().get_node_id()]
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
        raise SweepError(f"storage {storage} is not shared: {seen.count(False)} of {len(seen)} other nodes do not see it; mount it on all nodes")


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Joins the cluster at `address`, or starts a local Ray and stops it at the end."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
    if address:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    else:
        num_cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        ray.init(address="local", num_cpus=num_cpus, object_store_memory=_OBJECT_STORE_BYTES, _node_ip_address="127.0.0.1", **quiet)
    try:
        yield
    finally:
        ray.shutdown()
