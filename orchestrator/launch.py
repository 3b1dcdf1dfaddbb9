"""From a plan to a run at the terminal: the question before a long one, the backend, the progress, the exit code."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from orchestrator.console import TALK, conclude, cost_line, resume_command, say
from orchestrator.estimate import estimate
from orchestrator.plan import Plan
from orchestrator.progress import progress_for
from orchestrator.recorder import INTERRUPTED, Outcome
from orchestrator.standing import statuses, superseded, unfinished
from orchestrator.stop import PREEMPTED, TAKEN_OVER
from orchestrator.sweep import Request, run_sweep

if TYPE_CHECKING:
    from orchestrator.backend import Backend
    from orchestrator.trial import Trial

__all__ = ["BackendName", "launch"]


class BackendName(StrEnum):
    """Where trials run."""

    ray = "ray"
    inline = "inline"


def launch(plan: Plan, storage: Path, request: Request, backend: BackendName, address: str | None, *, ask: bool) -> NoReturn:
    """Runs what the ledger lacks of `plan`, says how that went, and exits; `ask` first where it will take long."""
    known = statuses(storage, (trial.key for trial in plan.trials))
    todo = unfinished(plan, known, request.retry)
    done = sum(each.is_done for each in known.values())
    say(f"sweep {plan.sweep_id}: {len(plan.trials)} trials, {done} already done, {len(todo)} to run")
    for name, (version, trials) in superseded(plan, storage).items():
        say(
            f"{name} is a newer version now: the {trials} trials that version {version} completed stay in the ledger, "
            "but their keys are others"
        )
    if ask and todo and sys.stdin.isatty():
        _confirm(plan, todo, storage)
    try:
        outcome = run_sweep(
            plan, storage, request, session=_session(plan, backend, address), watch=_watch, prepare=_prepare(storage), say=say
        )
    except KeyboardInterrupt:
        say(f"interrupted; everything reported so far is in the ledger. Go on with:\n  {resume_command(plan, storage)}")
        raise typer.Exit(130) from None
    conclude(plan, storage, outcome)
    raise typer.Exit(_exit_code(outcome))


def _exit_code(outcome: Outcome) -> int:
    special = {INTERRUPTED: 130, PREEMPTED: 143, TAKEN_OVER: 2}
    if outcome.stop_reason in special:
        return special[outcome.stop_reason]
    if outcome.failed or outcome.failed_before:
        return 1
    complete = outcome.already_done + len(outcome.completed) == outcome.planned
    return 0 if complete or (outcome.stop_reason or "").startswith("budget") else 1


def _confirm(plan: Plan, todo: list[Trial], storage: Path) -> None:
    """Asks before a sweep that will take over an hour, or whose time nobody knows yet; never for the embedded default."""
    cost = estimate(todo, storage, plan.preset.resources)
    if plan.preset.name == "embedded" or (not cost.unknown and cost.wall_seconds < 3600):
        return
    say(cost_line(plan, todo, cost))
    if not typer.confirm("Run them?", default=True, err=True):
        say("nothing was run")
        raise typer.Exit(130)


def _session(plan: Plan, backend: BackendName, address: str | None) -> Any:
    @contextmanager
    def session() -> Iterator[Backend]:
        if backend is BackendName.inline:
            from orchestrator.inline_backend import InlineBackend

            yield InlineBackend(plan.preset.resources)
            return
        from orchestrator.ray_environment import set_ray_environment

        set_ray_environment(address)
        from orchestrator.ray_backend import RayBackend, ray_session

        with ray_session(address):
            yield RayBackend(plan.preset.resources)

    return session


def _watch(todo: list[Trial], backend: Backend) -> Any:
    return progress_for(TALK)(todo, backend.slots, backend.gpus_per_trial, TALK, time.monotonic)


def _prepare(storage: Path) -> Any:
    def prepare(todo: list[Trial]) -> None:
        from trainables.training.task import prepare_all

        for line in prepare_all([(trial.config, trial.data) for trial in todo], storage / "prepared"):
            say(line)

    return prepare
