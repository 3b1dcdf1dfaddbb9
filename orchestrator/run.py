"""The command line: `python -m orchestrator.run grid|resume|plan|status`.

Data goes to stdout, talk to stderr. Exit codes: 0 all good, 1 some trials failed, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from orchestrator.errors import SweepError
from orchestrator.estimate import Estimate, estimate
from orchestrator.lock import current_driver
from orchestrator.plan import Plan, plan_grid
from orchestrator.preset import load_preset
from orchestrator.progress import duration, last_line, progress_for
from orchestrator.sweep import (
    Outcome,
    check_current,
    load_plan,
    remaining,
    run_sweep,
    statuses,
    sweep_dir,
    sweep_ids,
    unfinished,
)
from results.errors import LedgerError
from trainables.data.errors import DataError

if TYPE_CHECKING:
    from orchestrator.backend import Backend
    from orchestrator.trial import Trial

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
plan_app = typer.Typer(no_args_is_help=True, help="Show what would run, what is already done, and what it would cost.")
app.add_typer(plan_app, name="plan")

_talk = Console(stderr=True)


class BackendName(StrEnum):
    """Where trials run."""

    ray = "ray"
    inline = "inline"


PresetOption = Annotated[str, typer.Option("--preset", help="A shipped preset (embedded, paper) or a YAML file.")]
StorageOption = Annotated[str, typer.Option("--storage", envvar="SWEEPS_STORAGE", help="Folder that holds everything.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override a preset's key, e.g. training.epochs=1.")]
SeedsOption = Annotated[int | None, typer.Option("--seeds", min=1, help="Run every configuration with seeds 0..N-1.")]
AddressOption = Annotated[str | None, typer.Option("--address", envvar="RAY_ADDRESS", help="Ray cluster; none: a local Ray.")]
BackendOption = Annotated[BackendName, typer.Option("--backend", help="inline: one trial at a time, in this process.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask before a long sweep.")]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]


def _say(line: str) -> None:
    _talk.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def grid(
    preset: PresetOption = "embedded",
    storage: StorageOption = "sweeps-data",
    set_: SetOption = None,
    seeds: SeedsOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Same as `plan grid`.")] = False,
    yes: YesOption = False,
    backend: BackendOption = BackendName.ray,
    address: AddressOption = None,
) -> None:
    """Run the mixture grid: trainables x shares x orders x seeds. The same command again runs only what is missing.

    Example: python -m orchestrator.run grid --preset paper --seeds 3
    """
    plan = plan_grid(load_preset(preset, set_ or (), seeds), _local(storage))
    if dry_run:
        _show_plan(plan, _local(storage), as_json=False)
        return
    _run(plan, _local(storage), backend, address, ask=not yes)


@app.command()
def resume(
    sweep_id: Annotated[str | None, typer.Argument(help="The newest unfinished sweep if left out.")] = None,
    storage: StorageOption = "sweeps-data",
    backend: BackendOption = BackendName.ray,
    address: AddressOption = None,
) -> None:
    """Go on with an interrupted sweep.

    Example: python -m orchestrator.run resume
    """
    root = _local(storage)
    plans = (_frozen(root, sweep_id),) if sweep_id else _readable(root, sweep_ids(root))
    plan = next((plan for plan in plans if sweep_id or remaining(plan, root)), None)
    if plan is None:
        _say("nothing to resume: every sweep is finished" if sweep_ids(root) else f"no sweeps in {root}")
        return
    check_current(plan)
    _run(plan, root, backend, address, ask=False)


@plan_app.command("grid")
def plan_grid_command(
    preset: PresetOption = "embedded",
    storage: StorageOption = "sweeps-data",
    set_: SetOption = None,
    seeds: SeedsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the mixture grid's trials, which of them are done, and an estimate of the time.

    Example: python -m orchestrator.run plan grid --preset paper --json
    """
    _show_plan(plan_grid(load_preset(preset, set_ or (), seeds), _local(storage)), _local(storage), as_json)


