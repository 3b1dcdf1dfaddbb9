"""Presets: a YAML file of defaults, overridden by `--set key=value`, checked as a whole before anything is spent."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from orchestrator.errors import PresetError
from orchestrator.preset_yaml import read_yaml
from orchestrator.search_settings import SearchSettings
from trainables.config import EvaluationConfig, Settings, Share, TrainingConfig
from trainables.data.sources import without_split
from trainables.data.spec import DomainSpec
from trainables.registry import names as trainable_names
from trainables.registry import settings_of

__all__ = ["EMBEDDED", "Preset", "Recovery", "Resources", "describe_error", "load_preset"]

_FILE_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet", ".gz", ".txt", ".tsv")

_GPU_RULE = "gpus_per_trial must be auto, a whole number, or 1/k for trials_per_gpu: k"
_SHARE_TOLERANCE = 0.01
"""How far 1/share may be from a whole number of trials: 0.333 is a third, 0.33 is not."""

EMBEDDED = "embedded"
"""As the encoder, or as a domain's file: the one that ships with the package."""


class Resources(Settings):
    """What a running trial holds. None of it changes a result, but for the number of CPUs, which fixes torch's threads.

    Trials that share a GPU are asked for by `trials_per_gpu` alone: `gpus_per_trial: 0.5` is read as `trials_per_gpu: 2`.
    """

    cpus_per_trial: int = Field(1, ge=1)
    gpus_per_trial: int | Literal["auto"] = Field("auto", description="whole GPUs; auto: 1 where there are GPUs")
    trials_per_gpu: int | Literal["auto"] = Field(
        1, description="trials that share one GPU; auto: as many as the peak memory of the hungriest trial, measured, allows"
    )
    max_concurrent: int | None = Field(None, ge=1, description="null: as many as the resources allow")
    memory_gib_per_trial: float | None = Field(
        None, gt=0, description="a worker that would grow beyond it is out of memory; null: no limit"
    )

    @property
    def memory_bytes(self) -> int | None:
        """Memory of one trial; None: no limit."""
        return None if self.memory_gib_per_trial is None else int(self.memory_gib_per_trial * 1024**3)

    @model_validator(mode="before")
    @classmethod
    def _one_way_to_share(cls, values: Any) -> Any:
        """A fraction of a GPU becomes the trials that share it."""
        if not isinstance(values, Mapping):
            return values
        given = dict(values)
        gpus = given.get("gpus_per_trial", "auto")
        if isinstance(gpus, float) and 0 < gpus < 1:
            sharing = _whole_trials(gpus)
            if given.get("trials_per_gpu", 1) not in (1, sharing):
                raise ValueError(
                    f"trials_per_gpu is {given['trials_per_gpu']!r} and gpus_per_trial is {gpus:g}, which says it once more; "
                    "leave gpus_per_trial out"
                )
            given |= {"gpus_per_trial": 1, "trials_per_gpu": sharing}
        elif gpus != "auto" and not _is_whole(gpus):
            between = isinstance(gpus, float) and gpus > 1 and math.isfinite(gpus)
            nearest = f"; the nearest are {int(gpus)} and {int(gpus) + 1}" if between else ""
            raise ValueError(f"{_GPU_RULE}, got {gpus!r}{nearest}")
        return given

    @field_validator("trials_per_gpu", mode="before")
    @classmethod
    def _at_least_one(cls, value: Any) -> Any:
        if value == "auto" or (_is_whole(value) and value >= 1):
            return value
        raise ValueError("trials_per_gpu must be auto or a whole number of trials, at least 1")

    @model_validator(mode="after")
    def _shares_one_gpu(self) -> Resources:
        without_gpu = self.trials_per_gpu == "auto" and self.gpus_per_trial == 0  # there is nothing to measure then
        if self.trials_per_gpu != 1 and self.gpus_per_trial not in ("auto", 1) and not without_gpu:
            raise ValueError(
                f"trials_per_gpu is {self.trials_per_gpu} and gpus_per_trial is {self.gpus_per_trial}: trials share one GPU, "
                "so gpus_per_trial must be auto or 1; leave one of the two out"
            )
        return self


def _is_whole(value: Any) -> bool:
    """Also 1.0, as earlier versions wrote it."""
    return not isinstance(value, bool) and isinstance(value, int | float) and value >= 0 and float(value).is_integer()


def _whole_trials(share: float) -> int:
    """The k of a share that is 1/k: Ray packs other fractions wrongly (ray issue 5902).

    Raises:
        ValueError: it is none.
    """
    if abs(1 / share - round(1 / share)) < _SHARE_TOLERANCE:
        return round(1 / share)
    above, below = math.ceil(1 / share), math.floor(1 / share)
    raise ValueError(
        f"{_GPU_RULE}, got {share:g}; the nearest are {1 / above:.4g} (resources.trials_per_gpu={above}) "
        f"and {1 / below:.4g} (resources.trials_per_gpu={below})"
    )


