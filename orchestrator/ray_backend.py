"""Runs trials on Ray Tune. Call `set_ray_environment` before importing it.

Ray is known here, in `ray_hooks` and in `ray_cluster` alone. What is avoided, and why (measured on Ray 2.60): `Tuner.restore`
can lose a sweep silently, so every run starts a fresh `Tuner` on what the ledger lacks; the automatic loggers double the time
to a first result and drop late metrics.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import ray
from ray import tune
from ray.air._internal import usage

from orchestrator.backend import Listener
from orchestrator.errors import SweepError
from orchestrator.gpu_memory import GpuUse, hungriest, measure, measured_before
from orchestrator.lease import holder_of
from orchestrator.placement import Growth, Request, check_feasible, has_gpus, most_trials, trials_now
from orchestrator.plan import Plan
from orchestrator.preset import Resources
from orchestrator.ray_cluster import (
    NodeWatch,
    check_joined,
    check_storage_is_shared,
    growth,
    heed_drain,
    node_resources,
    nodes,
    on_gpu,
    on_nodes,
)
from orchestrator.ray_hooks import Relay, Scheduler, Searcher, Silence, StopAll, key_of
from orchestrator.stop import notice_sigterm, sigterm_noticed
from orchestrator.trial import Trial
from orchestrator.work import Work
from orchestrator.worker import Attempt, Ended, RunSettings, trial_lease
from results.storage import StorageLike

__all__ = ["RayBackend", "gpu_use_of"]

# It counts callbacks of MLflow, Comet and W&B, and imports these for it: seconds, wherever they are installed.
usage.tag_callbacks = lambda callbacks: False

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
        self._node_id = ray.get_runtime_context().get_node_id()
        heed_drain()

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
            trial = Trial.from_json(self.config["trial"])
            self._attempt = Attempt(trial, self.config["settings"], self._launched_at, self._node_id)
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


def gpu_use_of(plan: Plan, storage: StorageLike, say: Callable[[str], None]) -> GpuUse | None:
    """What the plan's hungriest trial takes of a GPU, for `resources.trials_per_gpu: auto`; None where nothing shares one.

    It is measured once: from then on the ledger has it.

    Raises:
        SweepError: the measurement failed.
    """
    resources = plan.preset.resources
    wanted = resources.trials_per_gpu == "auto" and resources.gpus_per_trial != 0
    if not wanted or not has_gpus(node_resources(), growth()):
        return None
    known = measured_before(storage, plan.sweep_id)
    if known is None:
        trials = hungriest(plan.search.corners() if plan.search else plan.trials)
        say(f"measuring what {', '.join(trial.summary for trial in trials)} take of a GPU (resources.trials_per_gpu: auto)")
        try:
            known = on_gpu(partial(measure, trials, storage, resources.cpus_per_trial), resources.cpus_per_trial)
        except ray.exceptions.RayError as error:
            last = str(error).strip().splitlines()[-1]
            raise SweepError(
                f"resources.trials_per_gpu is auto, and measuring a trial failed: {last}; name a number, for example 1"
            ) from error
    say(str(known))
    return known


class RayBackend:
    """Runs trials on the Ray that `ray_session` has started or joined."""

    def __init__(self, resources: Resources, gpu_use: GpuUse | None = None) -> None:
        """`gpu_use`: see `gpu_use_of`.

        Raises:
            InfeasibleError: no node has what one trial asks for, nor has one that the autoscaler may start.
        """
        self.gpu_use = gpu_use
        self._most = resources.max_concurrent
        self._watch = NodeWatch(time.monotonic)
        self._growth: Growth | None = growth()
        whole = resources.gpus_per_trial
        gpus = int(has_gpus(self._watch.resources, self._growth)) if whole == "auto" else whole
        sharing = resources.trials_per_gpu if resources.trials_per_gpu != "auto" else gpu_use.trials if gpu_use else 1
        self._request = Request(resources.cpus_per_trial, gpus / sharing, resources.memory_bytes)
        check_feasible(self._request, self._watch.resources, self._growth)

    @property
    def gpus_per_trial(self) -> float:
        """See `orchestrator.backend.Backend`."""
        return self._request.gpus

    @property
    def slots(self) -> int:
        """See `orchestrator.backend.Backend`; of the nodes there were at the last look."""
        return self._limited(trials_now(self._request, self._watch.resources))

    def _room(self) -> int:
        """Trials to have under way: as many as run when the cluster has grown as far as it may. An autoscaler starts nodes only
        for trials that it sees waiting."""
        return max(1, self._limited(most_trials(self._request, self._watch.resources, self._growth)))

    def _limited(self, trials: int) -> int:
        return min(trials, self._most or trials)

    def run(self, work: Work, settings: RunSettings, listener: Listener, stop_requested: Callable[[], bool]) -> None:
        """See `orchestrator.backend.Backend.run`."""
        check_storage_is_shared(settings.storage)
        self._watch.on_join = partial(check_joined, settings.storage)
        self._settings = settings
        scratch = Path(tempfile.mkdtemp(prefix="tune-"))
        relay = Relay(listener, self._watch)
        # What waits is what an autoscaler starts nodes for: all that the cluster could run, where Tune by itself takes 1 of a
        # searcher's trials. Not more, since each waits as a placement group of its own.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(self._room())
        tuner = tune.Tuner(
            tune.with_resources(TrialActor, self._request.for_ray),
            param_space={"settings": settings},
            tune_config=tune.TuneConfig(
                # Also a grid's trials, one by one: of a list Tune copies all for each that it makes, 189 s of CPU for 2,000.
                search_alg=Searcher(work, relay, stop_requested, self._room),
                num_samples=-1,
                scheduler=Scheduler(relay),
                reuse_actors=True,
                trial_dirname_creator=key_of,
                trial_name_creator=key_of,
            ),
            run_config=tune.RunConfig(
                name=settings.sweep_id,
                storage_path=str(scratch),
                # Whether a trial is tried again is our policy: a worker that finds no attempt left ends its trial.
                failure_config=tune.FailureConfig(max_failures=_MAX_RESTARTS),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # trainables write their own
                callbacks=[relay, Silence()],
                stop=StopAll(lambda: relay.is_over(stop_requested)),
                verbose=0,
            ),
        )
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        try:
            tuner.fit()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if relay.trouble is not None:
            raise relay.trouble

    def kill(self, trial_key: str) -> None:
        """See `orchestrator.backend.Backend.kill`: asks every node whether it has the process that holds the trial's lease."""
        holder = holder_of(trial_lease(self._settings.storage, trial_key), time.time())
        if holder is not None and holder.owner == self._settings.run_id:
            on_nodes(lambda: holder.end(), [node["NodeID"] for node in nodes()])
