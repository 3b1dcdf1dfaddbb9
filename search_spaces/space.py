"""A search space: which settings of a trainable may vary, within which bounds and under which conditions, and what is fixed.

Space(
    name="layers",
    trainable="exbert",
    dimensions={
        "model.n_layers": Int(3, 6),
        "model.dropout_placement": Choice(["none", "before"]),
        "model.moe_dropout": Float(0.05, 0.5, when=Condition("model.dropout_placement", ["before"])),
    },
    fixed={"training.batch_size": 8},
)
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from search_spaces.checks import check_space
from search_spaces.config_fields import nearest, nested
from search_spaces.dimensions import Choice, Condition, Dimension, Float, Int, Value
from search_spaces.grid import grid_points, grid_size, make_point
from search_spaces.plain import check_keys, dimensions_from_json, dimensions_to_json

__all__ = ["Choice", "Condition", "Dimension", "Float", "Int", "Space", "Value"]


@dataclass(frozen=True, kw_only=True)
class Space:
    """Dimensions by the dotted names of the trainable's settings, in the order in which they are decided.

    Raises:
        ValueError: when made, if a name, a bound, a choice or a condition does not fit the trainable's settings.
    """

    name: str
    trainable: str
    dimensions: Mapping[str, Dimension]
    fixed: Mapping[str, Value] = field(default_factory=dict)
    """Settings that every trial of the space has, by dotted name."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "dimensions", dict(self.dimensions))  # its own: the caller's may change later
        object.__setattr__(self, "fixed", dict(self.fixed))
        try:
            check_space(self.trainable, self.dimensions, self.fixed)
        except ValueError as error:
            raise ValueError(f"space {self.name}: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """The space as JSON-ready values, for `from_json`."""
        dimensions = dimensions_to_json(self.dimensions)
        return {"name": self.name, "trainable": self.trainable, "fixed": dict(self.fixed), "dimensions": dimensions}

    @classmethod
    def from_json(cls, value: Any) -> Space:
        """The space that `to_json` described; sorted keys do no harm.

        Raises:
            ValueError: it describes none, or one that does not fit the trainable's settings any more.
        """
        try:
            check_keys(value, [part.name for part in fields(cls)])
            return cls(**{**value, "dimensions": dimensions_from_json(value["dimensions"])})
        except ValueError as error:
            raise ValueError(f"not the description of a space: {error}") from error

    @property
    def size(self) -> int | None:
        """How many points it has; None: a dimension is continuous."""
        return grid_size(self.dimensions)

    def active(self, values: Mapping[str, Value]) -> tuple[str, ...]:
        """The dimensions that apply given `values`, in order. One whose condition has no value yet does not apply."""
        found: dict[str, None] = {}
        for name, dimension in self.dimensions.items():
            when = dimension.when
            if when is None or (when.dimension in found and when.holds(values)):
                found[name] = None
        return tuple(found)

    def complete(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """`values` in the space's order, each as its dimension lists it.

        Raises:
            ValueError: naming every value that is missing, superfluous or out of range.
        """
        active = self.active(values)
        problems = [self._why_superfluous(name, values) for name in values if name not in active]
        point: dict[str, Value] = {}
        for name in active:
            if name not in values:
                problems.append(f"{name} is missing, it must be {self.dimensions[name].describe()}")
                continue
            try:
                point[name] = self.dimensions[name].checked(values[name])
            except ValueError as error:
                problems.append(f"{name} {error}")
        if problems:
            raise ValueError(f"space {self.name}: {'; '.join(problems)}")
        return point

    def overrides(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """The point as nested settings, the fixed ones included: {"model": {...}, "training": {...}}.

        Raises:
            ValueError: as `complete`.
        """
        return nested({**self.fixed, **self.complete(values)})

    def grid(self) -> Iterator[dict[str, Value]]:
        """Every point, the first dimension outermost.

        Raises:
            ValueError: at once, if a dimension is continuous.
        """
        try:
            return grid_points(self.dimensions)
        except ValueError as error:
            raise ValueError(f"space {self.name}: {error}") from error

    def corners(self) -> list[dict[str, Value]]:
        """Points at both ends of every range and with every listed value."""
        listed = [(name, value) for name, each in self.dimensions.items() if isinstance(each, Choice) for value in each.values]
        given: list[dict[str, Value]] = [{}, *({name: value} for name, value in listed)]
        return [self._corner(end, values) for values in given for end in (0, -1)]

    def sample(self, num_points: int, generator: random.Random) -> list[dict[str, Value]]:
        """Points drawn at random, each dimension by its own scale."""
        return [make_point(self.dimensions, lambda _, each: each.draw(generator)) for _ in range(num_points)]

    def _corner(self, end: int, given: Mapping[str, Value]) -> dict[str, Value]:
        """Every dimension at its first or last value but those `given`."""
        return make_point(self.dimensions, lambda name, dimension: given.get(name, dimension.ends[end]))

    def _why_superfluous(self, name: str, values: Mapping[str, Value]) -> str:
        dimension = self.dimensions.get(name)
        if name in self.fixed:
            return f"{name} is fixed to {self.fixed[name]!r}, leave it out"
        if dimension is None or dimension.when is None:
            return f"{name} is not one of its dimensions {', '.join(self.dimensions)}{nearest(name, self.dimensions)}"
        parent = dimension.when.dimension
        state = f"is {values[parent]!r}" if parent in values else "is not given"
        return f"{name} does not apply where {parent} {state}, leave it out"
