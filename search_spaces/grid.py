"""Points made of dimensions' values, those under a condition only where it holds: one, or all combinations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from search_spaces.dimensions import Dimension, Value

__all__ = ["continuous", "grid_points", "grid_size", "make_point", "point_text"]

Dimensions = Mapping[str, Dimension]


def continuous(dimensions: Dimensions) -> list[str]:
    """The names of those with too many values to list."""
    return [name for name, dimension in dimensions.items() if dimension.values is None]


def point_text(values: Mapping[str, Value]) -> str:
    """What a person calls a point: `router=soft num_experts=8`."""
    return " ".join(f"{name.rpartition('.')[2]}={_short(value)}" for name, value in values.items())


def _short(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def make_point(dimensions: Dimensions, value_of: Callable[[str, Dimension], Value]) -> dict[str, Value]:
    """One point, with `value_of` each dimension that applies given the values before it."""
    point: dict[str, Value] = {}
    for name, dimension in dimensions.items():
        if dimension.when is None or dimension.when.holds(point):
            point[name] = value_of(name, dimension)
    return point


def grid_points(dimensions: Dimensions) -> Iterator[dict[str, Value]]:
    """Every point, the first dimension outermost.

    Raises:
        ValueError: at once, if a dimension is continuous.
    """
    if names := continuous(dimensions):
        raise ValueError(
            f"a grid needs dimensions with finitely many values, got Float for {', '.join(names)}; list values in a Choice"
        )
    return _points(dimensions, list(dimensions), {})


def grid_size(dimensions: Dimensions) -> int | None:
    """How many points there are; None: a dimension is continuous."""
    return None if continuous(dimensions) else _count(dimensions, list(dimensions), {})


def _points(dimensions: Dimensions, names: list[str], decided: dict[str, Value]) -> Iterator[dict[str, Value]]:
    if not names:
        yield dict(decided)
        return
    first, *rest = names
    for choice in _alternatives(dimensions, first, decided):
        yield from _points(dimensions, rest, {**decided, **choice})


def _count(dimensions: Dimensions, names: list[str], decided: dict[str, Value]) -> int:
    """Only dimensions that others depend on are walked through; the rest multiply."""
    if not names:
        return 1
    first, *rest = names
    alternatives = _alternatives(dimensions, first, decided)
    if all(when is None or when.dimension != first for when in (dimensions[name].when for name in rest)):
        return len(alternatives) * _count(dimensions, rest, decided)
    return sum(_count(dimensions, rest, {**decided, **choice}) for choice in alternatives)


def _alternatives(dimensions: Dimensions, name: str, decided: Mapping[str, Value]) -> list[dict[str, Value]]:
    """What can be added for this dimension; nothing, once, where its condition fails."""
    dimension = dimensions[name]
    if dimension.when is not None and not dimension.when.holds(decided):
        return [{}]
    return [{name: value} for value in dimension.values or ()]