class Recovery(Settings):
    """What happens when something breaks (`orchestrator.failures` has the policies), and which checkpoints are kept."""

    max_retries: int = Field(1, ge=0, description="further attempts after a failed one")
    max_same_failures: int = Field(3, ge=1, description="trials that may fail with the same error before the sweep stops")
    timeout_seconds: float | None = Field(
        3600.0, gt=0, description="a trial that has not reported for so long is ended; null: never"
    )
    storage_patience_seconds: float = Field(
        600.0, ge=0, description="how long trials wait for a storage that is full or away before they end"
    )
    checkpoint_seconds: float = Field(
        30.0, ge=0, description="least time between two checkpoints of a trial; more where they take over a fiftieth of it"
    )
    keep_checkpoints: Literal["none", "best", "all"] = Field("all", description="final weights kept of completed trials")
    num_best: int = Field(3, ge=1, description="with keep_checkpoints: best, trials with the lowest validation loss")


class Preset(Settings):
    """A sweep's defaults. `training`, `evaluation` and `model` are overlays on each trainable's own settings."""

    name: str
    encoder: str
    domains: dict[str, DomainSpec] = Field(description="two, in the order in which shares count them, or more in `groups`")
    groups: tuple[tuple[str, ...], tuple[str, ...]] | None = Field(
        None,
        description="two groups of domains: shares count between them, and a group's examples come from its domains evenly",
    )
    mixture_size: int = Field(4000, ge=1)
    shares: tuple[Share, ...] = (0, 20, 40, 60, 80, 100)
    orders: tuple[Literal["concatenated", "shuffled"], ...] = ("concatenated", "shuffled")
    sampler: Literal["as_ordered", "paper"] = "as_ordered"
    data_seed: int = Field(0, ge=0)
    trainables: tuple[str, ...] = ("distilbert", "exbert")
    spaces: tuple[str, ...] = Field(
        (), description="search spaces, by name or FILE.py, of whose every point the grid trains each mixture too"
    )
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = (0,)
    validation_share: float = Field(0.1, gt=0, lt=0.5, description="share of a domain's groups held out for validation")
    test_share: float = Field(
        0.1, gt=0, lt=0.5, description="share of the groups held out for test where no test file is named"
    )
    model: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    evaluation: dict[str, Any] = Field(default_factory=dict)
    resources: Resources = Resources()
    recovery: Recovery = Recovery()
    search: SearchSettings = SearchSettings()
    overrides: dict[str, Any] = Field(
        default_factory=dict, description="what --set gave for model, training and evaluation: wins over variants"
    )

    @field_validator("domains", mode="before")
    @classmethod
    def _embedded_domains(cls, value: Any) -> Any:
        """`squad: embedded` is short for its files."""
        if isinstance(value, Mapping):
            return {k: {"train": EMBEDDED, "test": EMBEDDED} if v == EMBEDDED else v for k, v in value.items()}
        return value

    @model_validator(mode="after")
    def _two_domains_or_groups(self) -> Preset:
        named = ", ".join(self.domains) or "none"
        if self.groups is None:
            if len(self.domains) != 2:
                raise ValueError(
                    f"the mixture grid needs exactly two domains, got {len(self.domains)}: {named}; "
                    "put more of them into two groups, as in groups: [[a, b], [c]]"
                )
        elif sorted(name for group in self.groups for name in group) != sorted(self.domains) or not all(self.groups):
            given = " and ".join(f"[{', '.join(group)}]" for group in self.groups)
            raise ValueError(f"groups must be two that have each domain once, got {given} for the domains {named}")
        return self

    def examples_at(self, share: int) -> tuple[int, ...]:
        """Examples of each domain in a mixture with `share` percent from the first group; none where there are no groups.

        Raises:
            ValueError: these are not whole numbers.
        """
        if self.groups is None:
            return ()
        found: dict[str, int] = {}
        for group, percent in zip(self.groups, (share, 100 - share), strict=True):
            whole, rest = divmod(self.mixture_size * percent, 100 * len(group))
            if rest:
                raise ValueError(
                    f"{percent} % of mixture_size={self.mixture_size} must be whole numbers of examples of {', '.join(group)}; "
                    f"take a multiple of {100 * len(group)}"
                )
            found |= dict.fromkeys(group, whole)
        return tuple(found[name] for name in self.domains)


