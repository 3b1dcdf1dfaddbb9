"""From a preset to a search: its space, and the base configuration around which it searches."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from orchestrator.decisions import with_suggested
from orchestrator.errors import PlanError
from orchestrator.node_files import node_files
from orchestrator.plan import Plan, make_trial, resolve_data
from orchestrator.preset import Preset
from orchestrator.search_spec import SearchSpec
from results.storage import StorageLike
from search_spaces.config_fields import nested
from search_spaces.mixture_grid import GridPoint
from search_spaces.space import Space
from search_spaces.stages import Narrowing
from trainables.data.sources import data_fingerprint, pinned

__all__ = ["plan_search"]

_DECIDED = {
    "training.epochs": "search.max_epochs",
    "evaluation.reports_per_epoch": "search.reports_per_epoch",
    "evaluation.validate_at": "search.reports_per_epoch",
}
"""Settings that every trial of a search has from the search's own."""


def plan_search(preset: Preset, storage: StorageLike) -> Plan:
    """The search that the preset's section `search` describes, with the trials that it has suggested so far.

    Raises:
        PlanError: a space or a setting that cannot be.
        DataError: a file that is missing, or a hub that cannot be reached.
    """
    from orchestrator.proposals import proposer_of  # brings Optuna
    from search_spaces.registry import load_narrowing, load_space  # checks all spaces that ship: see `orchestrator.plan`

    settings = preset.search
    narrowing = settings.strategy == "narrowing"
    try:
        space = load_narrowing(settings.narrowing) if narrowing else load_space(settings.space)
    except ValueError as error:
        raise PlanError(str(error)) from error
    _check_free(preset, space)
    data = pinned(resolve_data(preset, storage))
    fingerprint, data = data_fingerprint(data), node_files(storage).adopt(data)
    point = GridPoint(trainable=space.trainable, share=settings.share, order="shuffled", seed=preset.seeds[0])
    changes: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for section, given in nested(space.start if isinstance(space, Narrowing) else space.fixed).items():
        changes[section].update(given)
    changes["training"]["epochs"] = settings.max_epochs
    changes["evaluation"] |= {"reports_per_epoch": settings.reports_per_epoch, "validate_at": "report"}
    base = make_trial(preset, point, data, fingerprint, changes)
    if base.parents:
        raise PlanError(
            f"a trial of {base.label} begins from {len(base.parents)} others, which a search does not train; take every point "
            f"of the space instead: grid --set 'spaces=[{space.name}]'"
        )
    spec = SearchSpec(settings=settings, space=space, base=base)
    proposer_of(spec)  # says which package the sampler lacks
    return with_suggested(Plan(kind="search", preset=preset, trials=(), search=spec), storage)


def _check_free(preset: Preset, space: Space | Narrowing) -> None:
    """What --set fixed cannot vary, nor be fixed otherwise."""
    dimensions = [space.dimensions] if isinstance(space, Space) else [stage.dimensions for stage in space.stages]
    varied = {name for each in dimensions for name in each}
    fixed = space.fixed if isinstance(space, Space) else space.start
    for section, given in preset.overrides.items():
        for name in given:
            if f"{section}.{name}" in varied:
                raise PlanError(
                    f"--set {section}.{name} fixes what {space.name} varies; leave it out, or give a space of your own "
                    "in which it is fixed (--space FILE.py)"
                )
            decided = space.name if f"{section}.{name}" in fixed else _DECIDED.get(f"{section}.{name}")
            if decided:
                raise PlanError(f"--set {section}.{name} has no effect on a search, whose trials have it from {decided}")
