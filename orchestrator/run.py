"""The command line: `python -m orchestrator.run grid|search|resume|retry|replay|simulate|plan|status`.

Data goes to stdout, talk to stderr. Exit codes: 0 all good, 1 some trials failed or differ, 2 usage, 130 interrupted (143 by
SIGTERM).
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.budget import Budget, parse_stop_at
from orchestrator.comparison import plan_comparison, winner_of
from orchestrator.console import TALK, count_statuses, describe_counts, say, show_forecast, show_plan
from orchestrator.errors import SweepError
from orchestrator.forecast import forecast
from orchestrator.frozen import check_current, load_plan, sweep_dir, sweep_ids
from orchestrator.launch import BackendName, launch
from orchestrator.lease import holder_of
from orchestrator.options import (
    AddressOption,
    BackendOption,
    EtaOption,
    GpuHoursOption,
    GraceOption,
    HoursOption,
    JsonOption,
    Keep,
    KeepOption,
    MaxEpochsOption,
    PresetOption,
    SamplerOption,
    SearchSeedOption,
    SearchTrialsOption,
    SeedsOption,
    SetOption,
    SpaceOption,
    StopAtOption,
    StorageOption,
    StrategyOption,
    TrialsOption,
    VariantOption,
    WarmStartOption,
    YesOption,
)
from orchestrator.plan import Plan, plan_grid
from orchestrator.preset import Preset, load_preset
from orchestrator.search_plan import plan_search
from orchestrator.standing import statuses
from orchestrator.sweep import Request, check_writable, work_of
from results.errors import LedgerError
from trainables.data.errors import DataError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
plan_app = typer.Typer(no_args_is_help=True, help="Show what would run, what is already done, and what it would cost.")
app.add_typer(plan_app, name="plan")


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
    root = _local(storage)
    if not dry_run:
        check_writable(root)
    plan = _keeping(plan_grid(load_preset(preset, set_ or (), seeds), root), keep_checkpoints)
    if dry_run:
        show_plan(plan, root, as_json=False)
        return
    budget = _budget(plan, max_gpu_hours, max_hours, max_trials, stop_at)
    raise typer.Exit(launch(plan, root, Request(budget=budget), backend, address, ask=not yes))


@app.command()
def search(
    preset: PresetOption = "embedded",
    storage: StorageOption = "sweeps-data",
    set_: SetOption = None,
    strategy: StrategyOption = None,
    space: SpaceOption = None,
    trials: SearchTrialsOption = None,
    sampler: SamplerOption = None,
    grace: GraceOption = None,
    eta: EtaOption = None,
    variant: VariantOption = None,
    max_epochs: MaxEpochsOption = None,
    seed: SearchSeedOption = None,
    warm_start: WarmStartOption = False,
    then_compare: Annotated[
        bool,
        typer.Option("--then-compare", help="Then the winner, a plain model tuned alike and an untuned one on all mixtures."),
    ] = False,
    seeds: SeedsOption = None,
    yes: YesOption = False,
    backend: BackendOption = BackendName.ray,
    address: AddressOption = None,
    max_gpu_hours: GpuHoursOption = None,
    max_hours: HoursOption = None,
    max_trials: TrialsOption = None,
    stop_at: StopAtOption = None,
    keep_checkpoints: KeepOption = None,
) -> None:
    """Search a space of settings, and stop trials early that fall behind. The same command again goes on where it was.

    Example: python -m orchestrator.run search --trials 20 --sampler tpe --eta 2
    """
    root = _local(storage)
    check_writable(root)
    asked = _searching(strategy, trials, sampler, grace, eta, variant, max_epochs, seed, warm_start)
    chosen = _preset_of_search(preset, set_, asked, space, seeds)
    searches = [chosen, _of_control(chosen)] if then_compare else [chosen]
    for each in searches:  # complains before anything is spent
        plan_search(each, root)

    def run(planned: Plan) -> int:
        plan = _keeping(planned, keep_checkpoints)
        budget = _budget(plan, max_gpu_hours, max_hours, max_trials, stop_at)
        return launch(plan, root, Request(budget=budget), backend, address, ask=not yes)

    codes = []
    for each in searches:
        codes.append(run(plan_search(each, root)))
        if then_compare and work_of(plan_search(each, root), root).num_left:
            say("the same command goes on, and compares at last")
            raise typer.Exit(max(codes))
    if then_compare:
        plan = plan_comparison(chosen, [winner_of(plan_search(each, root), root) for each in searches])
        codes.append(run(plan))
        epochs = {f"{trial.label} {trial.config.training.epochs}" for trial in plan.trials}
        say(f"epochs: {', '.join(sorted(epochs))}; the untuned model has the preset's")
        say(f"the comparison: python -m results table grid --sweep {plan.sweep_id} --storage {root}")
    raise typer.Exit(max(codes))


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
    root = _existing(storage)
    plan = _frozen(root, sweep_id) if sweep_id else next(_unfinished(root), None)
    if plan is None:
        say(f"nothing to resume: every sweep in {root} is finished" if sweep_ids(root) else f"no sweeps in {root}")
        return
    check_current(plan)
    budget = _budget(plan, max_gpu_hours, max_hours, max_trials, stop_at)
    raise typer.Exit(launch(_keeping(plan, keep_checkpoints), root, Request(budget=budget), backend, address, ask=False))


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
    root = _existing(storage)
    plans = (_frozen(root, sweep_id),) if sweep_id else _readable(root, sweep_ids(root))
    plan, keys = next(((plan, keys) for plan in plans if (keys := _failed_keys(plan, root))), (None, frozenset[str]()))
    if plan is None:
        say(f"nothing to retry: no trial of {sweep_id or 'any sweep'} has failed")
        return
    check_current(plan)
    raise typer.Exit(launch(plan, root, Request(retry=keys), backend, address, ask=False))


@app.command()
def replay(
    trial_key: Annotated[str, typer.Argument(help="Key of a completed trial.")],
    storage: StorageOption = "sweeps-data",
    as_json: JsonOption = False,
) -> None:
    """Run a recorded trial again from its provenance and compare: equal to the bit, within a tolerance, or different.

    Example: python -m orchestrator.run replay 6648dcd991643f3c
    """
    from orchestrator.replay import replay_trial

    replayed = replay_trial(trial_key, _existing(storage), say)
    if as_json:
        print(json.dumps(replayed.to_json()))
    else:
        for line in replayed.describe():
            print(line)
    raise typer.Exit(0 if replayed.is_same else 1)


@app.command()
def simulate(
    storage: StorageOption = "sweeps-data",
    sweep: Annotated[str | None, typer.Option("--sweep", help="Curves of this sweep; without one, of all.")] = None,
    grace: Annotated[list[float] | None, typer.Option("--grace", help="Epochs before the first decision; repeatable.")] = None,
    eta: Annotated[list[int] | None, typer.Option("--eta", help="One in eta goes on at each rung; repeatable.")] = None,
    slots: Annotated[list[int] | None, typer.Option("--slots", min=1, help="Trials at a time; repeatable.")] = None,
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="Trials a search draws; without it, all.")] = None,
    searches: Annotated[
        int, typer.Option("--searches", min=1, help="Orders of the trials to simulate for each setting.")
    ] = 200,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A figure of it: html, svg, png or pdf.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Replay recorded learning curves under early stopping (ASHA): epochs saved, and what that would have cost in loss.

    Example: python -m orchestrator.run simulate --grace 1 --eta 2 --eta 3 --slots 2
    """
    from rich.console import Console

    from orchestrator.curves import load_curves, saved_table
    from orchestrator.simulate import SettingsGrid, sweep_settings

    form = "" if output is None else output.suffix.removeprefix(".")
    if output is not None and form not in ("html", "svg", "png", "pdf"):
        raise SweepError(f"--output must end in .html, .svg, .png or .pdf, got {output}")
    curves, max_epochs = load_curves(_existing(storage), sweep)
    settings = SettingsGrid(
        graces=grace or [1.0],
        etas=eta or [2, 3, 4],
        slots=slots or [2],
        variants=("stopping", "promotion"),
        seeds=range(searches),
        max_trials=trials,
    )
    found = sweep_settings(curves, settings, max_epochs)
    if output is not None:
        from results.charts import encode_chart
        from results.savings_figure import draw_savings

        output.write_bytes(encode_chart(draw_savings(found.to_pylist()), form))
        say(str(output))
    if as_json:
        print(json.dumps(found.to_pylist()))
        return
    Console().print(saved_table(found))
    say(f"{len(curves)} recorded curves of {max_epochs:g} epochs, {searches} orders each; median [5 %, 95 %]")
    say("saved: epochs not trained, and hours of trials, which times the GPUs of a trial are GPU-hours")
    say("regret: the winner's final loss above the best of all; best: searches without regret")


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
    show_plan(plan_grid(load_preset(preset, set_ or (), seeds), _local(storage)), _local(storage), as_json)


