"""From a preset to the trials of a sweep. Cheap: reads settings and file hashes, never rows, and imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import ValidationError

from orchestrator.errors import PlanError
from orchestrator.node_files import node_files
from orchestrator.patience import unwritable
from orchestrator.preset import EMBEDDED, Preset, describe_error
from orchestrator.search_spec import SearchSpec
from orchestrator.trial import Trial
from results.storage import StorageLike
from search_spaces.grid import point_text
from search_spaces.mixture_grid import GridPoint, mixture_grid
from search_spaces.space import Space
from trainables.config import ParentPoint, QAConfig
from trainables.data.sources import data_fingerprint, pinned, without_split
from trainables.data.spec import DataSpec, DomainSpec
from trainables.registry import TrainableSettings, settings_of

__all__ = ["Plan", "make_trial", "plan_grid", "resolve_data"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep's trials, in the order in which they should start. Parents come before their children.

    Those of a `search` are the ones that it has suggested so far.
    """

    kind: Literal["grid", "search"]
    preset: Preset
    trials: tuple[Trial, ...]
    search: SearchSpec | None = None

    @property
    def num_trials(self) -> int:
        """Trials of the whole sweep, of a search at most."""
        return len(self.trials) if self.search is None else max(len(self.trials), self.search.num_trials)

    @cached_property
    def sweep_id(self) -> str:
        """The same trials are the same sweep, so that the same command again goes on where it was; so is the same search."""
        if self.search is not None:
            return f"{self.kind}-{self.search.identity}"
        keys = "\n".join(sorted(trial.key for trial in self.trials))
        return f"{self.kind}-{hashlib.sha256(keys.encode()).hexdigest()[:8]}"


def plan_grid(preset: Preset, storage: StorageLike) -> Plan:
    """The mixture grid of `preset`; `storage` is where embedded corpora are generated when they are asked for.

    Raises:
        PlanError: a trainable, variant or setting that cannot be.
        DataError: a file that is missing, or a hub that cannot be reached.
        StorageError: the storage cannot be written.
    """
    data = pinned(resolve_data(preset, storage))  # workers read what was planned, whatever the hub's main branch becomes
    fingerprint, data = data_fingerprint(data), node_files(storage).adopt(data)
    cells = list(_cells(preset, data, fingerprint))  # settings are checked once: a seed changes none
    trials: dict[str, Trial] = {}
    for seed in preset.seeds:
        for trial in (cell.with_seed(seed) for cell in cells):
            for each in trial.lineage:
                trials.setdefault(each.key, each)
    if not trials:
        raise PlanError("the grid is empty: give at least one of each of shares, orders and seeds, and of trainables or spaces")
    return Plan(kind="grid", preset=preset, trials=tuple(trials.values()))


def _cells(preset: Preset, data: DataSpec, fingerprint: str) -> Iterator[Trial]:
    """The mixture grid of the trainables as the preset sets them, then that of every point of its spaces; all with seed 0."""
    cells = partial(mixture_grid, shares=preset.shares, orders=preset.orders, seeds=[0])
    for cell in cells(trainables=preset.trainables):
        yield make_trial(preset, cell, data, fingerprint)
    for name in preset.spaces:
        from search_spaces.registry import load_space  # checks all spaces that ship, which takes as long as `status` may

        try:
            space = load_space(name)
            points = list(space.grid())
        except ValueError as error:
            raise PlanError(str(error)) from error
        _refuse_settings_given_twice(preset, space)
        plain = [(cell, make_trial(preset, cell, data, fingerprint)) for cell in cells(trainables=[space.trainable])]
        for changes, (cell, trial) in product(map(space.overrides, points), plain):
            yield _named(make_trial(preset, cell, data, fingerprint, changes), trial, changes)


def _refuse_settings_given_twice(preset: Preset, space: Space) -> None:
    for dotted in (*space.dimensions, *space.fixed):
        section, _, setting = dotted.partition(".")
        if setting in preset.overrides.get(section, {}):
            raise PlanError(f"--set gives {dotted}, which the space {space.name} decides; leave one of the two out")


def _named(trial: Trial, plain: Trial, changes: Mapping[str, Mapping[str, Any]]) -> Trial:
    """The trial, its variant saying which of the `changes` to it set it apart from the plain trainable's."""
    differing = {
        f"{section}.{name}": value
        for section, settings in changes.items()
        for name, value in settings.items()
        if section != "mixture" and getattr(getattr(plain.config, section), name) != value
    }
    if trial.config.mixture != plain.config.mixture:
        counts = zip(trial.data.domains, trial.config.mixture.examples, strict=True)
        differing = {"mixture.domain": "+".join(name for name, count in counts if count), **differing}
    return replace(trial, variant=point_text(differing))


