"""What the command line says: plans, costs, standings, and how a run ended. Data on stdout, talk on stderr."""

from __future__ import annotations

import json
import shlex
from collections import Counter, defaultdict
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from orchestrator.estimate import Estimate, estimate
from orchestrator.failures import FREE
from orchestrator.forecast import Forecast
from orchestrator.plan import Plan
from orchestrator.progress import duration
from orchestrator.recorder import SAME_ERROR, Failure, Outcome
from orchestrator.standing import Standing, blocked, statuses, unfinished
from orchestrator.stop import TAKEN_OVER
from orchestrator.tidy import disk_use
from orchestrator.trial import Trial
from results.storage import StorageLike

__all__ = [
    "TALK",
    "conclude",
    "cost_line",
    "describe_counts",
    "forecast_line",
    "resume_command",
    "say",
    "show_forecast",
    "show_plan",
]

TALK = Console(stderr=True)


def say(line: str) -> None:
    """One line to the person at the terminal."""
    TALK.print(line, markup=False, highlight=False, soft_wrap=True)


def resume_command(plan: Plan, storage: StorageLike) -> str:
    """The command that goes on with a sweep."""
    return f"python -m orchestrator.run resume {plan.sweep_id} --storage {shlex.quote(str(storage))}"


def conclude(plan: Plan, storage: StorageLike, outcome: Outcome) -> None:
    """Says how a run ended: what is done, which errors there were, each once, and what to do next."""
    early = f" ({outcome.stopped_early} of them stopped early)" if outcome.stopped_early else ""
    in_run = f"{len(outcome.completed)} completed" if plan.search else f"{len(outcome.completed)}"
    say(f"{outcome.done} of {outcome.planned} trials done{early}, {in_run} in this run, {len(outcome.failed)} failed")
    if plan.search is not None:
        say(f"the trials, best first: python -m results table search --sweep {plan.sweep_id} --storage {storage}")
    _say_errors(plan, storage, outcome)
    for_good = len(outcome.failed_before) + sum(failure.failure_class not in FREE for failure in outcome.failed.values())
    settled = outcome.done + for_good + _say_blocked(plan, storage)
    is_more_left = plan.search is not None or settled < outcome.planned  # a search may take up trials that count as done
    if outcome.stop_reason == TAKEN_OVER:
        say(f"stopped: {TAKEN_OVER}; watch it with `python -m orchestrator.run status {plan.sweep_id} --storage {storage}`")
    elif outcome.stop_reason:
        larger = " with a larger limit, or none" if outcome.stop_reason.startswith("budget") else ""
        go_on = f". Go on{larger}:\n  {resume_command(plan, storage)}" if is_more_left else ""
        say(f"stopped: {outcome.stop_reason}; everything reported so far is in the ledger{go_on}")
    if any(failure.failure_class in FREE for failure in outcome.failed.values()):
        say("some were lost through no fault of their own; go on with:")
        say(f"  {resume_command(plan, storage)}")
    if outcome.failed_before:
        say(f"{len(outcome.failed_before)} trials had failed before and were not run again; when their cause is mended:")
    if for_good:
        say(f"  python -m orchestrator.run retry --failed {plan.sweep_id} --storage {storage}")


def _say_blocked(plan: Plan, storage: StorageLike) -> int:
    """What waits for a failed trial, by that trial; how many do."""
    if not any(trial.parents for trial in plan.trials):
        return 0
    waiting = blocked(plan, statuses(storage, (trial.key for trial in plan.trials)))
    names = {trial.key: trial.summary for trial in plan.trials}
    for key, number in Counter(waiting.values()).items():
        say(f"{number} trials are blocked: they begin from {key} {names[key]}, which has failed")
    return len(waiting)


def _say_errors(plan: Plan, storage: StorageLike, outcome: Outcome) -> None:
    """Errors by signature; the traceback that stopped a sweep is shown, the others are in the ledger."""
    groups: defaultdict[str, list[tuple[str, Failure]]] = defaultdict(list)
    for key, failure in outcome.failed.items():
        groups[failure.signature].append((key, failure))
    names = {trial.key: trial.summary for trial in plan.trials}
    for group in sorted(groups.values(), key=len, reverse=True):
        key, failure = group[0]
        say(f"  {len(group)} x {failure.line}  (signature {failure.signature}, first: {key} {names[key]})")
    if (outcome.stop_reason or "").startswith(SAME_ERROR) and groups:
        say(max(groups.values(), key=len)[0][1].error.rstrip())
    elif groups:
        query = "SELECT trial_key, error FROM trials WHERE error IS NOT NULL"
        say(f'tracebacks: python -m results sql "{query}" --storage {storage}')


