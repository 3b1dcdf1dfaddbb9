"""Narrowings: stages in order, each of which fixes the winner of the last. The paper's is one (document A, section 3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from search_spaces.exbert import DROPOUT
from search_spaces.grid import grid_points, grid_size
from search_spaces.plain import check_keys, dimensions_from_json, dimensions_to_json
from search_spaces.space import Choice, Dimension, Space, Value

__all__ = ["NARROWING", "Narrowing", "Stage"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A step of a narrowing: every value of its dimensions is tried, all else stays as decided so far."""

    name: str
    dimensions: Mapping[str, Dimension]

    def __post_init__(self) -> None:
        object.__setattr__(self, "dimensions", dict(self.dimensions))  # its own: the caller's may change later

    @property
    def size(self) -> int:
        """How many points the stage tries."""
        return grid_size(self.dimensions) or 0

    def points(self, winner: Mapping[str, Value]) -> list[dict[str, Value]]:
        """What to try on top of `winner`, the values decided so far; its values for the stage's own dimensions are dropped."""
        kept = {name: value for name, value in winner.items() if name not in self.dimensions}
        return [{**kept, **point} for point in grid_points(self.dimensions)]


@dataclass(frozen=True, kw_only=True)
class Narrowing:
    """Where a search sets out from, and its stages in order.

    Raises:
        ValueError: when made, if there is no stage, two have one name, one has a continuous dimension, or one does not fit the
            trainable's settings.
    """

    name: str
    trainable: str
    start: Mapping[str, Value]
    """Settings by dotted name; those that are neither here nor in a stage are not the narrowing's."""
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", dict(self.start))
        object.__setattr__(self, "stages", tuple(self.stages))
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"narrowing {self.name}: needs stages of different names, got {', '.join(names) or 'none'}")
        for stage in self.stages:
            self._check(stage)

    @property
    def size(self) -> int:
        """How many points all stages try."""
        return sum(stage.size for stage in self.stages)

    def points(self) -> list[dict[str, Value]]:
        """What all stages try, each as if the start had won those before it."""
        return [point for stage in self.stages for point in stage.points(self.start)]

    def to_json(self) -> dict[str, Any]:
        """The narrowing as JSON-ready values, for `from_json`."""
        stages = [{"name": stage.name, "dimensions": dimensions_to_json(stage.dimensions)} for stage in self.stages]
        return {"name": self.name, "trainable": self.trainable, "start": dict(self.start), "stages": stages}

    @classmethod
    def from_json(cls, value: Any) -> Narrowing:
        """The narrowing that `to_json` described.

        Raises:
            ValueError: it describes none, or one that does not fit the trainable's settings any more.
        """
        try:
            check_keys(value, [part.name for part in fields(cls)])
            return cls(**{**value, "stages": tuple(_stage_from_json(stage) for stage in value["stages"])})
        except ValueError as error:
            raise ValueError(f"not the description of a narrowing: {error}") from error

    def _check(self, stage: Stage) -> None:
        others = {name: value for name, value in self.start.items() if name not in stage.dimensions}
        try:
            Space(name=stage.name, trainable=self.trainable, dimensions=stage.dimensions, fixed=others).grid()
        except ValueError as error:
            raise ValueError(f"narrowing {self.name}, stage {str(error).removeprefix('space ')}") from error


def _stage_from_json(value: Any) -> Stage:
    check_keys(value, [part.name for part in fields(Stage)])
    return Stage(name=value["name"], dimensions=dimensions_from_json(value["dimensions"]))


NARROWING = Narrowing(
    name="paper",
    trainable="exbert",
    # The untuned ExBERT, from which the paper set out: sections 2.1 and 3.3; readings 1 and 2
    start={
        "model.n_layers": 6,
        "model.num_experts": 16,
        "training.learning_rate": 2e-5,
        "model.dropout_placement": "none",
    },
    stages=(
        # "Different numbers of experts, but saw minimal difference"; reading 2
        Stage(name="experts", dimensions={"model.num_experts": Choice([8, 12, 16])}),
        # Fig 4; the paper went on with 4
        Stage(name="blocks", dimensions={"model.n_layers": Choice([3, 4, 5, 6])}),
        # Fig 5: half, once, twice and five times the rate of V-DB; the paper went on with 1e-4
        Stage(name="learning_rate", dimensions={"training.learning_rate": Choice([1e-5, 2e-5, 4e-5, 1e-4])}),
        # The paper ended with 0.1 before the expert layer
        Stage(name="dropout", dimensions=DROPOUT),
    ),
)
"""Experts, blocks, learning rate, dropout. Each point of it is a point of the space `exbert`."""
