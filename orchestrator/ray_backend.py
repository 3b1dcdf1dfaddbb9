"""Runs trials on Ray Tune. Call `set_ray_environment` before importing it.

Ray is known here, in `ray_hooks` and in `ray_cluster` alone. What is avoided, and why (measured on Ray 2.60): `Tuner.restore`
can lose a sweep silently, so every run starts a fresh `Tuner` on what the ledger lacks; the automatic loggers double the time
to a first result and drop late metrics.
"""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from ray import tune

from orchestrator.backend import Listener
from orchestrator.errors import InfeasibleError, SweepError
from orchestrator.lease import holder_of
from orchestrator.preset import Resources
from orchestrator.ray_cluster import check_storage_is_shared, node_resources, nodes, on_nodes
from orchestrator.ray_hooks import Relay, Scheduler, Searcher, StopAll, key_of
from orchestrator.stop import notice_sigterm, sigterm_noticed
from orchestrator.trial import Trial
from orchestrator.work import Work
from orchestrator.worker import Attempt, Ended, RunSettings, trial_lease

__all__ = ["RayBackend"]

_MAX_RESTARTS = 100
"""Of one trial in one run of Tune, should our own policies ever fail to end it."""


class TrialActor(tune.Trainable):
    """Drives attempts, one after the other in a process that keeps its imports and caches.

    The attempt is claimed at the first step: Tune may start an actor for a trial, then hand the trial to an idle actor and drop
    the new one, which must leave no trace in the ledger.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Holds the first trial of this process."""
        self._attempt: Attempt | None = None
        # Where it can, transformers imports scipy for losses that no trainable uses: 40 MB in every worker.
        sys.modules.setdefault("scipy", None)  # type: ignore[arg-type]
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


class RayBackend:
    """Runs trials on the Ray that `ray_session` has started or joined."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    @property
    def gpus_per_trial(self) -> float:
        """See `orchestrator.backend.Backend`; `auto` is one GPU where there are any."""
        asked = self._resources.gpus_per_trial
        gpus = float(min(max(node.get("GPU", 0) for node in node_resources()), 1)) if asked == "auto" else float(asked)
        if not sum(self._fitting(gpus)):
            have = "; ".join(
                f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs and {node.get('memory', 0) / 1024**3:.1f} GiB"
                for node in node_resources()
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
        by_cpu = [int(node.get("CPU", 0) / self._resources.cpus_per_trial) for node in node_resources()]
        by_gpu = [
            int(node.get("GPU", 0) / gpus + 1e-9) if gpus else cpus for node, cpus in zip(node_resources(), by_cpu, strict=True)
        ]
        memory = self._resources.memory_bytes
        by_memory = [
            int(node.get("memory", 0) / memory) if memory else cpus for node, cpus in zip(node_resources(), by_cpu, strict=True)
        ]
        return [min(each) for each in zip(by_cpu, by_gpu, by_memory, strict=True)]

    def run(self, work: Work, settings: RunSettings, listener: Listener, stop_requested: Callable[[], bool]) -> None:
        """See `orchestrator.backend.Backend.run`."""
        check_storage_is_shared(settings.storage)
        self._settings = settings
        scratch = Path(tempfile.mkdtemp(prefix="tune-"))
        relay = Relay(listener)
        known = work.known
        which: dict[str, Any] = {}
        if known is None:
            searcher = Searcher(work, relay, stop_requested)
            which = {"search_alg": searcher, "num_samples": -1, "max_concurrent_trials": self.slots}
        else:
            which = {"max_concurrent_trials": self._resources.max_concurrent or 0}
        tuner = tune.Tuner(
            tune.with_resources(TrialActor, self._request(settings)),
            param_space={"settings": settings}
            | ({"trial": tune.grid_search([each.to_json() for each in known])} if known else {}),
            tune_config=tune.TuneConfig(
                scheduler=Scheduler(relay),
                reuse_actors=True,
                trial_dirname_creator=key_of,
                trial_name_creator=key_of,
                **which,
            ),
            run_config=tune.RunConfig(
                name=settings.sweep_id,
                storage_path=str(scratch),
                # Whether a trial is tried again is our policy: a worker that finds no attempt left ends its trial.
                failure_config=tune.FailureConfig(max_failures=_MAX_RESTARTS),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # trainables write their own
                callbacks=[relay],
                stop=StopAll(lambda: relay.is_over(stop_requested)),
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
            on_nodes(lambda: holder.end(), [node["NodeID"] for node in nodes()])


def _check_all_ran(planned: set[str], ran: list[str]) -> None:
    if sorted(ran) != sorted(planned):
        raise SweepError(f"Ray Tune ran {len(ran)} trials where {len(planned)} were planned; run the same command again")