def show_plan(plan: Plan, storage: StorageLike, as_json: bool) -> None:
    """The trials of a plan, how each stands, and what the rest will cost."""
    known = statuses(storage, (trial.key for trial in plan.trials))
    todo, waiting = unfinished(plan, known), blocked(plan, known)
    planned = Standing("planned")
    rows = [
        {
            "key": trial.key,
            "trial": trial.summary,
            "epochs": trial.config.training.epochs,
            "status": "blocked" if trial.key in waiting else known.get(trial.key, planned).status,
        }
        for trial in plan.trials
    ]
    cost = estimate(todo, storage, plan.preset.resources)
    if as_json:
        seconds = None if cost.unknown else cost.wall_seconds
        print(json.dumps({"sweep_id": plan.sweep_id, "to_run": len(todo), "estimated_seconds": seconds, "trials": rows}))
        return
    print(_aligned([("key", "trial", "epochs", "status"), *(tuple(row.values()) for row in rows)]))
    say(cost_line(plan, todo, cost))


def _aligned(lines: list[tuple[object, ...]]) -> str:
    """Columns padded to their widest value, two spaces apart. Rich takes half a second for each thousand lines."""
    widths = [max(len(str(value)) for value in column) for column in zip(*lines, strict=True)]
    padded = "  ".join(f"{{!s:<{width}}}" for width in widths)
    return "\n".join(padded.format(*line) for line in lines)


def cost_line(plan: Plan, todo: list[Trial], cost: Estimate) -> str:
    """What is done, what is to run, and how long that will take."""
    head = f"sweep {plan.sweep_id}: {len(plan.trials) - len(todo)} done, {len(todo)} to run"
    if not todo:
        return head
    if cost.unknown == len(todo):
        return f"{head}; time unknown: the ledger has no completed trial of this kind yet"
    partly = f" for {len(todo) - cost.unknown} of them, the others unknown" if cost.unknown else ""
    where = f"as past trials on {', '.join(cost.devices)}"
    return f"{head}, about {duration(cost.wall_seconds)} at {cost.slots} at a time{partly} ({where})"


def show_forecast(plan: Plan, expected: Forecast, as_json: bool, price: float | None) -> None:
    """What a search is expected to come to; `price`: of a GPU-hour."""
    cost = None if price is None or expected.gpu_hours is None else price * expected.gpu_hours
    if as_json:
        print(json.dumps({"sweep_id": plan.sweep_id, **asdict(expected), "wall_seconds": expected.wall_seconds, "cost": cost}))
        return
    if expected.rungs:
        table = Table("rung (epochs)", "trials that come", "go on", box=None, pad_edge=False)
        for rung in expected.rungs:
            table.add_row(f"{rung.epoch:g}", f"{rung.arrive:.1f}", f"{rung.go_on:.1f}")
        Console().print(table)
        say(f"reckoned by {expected.by}")
    say(f"sweep {plan.sweep_id}: {len(plan.trials)} of {plan.num_trials} trials suggested so far")
    say(forecast_line(expected) + ("" if cost is None else f", {cost:.2f} at {price:g} per GPU-hour"))


def forecast_line(expected: Forecast) -> str:
    """The whole search in a line."""
    epochs = f"{expected.trials} trials, about {expected.epochs:.0f} epochs of {expected.full_epochs} without early stopping"
    if expected.trial_seconds is None or expected.wall_seconds is None:
        return f"{epochs}; time unknown: the ledger has no completed trial of this kind yet"
    gpus = "" if expected.gpu_hours is None else f", {expected.gpu_hours:.1f} GPU-hours"
    return f"{epochs}; about {duration(expected.wall_seconds)} at {expected.slots} at a time{gpus}"


def describe_counts(counts: dict[str, dict[str, int]], storage: StorageLike) -> list[str]:
    """One line for each sweep, and what the storage holds."""
    lines = [
        f"{sweep_id}: "
        + (", ".join(f"{number} {status}" for status, number in sorted(by_status.items())) or "the ledger has lost its plan")
        for sweep_id, by_status in counts.items()
    ]
    use = disk_use(storage)
    free = "" if use.free is None else f", free {_gigabytes(use.free)}"
    return [*lines, f"checkpoints {_gigabytes(use.checkpoints)}{free}"]


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"
