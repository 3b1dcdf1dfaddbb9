"""The options that several commands have in common."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from orchestrator.launch import BackendName

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
]


class Keep(StrEnum):
    """Which completed trials' final weights stay."""

    none = "none"
    best = "best"
    all = "all"


PresetOption = Annotated[str, typer.Option("--preset", help="A shipped preset (embedded, paper) or a YAML file.")]
StorageOption = Annotated[str, typer.Option("--storage", envvar="SWEEPS_STORAGE", help="Folder that holds everything.")]
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