def load_preset(name_or_path: str, overrides: Iterable[str] = (), num_seeds: int | None = None) -> Preset:
    """The preset of that name or file with `overrides` ("dotted.key=value", the value in YAML) applied.

    Raises:
        PresetError: no such preset; an unknown key, with the nearest known one; a value out of range, with the range.
    """
    values = _read(name_or_path)
    given: dict[str, Any] = {}
    for override in overrides:
        _set_dotted(given, override)
    if num_seeds is not None:
        given["seeds"] = list(range(num_seeds))
    merged = _merge(values, given)
    for key in ("shares", "orders", "trainables", "spaces", "seeds"):  # `--set trainables=exbert` is a list of one
        if key in merged and not isinstance(merged[key], list):
            merged[key] = [merged[key]]
    _refuse_unknown(merged)
    merged["overrides"] = {key: given[key] for key in ("model", "training", "evaluation") if key in given}
    merged["name"] = name_or_path
    try:
        return Preset.model_validate(merged)
    except ValidationError as error:
        raise PresetError(f"preset {name_or_path}: {describe_error(error)}") from error


def describe_error(error: ValidationError) -> str:
    """One line for pydantic's first complaint: key, value given, rule."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "settings"
    given = first.get("input")
    shown = "" if isinstance(given, Mapping) else f", got {given!r}"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{key}: {first['msg'].removeprefix('Value error, ')}{shown}{more}"


def _read(name_or_path: str) -> dict[str, Any]:
    packaged = resources.files("orchestrator") / "presets"
    shipped = sorted(item.name.removesuffix(".yaml") for item in packaged.iterdir() if item.name.endswith(".yaml"))
    if name_or_path in shipped:
        content, folder = (packaged / f"{name_or_path}.yaml").read_bytes(), None
    elif Path(name_or_path).is_file():
        content, folder = Path(name_or_path).read_bytes(), Path(name_or_path).resolve().parent
    else:
        nearest = difflib.get_close_matches(name_or_path, shipped, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else f"; there is no such file in {Path.cwd()}"
        if Path(name_or_path).is_dir():
            hint = ", which is a folder; name a file in it"
        raise PresetError(f"preset must be one of {', '.join(shipped)} or a YAML file, got {name_or_path!r}{hint}")
    try:
        values = read_yaml(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PresetError(f"preset {name_or_path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise PresetError(f"preset {name_or_path} must be a mapping of keys to values, got {type(values).__name__}")
    return values if folder is None else _with_absolute_paths(values, folder)


def _with_absolute_paths(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Files named in a preset are looked for beside it first; hub ids stay as they are."""

    def located(value: Any) -> Any:
        if not isinstance(value, str) or value == EMBEDDED:
            return value
        path = Path(without_split(value))
        named_here = (folder / path).exists() or (path.suffix in _FILE_SUFFIXES and not path.exists())
        return str(folder / value) if named_here else value

    domains = values.get("domains")
    if isinstance(domains, dict):
        values["domains"] = {
            name: spec | {key: located(spec[key]) for key in ("train", "test") if key in spec}
            if isinstance(spec, dict)
            else spec
            for name, spec in domains.items()
        }
    if "encoder" in values:
        values["encoder"] = located(values["encoder"])
    return values


def _set_dotted(target: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise PresetError(f"--set takes key=value, for example training.epochs=1, got {override!r}")
    *parents, last = dotted.split(".")
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise PresetError(f"--set {dotted}: {parent} was set to {target!r} before, which has no keys inside")
    try:
        target[last] = read_yaml(text)
    except yaml.YAMLError as error:
        raise PresetError(f"--set {dotted}: the value is not YAML: {text!r}") from error


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _refuse_unknown(values: Mapping[str, Any]) -> None:
    """Every key, also inside the overlays, must be read by something."""
    _check_keys(values, set(Preset.model_fields) - {"name", "overrides"}, "")
    for name in values.get("trainables") or ():
        try:
            settings_of(str(name).partition(":")[0])
        except ValueError as error:
            raise PresetError(str(error)) from error
    sections = {
        "model": set().union(*(settings_of(name).model_keys for name in trainable_names())),
        "training": set(TrainingConfig.model_fields),
        "evaluation": set(EvaluationConfig.model_fields),
        "resources": set(Resources.model_fields),
        "recovery": set(Recovery.model_fields),
        "search": set(SearchSettings.model_fields),
    }
    for section, known in sections.items():
        _check_keys(values.get(section), known, f"{section}.")
    domains = values.get("domains")
    for name, spec in domains.items() if isinstance(domains, Mapping) else ():
        _check_keys(spec, set(DomainSpec.model_fields), f"domains.{name}.")


def _check_keys(given: Any, known: set[str], prefix: str) -> None:
    for key in given if isinstance(given, Mapping) else ():
        if key not in known:
            nearest = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = (
                f"did you mean {prefix}{nearest[0]}?" if nearest else f"known: {', '.join(sorted(prefix + k for k in known))}"
            )
            raise PresetError(f"unknown key {prefix}{key}; {hint}")