@plan_app.command("search")
def plan_search_command(
    preset: PresetOption = "embedded",
    storage: StorageOption = "sweeps-data",
    set_: SetOption = None,
    strategy: StrategyOption = None,
    space: SpaceOption = None,
    trials: SearchTrialsOption = None,
    sampler: SamplerOption = None,
    grace: GraceOption = None,
    eta: EtaOption = None,
    variant: VariantOption = None,
    max_epochs: MaxEpochsOption = None,
    seed: SearchSeedOption = None,
    price: Annotated[float | None, typer.Option("--price", min=0, help="Of a GPU-hour, to reckon the cost.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a search is expected to take: trials at each rung, epochs, time, GPU-hours and cost.

    Example: python -m orchestrator.run plan search --trials 60 --eta 3
    """
    root = _local(storage)
    asked = _searching(strategy, trials, sampler, grace, eta, variant, max_epochs, seed, False)
    plan = plan_search(_preset_of_search(preset, set_, asked, space, None), root)
    assert plan.search is not None
    show_forecast(plan, forecast(plan.search, root, plan.preset.resources), as_json, price)


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
    root = _existing(storage)
    while True:
        plans = (_frozen(root, sweep_id),) if sweep_id else _readable(root, reversed(sweep_ids(root)))
        counts = {plan.sweep_id: count_statuses(plan, root) for plan in plans}
        if as_json:
            print(json.dumps(counts))
        elif counts:
            print("\n".join(describe_counts(counts, root)))
        elif not sweep_ids(root):
            say(f"no sweeps in {root} yet; start one with `python -m orchestrator.run grid`")
        if not watch or not any(holder_of(sweep_dir(root, each) / "driver", time.time()) for each in counts):
            return
        time.sleep(2)


def _local(storage: str) -> Path:
    if "://" in storage:
        raise SweepError(
            f"--storage must be a local or mounted path to run sweeps, got {storage}; results can be read from a URI"
        )
    return Path(storage).expanduser().resolve()


def _existing(storage: str) -> Path:
    root = _local(storage)
    if not root.is_dir():
        raise SweepError(f"there is no storage {root}; name another with --storage or $SWEEPS_STORAGE, or run a grid first")
    return root


def _searching(
    strategy: str | None,
    trials: int | None,
    sampler: str | None,
    grace: float | None,
    eta: int | None,
    variant: str | None,
    max_epochs: int | None,
    seed: int | None,
    warm_start: bool,
) -> dict[str, Any]:
    """What the options say, as settings of the preset's section `search`."""
    given = {
        "strategy": strategy,
        "trials": trials,
        "sampler": sampler,
        "grace": grace,
        "eta": eta,
        "variant": variant,
        "max_epochs": max_epochs,
        "seed": seed,
        "warm_start": warm_start or None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _preset_of_search(
    preset: str, set_: list[str] | None, asked: Mapping[str, Any], space: str | None, seeds: int | None
) -> Preset:
    """The preset with what the options say of its search; a narrowing takes none of what it would not look at."""
    overrides = [*(set_ or ()), *(f"search.{name}={json.dumps(value)}" for name, value in asked.items())]
    chosen = load_preset(preset, overrides, seeds)
    narrows = chosen.search.strategy == "narrowing"
    idle = set(asked) & {"trials", "sampler", "grace", "eta", "variant", "seed"}
    if narrows and idle:
        named = ", ".join(f"--{name}" for name in sorted(idle))
        raise SweepError(f"a narrowing tries all points of its stages in full, so {named} would change nothing; leave it out")
    if space is None:
        return chosen
    return load_preset(preset, [*overrides, f"search.{'narrowing' if narrows else 'space'}={json.dumps(space)}"], seeds)


def _of_control(preset: Preset) -> Preset:
    """The same search of the plain model's space."""
    settings = preset.search.model_copy(update={"strategy": "asha", "space": preset.search.control})
    return preset.model_copy(update={"search": settings})


def _keeping(plan: Plan, keep: Keep | None) -> Plan:
    """The plan with another choice of which weights stay; not part of what it runs."""
    if keep is None:
        return plan
    recovery = plan.preset.recovery.model_copy(update={"keep_checkpoints": keep.value})
    return replace(plan, preset=plan.preset.model_copy(update={"recovery": recovery}))


def _budget(
    plan: Plan, max_gpu_hours: float | None, max_hours: float | None, max_trials: int | None, stop_at: str | None
) -> Budget:
    goal = None if stop_at is None else parse_stop_at(stop_at, list(plan.preset.domains))
    return Budget(gpu_hours=max_gpu_hours, hours=max_hours, trials=max_trials, stop_at=goal)


def _failed_keys(plan: Plan, storage: Path) -> frozenset[str]:
    known = statuses(storage, (trial.key for trial in plan.trials))
    return frozenset(key for key, how in known.items() if how.is_failed)


def _frozen(storage: Path, sweep_id: str) -> Plan:
    try:
        return load_plan(storage, sweep_id)
    except FileNotFoundError:
        known = sweep_ids(storage)
        nearest = get_close_matches(sweep_id, known, n=1, cutoff=0.5)
        hint = f"; did you mean {nearest[0]}?" if nearest else f"; there are: {', '.join(known) or 'none'}"
        raise SweepError(f"no sweep {sweep_id!r} in {storage}{hint}") from None
    except (ValueError, KeyError) as error:
        raise SweepError(
            f"sweep {sweep_id} cannot be read: {error}; run the sweep's own command again, which writes its plan anew "
            "(`python -m results verify` lists what else is wrong)"
        ) from error


def _unfinished(storage: Path) -> Iterator[Plan]:
    """The sweeps that have something left to run, the newest first; says which cannot be told."""
    for plan in _readable(storage, sweep_ids(storage)):
        try:
            left = work_of(plan, storage).num_left
        except SweepError as error:
            say(f"passed over: {plan.sweep_id}: {error}")
            continue
        if left:
            yield plan


def _readable(storage: Path, ids: Iterable[str]) -> Iterator[Plan]:
    """The sweeps that this version can read; says which it cannot."""
    for each in ids:
        try:
            plan = _frozen(storage, each)
        except SweepError as error:
            say(f"passed over: {error}")
            continue
        yield plan


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