def resolve_data(preset: Preset, storage: StorageLike) -> DataSpec:
    """The preset's encoder and domains with `embedded` replaced by files and local paths made absolute."""
    domains = dict(preset.domains)
    if any(spec.train == EMBEDDED or spec.test == EMBEDDED for spec in domains.values()):
        domains = _with_corpora(domains, storage)
    return DataSpec(
        encoder=_embedded_encoder() if preset.encoder == EMBEDDED else _absolute(preset.encoder),
        domains={
            name: spec.model_copy(update={"train": _absolute(spec.train), "test": spec.test and _absolute(spec.test)})
            for name, spec in domains.items()
        },
    )


def _with_corpora(domains: dict[str, DomainSpec], storage: StorageLike) -> dict[str, DomainSpec]:
    """Generates the embedded corpora, unless this version of their generator has done so, and names their files."""
    from trainables.embedded.corpora import DOMAINS, corpora_in

    folder = node_files(storage).corpora_dir
    try:
        files = corpora_in(folder)
    except OSError as error:
        raise unwritable(folder.parent, error) from error
    resolved = {}
    for name, spec in domains.items():
        asked = [part for part in ("train", "test") if getattr(spec, part) == EMBEDDED]
        if asked and name not in DOMAINS:
            raise PlanError(f"embedded corpora are {', '.join(DOMAINS)}, got {name!r}; name a file or a hub id for it")
        resolved[name] = spec.model_copy(update={part: str(files[f"{name}_{part}"]) for part in asked})
    return resolved


def _embedded_encoder() -> str:
    from trainables.embedded import ENCODER_PATH

    return str(ENCODER_PATH)


def _absolute(location: str) -> str:
    path = Path(without_split(location)).expanduser()
    return str(path.resolve()) + location.removeprefix(without_split(location)) if path.exists() else location


def make_trial(
    preset: Preset,
    point: GridPoint,
    data: DataSpec,
    fingerprint: str,
    changes: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Trial:
    """The trial of one cell of a grid; `changes`, by section, win over everything else.

    Raises:
        PlanError: a trainable, variant or setting that cannot be.
    """
    name, _, variant = point.trainable.partition(":")
    try:
        settings = settings_of(name)
    except ValueError as error:
        raise PlanError(str(error)) from error
    config = _config(preset, point, settings, variant, changes)
    try:
        beginnings = settings.parents_of(config)
    except ValueError as error:
        raise PlanError(f"{point.trainable} at share {point.share}: {error}") from error
    parents = (_parent(preset, each, point.seed, data, fingerprint) for each in beginnings)
    return Trial(
        trainable=name,
        variant=variant,
        version=settings.version,
        config=config,
        data=data,
        data_fingerprint=fingerprint,
        seed=point.seed,
        parents=tuple(parents),
    )


def _parent(preset: Preset, which: ParentPoint, seed: int, data: DataSpec, fingerprint: str) -> Trial:
    """A trial that another one begins from."""
    cell = GridPoint(trainable=which.trainable, share=which.share, order=which.order, seed=seed)
    changes = {"model": which.model, "training": which.training}
    if which.examples:
        changes["mixture"] = {"examples": which.examples, "size": sum(which.examples)}
    try:
        trial = make_trial(preset, cell, data, fingerprint, changes)
        return _named(trial, make_trial(preset, cell, data, fingerprint), changes)
    except PlanError as error:
        raise PlanError(f"a trial that others begin from: {error}") from error


def _config(
    preset: Preset, point: GridPoint, settings: TrainableSettings, variant: str, changes: Mapping[str, Mapping[str, Any]]
) -> QAConfig:
    """Trainable's defaults, then the preset, then the variant, then what --set gave, then `changes`."""
    if variant and variant not in settings.variants:
        known = ", ".join(settings.variants) or "none"
        raise PlanError(f"variant of {settings.name} must be one of {known}, got {variant!r}; leave it out for the defaults")
    layers = [
        {"model": preset.model, "training": preset.training, "evaluation": preset.evaluation},
        settings.variants.get(variant, {}),
        preset.overrides,
        changes,
    ]
    values: dict[str, Any] = {section: _overlay(layers, section) for section in ("model", "training", "evaluation")}
    values["model"] = {key: value for key, value in values["model"].items() if key in settings.model_keys}
    try:
        examples = preset.examples_at(point.share)
    except ValueError as error:
        raise PlanError(f"{point.trainable} at share {point.share}: {error}") from error
    values["mixture"] = {
        "share": point.share,
        "size": preset.mixture_size,
        "examples": examples,
        "order": point.order,
        "sampler": preset.sampler,
        "seed": preset.data_seed,
        "validation_share": preset.validation_share,
        "test_share": preset.test_share,
        **changes.get("mixture", {}),
    }
    try:
        return settings.config.model_validate(values)
    except ValidationError as error:
        raise PlanError(f"{point.trainable} at share {point.share}: {describe_error(error)}") from error


def _overlay(layers: Iterable[Mapping[str, Any]], section: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for layer in layers:
        values.update(layer.get(section, {}))
    return values
