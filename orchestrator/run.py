"""The command line: `python -m orchestrator.run grid|search|resume|retry|replay|simulate|plan|status|cluster`.

Data goes to stdout, talk to stderr. Exit codes: 0 all good, 1 some trials failed or differ, 2 usage, 130 interrupted (143 by
SIGTERM).
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Annotated

import typer

from orchestrator import search_commands
from orchestrator.cluster_commands import cluster_app
from orchestrator.console import TALK, describe_counts, say, show_plan
from orchestrator.counts import count_statuses
from orchestrator.errors import SweepError
from orchestrator.frozen import check_current, sweep_dir, sweep_ids
from orchestrator.launch import BackendName, launch
from orchestrator.lease import holder_of
from orchestrator.options import (
    AddressOption,
    BackendOption,
    GpuHoursOption,
    HoursOption,
    JsonOption,
    KeepOption,
    PresetOption,
    SeedsOption,
    SetOption,
    StopAtOption,
    StorageOption,
    TrialsOption,
    YesOption,
    budget_of,
    with_kept,
)
from orchestrator.plan import plan_grid
from orchestrator.preset import load_preset
from orchestrator.stored_sweeps import (
    existing_storage,
    failed_keys,
    known_sweep,
    load_sweep,
    readable_sweeps,
    sweep_storage,
    unfinished_sweeps,
)
from orchestrator.sweep import Request, check_writable
from results.errors import LedgerError
from trainables.data.errors import DataError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
plan_app = typer.Typer(no_args_is_help=True, help="Show what would run, what is already done, and what it would cost.")
app.add_typer(plan_app, name="plan")
app.add_typer(cluster_app, name="cluster")


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
    max_gpu_hours: GpuHoursOption = None,
    max_hours: HoursOption = None,
    max_trials: TrialsOption = None,
    stop_at: StopAtOption = None,
    keep_checkpoints: KeepOption = None,
) -> None:
    """Run the mixture grid: trainables x shares x orders x seeds. The same command again runs only what is missing.

    Example: python -m orchestrator.run grid --preset paper --seeds 3 --max-gpu-hours 20
    """
    root = sweep_storage(storage)
    if not dry_run:
        check_writable(root)
    plan = with_kept(plan_grid(load_preset(preset, set_ or (), seeds), root), keep_checkpoints)
    if dry_run:
        show_plan(plan, root, as_json=False)
        return
    budget = budget_of(plan, max_gpu_hours, max_hours, max_trials, stop_at)
    raise typer.Exit(launch(plan, root, Request(budget=budget), backend, address, ask=not yes))


app.command()(search_commands.search)


@app.command()
def resume(
    sweep_id: Annotated[str | None, typer.Argument(help="The newest unfinished sweep if left out.")] = None,
    storage: StorageOption = "sweeps-data",
    backend: BackendOption = BackendName.ray,
    address: AddressOption = None,
    max_gpu_hours: GpuHoursOption = None,
    max_hours: HoursOption = None,
    max_trials: TrialsOption = None,
    stop_at: StopAtOption = None,
    keep_checkpoints: KeepOption = None,
) -> None:
    """Go on with an interrupted sweep.

    Example: python -m orchestrator.run resume
    """
    root = existing_storage(storage)
    plan = load_sweep(root, sweep_id) if sweep_id else next(unfinished_sweeps(root), None)
    if plan is None:
        finished = f"nothing to resume: every sweep in {root} that can be read is finished"
        say(finished if sweep_ids(root) else f"no sweeps in {root}")
        return
    check_current(plan, root)
    budget = budget_of(plan, max_gpu_hours, max_hours, max_trials, stop_at)
    raise typer.Exit(launch(with_kept(plan, keep_checkpoints), root, Request(budget=budget), backend, address, ask=False))


@app.command()
def retry(
    sweep_id: Annotated[str | None, typer.Argument(help="The newest sweep with failed trials if left out.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Try the failed trials again, with all their retries.")] = False,
    storage: StorageOption = "sweeps-data",
    backend: BackendOption = BackendName.ray,
    address: AddressOption = None,
) -> None:
    """Try failed trials again, once their cause is mended, and run whatever else is left.

    Example: python -m orchestrator.run retry --failed
    """
    if not failed:
        raise SweepError("retry takes --failed; to go on with what was interrupted use `resume`")
    root = existing_storage(storage)
    plans = (load_sweep(root, sweep_id),) if sweep_id else readable_sweeps(root, sweep_ids(root))
    plan, keys = next(((plan, keys) for plan in plans if (keys := failed_keys(plan, root))), (None, frozenset[str]()))
    if plan is None:
        say(f"nothing to retry: no trial of {sweep_id or 'any sweep that can be read'} has failed")
        return
    check_current(plan, root)
    raise typer.Exit(launch(plan, root, Request(retry=keys), backend, address, ask=False))


@app.command()
def replay(
    trial_key: Annotated[str, typer.Argument(help="Key of a completed trial.")],
    storage: StorageOption = "sweeps-data",
    as_json: JsonOption = False,
) -> None:
    """Run a recorded trial again from its provenance and compare: equal to the bit, within a tolerance, or different.

    Example: python -m orchestrator.run replay c0140f41b8d2af1e
    """
    from orchestrator.replay import replay_trial

    replayed = replay_trial(trial_key, existing_storage(storage), say)
    if as_json:
        print(json.dumps(replayed.to_json()))
    else:
        for line in replayed.describe():
            print(line)
    raise typer.Exit(0 if replayed.is_same else 1)


app.command()(search_commands.simulate)


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
    show_plan(plan_grid(load_preset(preset, set_ or (), seeds), sweep_storage(storage)), sweep_storage(storage), as_json)


plan_app.command("search")(search_commands.plan)


@app.command()
def status(
    sweep_id: Annotated[str | None, typer.Argument(help="All sweeps if left out.")] = None,
    storage: StorageOption = "sweeps-data",
    watch: Annotated[bool, typer.Option("--watch", help="Show again every two seconds while a driver runs it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say how sweeps stand, and what the storage holds.

    Example: python -m orchestrator.run status --watch
    """
    root = existing_storage(storage)
    while True:
        counts = count_statuses(root, [known_sweep(root, sweep_id)] if sweep_id else reversed(sweep_ids(root)))
        if as_json:
            print(json.dumps(counts))
        elif counts:
            print("\n".join(describe_counts(counts, root)))
        else:
            say(f"no sweeps in {root} yet; start one with `python -m orchestrator.run grid`")
        if not watch or not any(holder_of(sweep_dir(root, each) / "driver", time.time()) for each in counts):
            return
        time.sleep(2)


def main() -> None:
    """Runs the command line; what the user can mend is one line on stderr and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        app()
    except (SweepError, DataError, LedgerError, OSError) as error:
        TALK.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
