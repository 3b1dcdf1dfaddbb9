"""The space of a search as the ledger has it: dimensions by dotted name; a narrowing's stages as one space of choices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Condition", "Dimension", "SearchSpace", "Value", "read_space"]

Value = bool | int | float | str | None
"""What a dimension can take."""


@dataclass(frozen=True)
class Condition:
    """Holds where the dimension of that name has one of these values."""

    dimension: str
    values: tuple[Value, ...]


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """A range of numbers, or a choice of values."""

    kind: Literal["int", "float", "choice"]
    low: float = 0.0
    high: float = 0.0
    step: int = 1
    log: bool = False
    values: tuple[Value, ...] = ()
    """Of a choice, as they were listed."""
    when: Condition | None = None
    """Where the dimension applies; None: everywhere."""

    @property
    def options(self) -> tuple[Value, ...]:
        """All of its values; none for a continuous range."""
        if self.kind == "int":
            return tuple(range(int(self.low), int(self.high) + 1, self.step))
        return self.values

    @property
    def is_numeric(self) -> bool:
        """True for ranges and for choices among numbers."""
        return self.kind != "choice" or all(_is_number(value) for value in self.values)

    def position(self, value: Value) -> float:
        """Where `value` lies on the dimension, from 0 to 1: in a range by size, among choices by place."""
        if self.kind == "choice":
            places = [index for index, known in enumerate(self.values) if _is_same(known, value)]
            return places[0] / max(1, len(self.values) - 1) if places else 0.5
        low, high, at = ((math.log(x) if self.log else float(x)) for x in (self.low, self.high, float(value or 0)))
        return (at - low) / (high - low) if high > low else 0.5


@dataclass(frozen=True)
class SearchSpace:
    """What a search varies, in the order in which it decides, and what it keeps."""

    name: str
    dimensions: Mapping[str, Dimension]
    fixed: Mapping[str, Value]


def read_space(space: Mapping[str, Any]) -> SearchSpace:
    """The space from its JSON in `searches.space`."""
    if "stages" in space:
        return _narrowing(space["name"], space["start"], space["stages"])
    dimensions = {name: _dimension(given) for name, given in space["dimensions"].items()}
    return SearchSpace(space["name"], dimensions, space["fixed"])


def _narrowing(title: str, start: Mapping[str, Value], stages: Iterable[Mapping[str, Any]]) -> SearchSpace:
    """Every value that a stage tries or that it begins from is a choice."""
    dimensions: dict[str, Dimension] = {}
    for stage in stages:
        for name, given in stage["dimensions"].items():
            found = _dimension(given)
            earlier = dimensions[name].values if name in dimensions else (start[name],) if name in start else ()
            dimensions[name] = Dimension(kind="choice", values=_listed([*earlier, *found.options]), when=found.when)
    return SearchSpace(title, dimensions, {name: value for name, value in start.items() if name not in dimensions})


def _dimension(given: Mapping[str, Any]) -> Dimension:
    when = Condition(given["when"]["dimension"], tuple(given["when"]["values"])) if given.get("when") else None
    if given["kind"] == "choice":
        return Dimension(kind="choice", values=tuple(given["values"]), when=when)
    return Dimension(
        kind=given["kind"], low=given["low"], high=given["high"], step=given.get("step", 1), log=given["log"], when=when
    )


def _listed(values: Iterable[Value]) -> tuple[Value, ...]:
    """Each value once; numbers by size."""
    once: list[Value] = []
    for value in values:
        if not any(_is_same(value, known) for known in once):
            once.append(value)
    if all(_is_number(value) for value in once):
        once.sort(key=lambda value: float(value or 0))
    return tuple(once)


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_same(one: Value, other: Value) -> bool:
    """1 and 1.0 are the same, 1 and True are not."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)
