"""From a plan to a run at the terminal: the question before a long one, the backend, the progress, the exit code."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import typer

from orchestrator.console import TALK, conclude, cost_line, forecast_line, resume_command, say
from orchestrator.decisions import with_suggested
from orchestrator.estimate import estimate
from orchestrator.forecast import forecast
from orchestrator.frozen import sweep_ids
from orchestrator.plan import Plan
from orchestrator.progress import progress_for
from orchestrator.recorder import INTERRUPTED, Outcome
from orchestrator.standing import superseded
from orchestrator.stop import PREEMPTED, TAKEN_OVER
from orchestrator.sweep import Request, run_sweep
from results.storage import StorageLike

if TYPE_CHECKING:
    from orchestrator.backend import Backend
    from orchestrator.preparation import Prepared
    from orchestrator.work import Work

__all__ = ["BackendName", "launch"]


class BackendName(StrEnum):
    """Where trials run."""

    ray = "ray"
    inline = "inline"


def launch(plan: Plan, storage: StorageLike, request: Request, backend: BackendName, address: str | None, *, ask: bool) -> int:
    """Runs what the ledger lacks of `plan` and says how that went; `ask` first where it will take long.

    Returns the exit code.
    """

    def confirm(work: Work) -> bool:
        say(f"sweep {plan.sweep_id}: {work.total} trials, {work.num_done} already done, {work.num_left} to run")
        if plan.search is not None and plan.search.num_trials < work.total:
            say(f"{plan.search.num_trials} trials were asked for, but {work.total} are suggested already; all of them stay")
        for name, (version, trials) in superseded(plan, storage).items():
            say(
                f"{name} is a newer version now: the {trials} trials that version {version} completed stay in the ledger, "
                "but their keys are others"
            )
        return not (ask and work.num_left and sys.stdin.isatty()) or _confirmed(plan, work, storage)

    try:
        outcome = run_sweep(
            plan,
            storage,
            request,
            session=_session(plan, storage, backend, address),
            watch=_watch,
            confirm=confirm,
            say=say,
        )
    except KeyboardInterrupt:
        say(_interrupted(plan, storage))
        return 130
    if outcome is None:
        say("nothing was run")
        return 130
    conclude(with_suggested(plan, storage), storage, outcome)
    return _exit_code(outcome)


def _interrupted(plan: Plan, storage: StorageLike) -> str:
    """How to go on: a sweep has a name only once its data is there."""
    with suppress(OSError):  # a storage that is away has been written to before
        if plan.sweep_id not in sweep_ids(storage):
            return "interrupted before anything was run; the same command begins again"
    return f"interrupted; everything reported so far is in the ledger. Go on with:\n  {resume_command(plan, storage)}"


def _exit_code(outcome: Outcome) -> int:
    special = {INTERRUPTED: 130, PREEMPTED: 143, TAKEN_OVER: 2}
    if outcome.stop_reason in special:
        return special[outcome.stop_reason]
    if outcome.failed or outcome.failed_before:
        return 1
    complete = outcome.done == outcome.planned
    return 0 if complete or (outcome.stop_reason or "").startswith("budget") else 1


def _confirmed(plan: Plan, work: Work, storage: StorageLike) -> bool:
    """Asks before a sweep that will take over an hour, or whose time nobody knows yet; never for the embedded default."""
    if plan.preset.name == "embedded":
        return True
    if plan.search is not None:
        expected = forecast(plan.search, storage, plan.preset.resources)
        seconds, line = expected.wall_seconds, forecast_line(expected)
    else:
        todo = list(work.known or ())
        cost = estimate(todo, storage, plan.preset.resources)
        seconds, line = None if cost.unknown else cost.wall_seconds, cost_line(plan, todo, cost)
    if seconds is not None and seconds < 3600:
        return True
    say(line)
    return typer.confirm("Run them?", default=True, err=True)


def _session(plan: Plan, storage: StorageLike, backend: BackendName, address: str | None) -> Any:
    @contextmanager
    def session(prepared: Prepared) -> Iterator[Backend]:
        if backend is BackendName.inline:
            with prepared(beside=False) as wait:
                wait()
            from orchestrator.inline_backend import InlineBackend

            yield InlineBackend(plan.preset.resources)
            return
        with prepared(beside=True) as wait:
            from orchestrator.ray_environment import set_ray_environment

            set_ray_environment(address)
            from orchestrator.ray_backend import RayBackend, gpu_use_of
            from orchestrator.ray_cluster import check_environments, ray_session

            with ray_session(address):
                if address:
                    check_environments()
                wait()
                yield RayBackend(plan.preset.resources, gpu_use_of(plan, storage, say))

    return session


def _watch(work: Work, backend: Backend) -> Any:
    return progress_for(TALK)(work.known or (), work.num_left, backend.slots, backend.gpus_per_trial, TALK, time.monotonic)