@app.command()
def status(
    sweep_id: Annotated[str | None, typer.Argument(help="All sweeps if left out.")] = None,
    storage: StorageOption = "sweeps-data",
    watch: Annotated[bool, typer.Option("--watch", help="Show again every two seconds while a driver runs it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say how sweeps stand.

    Example: python -m orchestrator.run status --watch
    """
    root = _local(storage)
    while True:
        counts = _counts(root, sweep_id)
        if as_json:
            print(json.dumps(counts))
        else:
            _print_counts(counts)
        if not watch or not any(current_driver(sweep_dir(root, each)) for each in counts):
            return
        time.sleep(2)


def _local(storage: str) -> Path:
    if "://" in storage:
        raise SweepError(
            f"--storage must be a local or mounted path to run sweeps, got {storage}; results can be read from a URI"
        )
    return Path(storage).expanduser().resolve()


def _run(plan: Plan, storage: Path, backend: BackendName, address: str | None, *, ask: bool) -> NoReturn:
    todo = remaining(plan, storage)
    _say(f"sweep {plan.sweep_id}: {len(plan.trials)} trials, {len(plan.trials) - len(todo)} already done, {len(todo)} to run")
    if ask and todo and sys.stdin.isatty():
        _confirm(plan, todo, storage)
    try:
        outcome = run_sweep(plan, storage, session=_session(plan, backend, address), watch=_watch, prepare=_prepare(storage))
    except KeyboardInterrupt:
        _say(f"interrupted; everything reported so far is in the ledger. Go on with:\n  {_resume_command(plan, storage)}")
        raise typer.Exit(130) from None
    _conclude(plan, storage, outcome)


def _confirm(plan: Plan, todo: list[Trial], storage: Path) -> None:
    """Asks before a sweep that will take over an hour, or whose time nobody knows yet; never for the embedded default."""
    cost = estimate(todo, storage, plan.preset.resources)
    if plan.preset.name == "embedded" or (not cost.unknown and cost.wall_seconds < 3600):
        return
    _say(_cost_line(plan, todo, cost))
    if not typer.confirm("Run them?", default=True, err=True):
        _say("nothing was run")
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
    return progress_for(_talk)(todo, backend.slots, backend.gpus_per_trial, _talk, time.monotonic)


def _prepare(storage: Path) -> Any:
    def prepare(todo: list[Trial]) -> None:
        from trainables.training.task import prepare_all

        for line in prepare_all([(trial.config, trial.data) for trial in todo], storage / "prepared"):
            _say(line)

    return prepare


def _conclude(plan: Plan, storage: Path, outcome: Outcome) -> NoReturn:
    done = outcome.already_done + len(outcome.completed)
    _say(f"{done} of {outcome.planned} trials done, {len(outcome.completed)} in this run, {len(outcome.failed)} failed")
    if done == outcome.planned:
        raise typer.Exit(0)
    names = {trial.key: trial.summary for trial in plan.trials}
    for message, count in Counter(last_line(error) for error in outcome.failed.values()).most_common():
        example = next(key for key, error in outcome.failed.items() if last_line(error) == message)
        _say(f"  {count} x {message}  (first: {example} {names[example]})")
    _say(f'tracebacks: python -m results sql "SELECT trial_key, error FROM trials WHERE error IS NOT NULL" --storage {storage}')
    raise typer.Exit(1)


def _resume_command(plan: Plan, storage: Path) -> str:
    return f"python -m orchestrator.run resume {plan.sweep_id} --storage {storage}"


def _show_plan(plan: Plan, storage: Path, as_json: bool) -> None:
    known = statuses(storage, (trial.key for trial in plan.trials))
    todo = unfinished(plan, known)
    rows = [
        {
            "key": trial.key,
            "trial": trial.summary,
            "epochs": trial.config.training.epochs,
            "status": known.get(trial.key, "planned"),
        }
        for trial in plan.trials
    ]
    cost = estimate(todo, storage, plan.preset.resources)
    if as_json:
        seconds = None if cost.unknown else cost.wall_seconds
        print(json.dumps({"sweep_id": plan.sweep_id, "to_run": len(todo), "estimated_seconds": seconds, "trials": rows}))
        return
    table = Table("key", "trial", "epochs", "status", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
    _say(_cost_line(plan, todo, cost))


def _cost_line(plan: Plan, todo: list[Trial], cost: Estimate) -> str:
    head = f"sweep {plan.sweep_id}: {len(plan.trials) - len(todo)} done, {len(todo)} to run"
    if not todo:
        return head
    if cost.unknown == len(todo):
        return f"{head}; time unknown: the ledger has no completed trial of this kind yet"
    partly = f" for {len(todo) - cost.unknown} of them, the others unknown" if cost.unknown else ""
    where = f"as past trials on {', '.join(cost.devices)}"
    return f"{head}, about {duration(cost.wall_seconds)} at {cost.slots} at a time{partly} ({where})"


def _counts(storage: Path, sweep_id: str | None) -> dict[str, dict[str, int]]:
    counts = {}
    plans = (_frozen(storage, sweep_id),) if sweep_id else _readable(storage, reversed(sweep_ids(storage)))
    for plan in plans:
        keys = [trial.key for trial in plan.trials]
        known = statuses(storage, keys)
        if not current_driver(sweep_dir(storage, plan.sweep_id)):  # without a driver nothing runs
            known = {key: "lost" if status == "running" else status for key, status in known.items()}
        counts[plan.sweep_id] = dict(Counter(known.get(key, "planned") for key in keys))
    return counts


def _print_counts(counts: dict[str, dict[str, int]]) -> None:
    if not counts:
        _say("no sweeps yet; start one with `python -m orchestrator.run grid`")
    for sweep_id, by_status in counts.items():
        print(f"{sweep_id}: " + ", ".join(f"{number} {status}" for status, number in sorted(by_status.items())))


def _frozen(storage: Path, sweep_id: str) -> Plan:
    try:
        return load_plan(storage, sweep_id)
    except FileNotFoundError:
        known = ", ".join(sweep_ids(storage)) or "none"
        raise SweepError(f"no sweep {sweep_id!r} in {storage}; there are: {known}") from None
    except (ValueError, KeyError) as error:
        raise SweepError(f"sweep {sweep_id} cannot be read: {error}; plan it again with `grid`") from error


def _readable(storage: Path, ids: Iterable[str]) -> Iterator[Plan]:
    """The sweeps that this version can read; says which it cannot."""
    for each in ids:
        try:
            yield _frozen(storage, each)
        except SweepError as error:
            _say(f"passed over: {error}")


def main() -> None:
    """Runs the command line; what the user can mend is one line on stderr and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        app()
    except (SweepError, DataError, LedgerError, OSError) as error:
        _talk.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
