"""The commands of `orchestrator.run` that are about searches: run one, forecast one, simulate them on recorded curves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.comparison import check_shares, plan_comparison, winner_of
from orchestrator.console import say, show_forecast
from orchestrator.errors import SweepError
from orchestrator.forecast import forecast
from orchestrator.launch import BackendName, launch
from orchestrator.options import (
    AddressOption,
    BackendOption,
    EtaOption,
    GpuHoursOption,
    GraceOption,
    HoursOption,
    JsonOption,
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
    budget_of,
    with_kept,
)
from orchestrator.plan import Plan
from orchestrator.preset import Preset, load_preset
from orchestrator.search_plan import plan_search
from orchestrator.stored_sweeps import existing_storage, sweep_storage
from orchestrator.sweep import Request, check_writable, work_of

__all__ = ["plan", "search", "simulate"]


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

    What is not given is as the preset says, in its section `search`.

    Example: python -m orchestrator.run search --trials 20 --sampler tpe --eta 2
    """
    root = sweep_storage(storage)
    check_writable(root)
    asked = _asked(
        strategy=strategy,
        trials=trials,
        sampler=sampler,
        grace=grace,
        eta=eta,
        variant=variant,
        max_epochs=max_epochs,
        seed=seed,
        warm_start=warm_start or None,
    )
    chosen = _preset_of_search(preset, set_, asked, space, seeds)
    # Both are planned, and complain, before anything is spent.
    searches = [plan_search(each, root) for each in ([chosen, _of_control(chosen)] if then_compare else [chosen])]
    if then_compare:
        check_shares(chosen)

    def run(planned: Plan) -> int:
        plan = with_kept(planned, keep_checkpoints)
        budget = budget_of(plan, max_gpu_hours, max_hours, max_trials, stop_at)
        return launch(plan, root, Request(budget=budget), backend, address, ask=not yes)

    codes = []
    for each in searches:
        codes.append(run(each))
        if then_compare and work_of(each, root).num_left:
            say("the same command goes on, and compares at last")
            raise typer.Exit(max(codes))
    if then_compare:
        plan = plan_comparison(chosen, [winner_of(each, root) for each in searches])
        codes.append(run(plan))
        epochs = {f"{trial.label} {trial.config.training.epochs}" for trial in plan.trials}
        say(f"epochs: {', '.join(sorted(epochs))}; the untuned model has the preset's")
        for each in searches:
            say(f"a search of it: python -m results table search --sweep {each.sweep_id} --storage {root}")
        say(f"the comparison: python -m results table grid --sweep {plan.sweep_id} --storage {root}")
    raise typer.Exit(max(codes))


def plan(
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
    root = sweep_storage(storage)
    asked = _asked(
        strategy=strategy,
        trials=trials,
        sampler=sampler,
        grace=grace,
        eta=eta,
        variant=variant,
        max_epochs=max_epochs,
        seed=seed,
    )
    planned = plan_search(_preset_of_search(preset, set_, asked, space, None), root)
    assert planned.search is not None
    show_forecast(planned, forecast(planned.search, root, planned.preset.resources), as_json, price)


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

    form = "" if output is None else _image_format(output)
    curves, max_epochs = load_curves(existing_storage(storage), sweep)
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


def _image_format(output: Path) -> str:
    from results.charts import IMAGE_FORMATS  # brings Altair

    form = output.suffix.removeprefix(".")
    if form not in IMAGE_FORMATS:
        raise SweepError(f"--output must end in {', '.join(f'.{each}' for each in IMAGE_FORMATS)}, got {output}")
    return form


def _asked(**given: Any) -> dict[str, Any]:
    """What the options say, as settings of the preset's section `search`."""
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
