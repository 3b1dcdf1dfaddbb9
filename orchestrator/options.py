"""The options that several commands have in common, and what they make of a plan."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Annotated

import typer

from orchestrator.budget import Budget, parse_stop_at
from orchestrator.launch import BackendName
from orchestrator.plan import Plan

__all__ = [
    "AddressOption",
    "BackendOption",
    "EtaOption",
    "GpuHoursOption",
    "GraceOption",
    "HoursOption",
    "JsonOption",
    "Keep",
    "KeepOption",
    "MaxEpochsOption",
    "PresetOption",
    "SamplerOption",
    "SearchSeedOption",
    "SearchTrialsOption",
    "SeedsOption",
    "SetOption",
    "SpaceOption",
    "StopAtOption",
    "StorageOption",
    "StrategyOption",
    "TrialsOption",
    "VariantOption",
    "WarmStartOption",
    "YesOption",
    "budget_of",
    "with_kept",
]


class Keep(StrEnum):
    """Which completed trials' final weights stay."""

    none = "none"
    best = "best"
    all = "all"


PresetOption = Annotated[str, typer.Option("--preset", help="A shipped preset (embedded, paper) or a YAML file.")]
StorageOption = Annotated[
    str, typer.Option("--storage", envvar="SWEEPS_STORAGE", help="Folder or s3:// URI that holds everything.")
]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Override a preset's key, e.g. training.epochs=1.")]
SeedsOption = Annotated[int | None, typer.Option("--seeds", min=1, help="Run every configuration with seeds 0..N-1.")]
AddressOption = Annotated[str | None, typer.Option("--address", envvar="RAY_ADDRESS", help="Ray cluster; none: a local Ray.")]
BackendOption = Annotated[BackendName, typer.Option("--backend", help="inline: one trial at a time, in this process.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask before a long sweep.")]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]
GpuHoursOption = Annotated[
    float | None, typer.Option("--max-gpu-hours", min=0, help="GPU-hours at which it stops, all runs added.")
]
HoursOption = Annotated[
    float | None, typer.Option("--max-hours", min=0, help="Hours by the clock at which it stops, all runs added.")
]
TrialsOption = Annotated[int | None, typer.Option("--max-trials", min=0, help="Run so many trials of the sweep to their end.")]
StopAtOption = Annotated[
    str | None, typer.Option("--stop-at", help="Stop when a validation reaches em_DOMAIN=PERCENT or val_qa_loss=NATS.")
]
KeepOption = Annotated[Keep | None, typer.Option("--keep-checkpoints", help="Final weights to keep; none: as the preset says.")]

StrategyOption = Annotated[str | None, typer.Option("--strategy", help="asha, or the paper's narrowing.")]
SpaceOption = Annotated[str | None, typer.Option("--space", help="A shipped space, or FILE.py; of a narrowing its stages.")]
SearchTrialsOption = Annotated[int | None, typer.Option("--trials", help="Points to try.")]
SamplerOption = Annotated[str | None, typer.Option("--sampler", help="tpe, random, gp, qmc or cmaes.")]
GraceOption = Annotated[float | None, typer.Option("--grace", help="Epochs before a trial is first judged.")]
EtaOption = Annotated[int | None, typer.Option("--eta", help="One in eta goes on at each rung.")]
VariantOption = Annotated[str | None, typer.Option("--variant", help="stopping, or promotion of paused trials.")]
MaxEpochsOption = Annotated[int | None, typer.Option("--max-epochs", help="Epochs of a trial that is never stopped.")]
SearchSeedOption = Annotated[int | None, typer.Option("--seed", help="Of the suggestions.")]
WarmStartOption = Annotated[bool, typer.Option("--warm-start", help="Learn from fitting trials in the ledger.")]


def with_kept(plan: Plan, keep: Keep | None) -> Plan:
    """The plan with another choice of which weights stay; not part of what it runs."""
    if keep is None:
        return plan
    recovery = plan.preset.recovery.model_copy(update={"keep_checkpoints": keep.value})
    return replace(plan, preset=plan.preset.model_copy(update={"recovery": recovery}))


def budget_of(
    plan: Plan, max_gpu_hours: float | None, max_hours: float | None, max_trials: int | None, stop_at: str | None
) -> Budget:
    """The budget that the options give. Raises SweepError for a `stop_at` that names no metric of the plan."""
    goal = None if stop_at is None else parse_stop_at(stop_at, list(plan.preset.domains))
    return Budget(gpu_hours=max_gpu_hours, hours=max_hours, trials=max_trials, stop_at=goal)
