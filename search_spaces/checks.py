"""What must hold of a space before anything is drawn from it: that its trainable's settings take what it can give."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from search_spaces.config_fields import allowed, fields_of, nearest, nested, reasons, refused
from search_spaces.dimensions import Choice, Condition, Dimension, Float, Int, Value
from search_spaces.grid import make_point
from trainables.config import QAConfig
from trainables.registry import settings_of

__all__ = ["check_space"]

_NUM_PROBES = 256
"""Points drawn to find settings that refuse each other; a pair of ends is missed with a chance of (3/4)^256 or so."""


def check_space(trainable: str, dimensions: Mapping[str, Dimension], fixed: Mapping[str, Value]) -> None:
    """Check names, then values, then conditions, then points as a whole.

    Raises:
        ValueError: with what was given, what the setting takes, and what to do.
    """
    config = settings_of(trainable).config
    fields = fields_of(config)
    if not dimensions:
        raise ValueError("needs at least one dimension, got none; name a setting that varies")
    _check_names(trainable, dimensions, fixed, fields)
    for name, value in fixed.items():
        _check_values(name, [value], fields[name])
    for name, dimension in dimensions.items():
        _check_dimension(name, dimension, fields[name])
    _check_conditions(dimensions, fixed)
    _check_points(config, dimensions, fixed)


def _check_names(
    trainable: str, dimensions: Mapping[str, Dimension], fixed: Mapping[str, Value], fields: Mapping[str, FieldInfo]
) -> None:
    for name in (*dimensions, *fixed):
        if name not in fields:
            hint = nearest(name, fields) or f"; its settings are {', '.join(fields)}"
            raise ValueError(f"{trainable} has no setting {name}{hint}")
        if name in dimensions and name in fixed:
            raise ValueError(f"{name} is both a dimension and fixed to {fixed[name]!r}; leave one of them out")


def _check_values(name: str, values: Sequence[Value], field: FieldInfo) -> None:
    if wrong := refused(field, values):
        raise ValueError(f"{name} must be {allowed(field)}, got {wrong[0]!r}")


def _check_dimension(name: str, dimension: Dimension, field: FieldInfo) -> None:
    if not isinstance(dimension, Float | Int | Choice):
        raise ValueError(f"{name} must be a Float, an Int or a Choice, got {dimension!r}; a single value belongs in `fixed`")
    if not isinstance(dimension.when, Condition | None):
        raise ValueError(f"the condition of {name} must be Condition(dimension, values), got {dimension.when!r}")
    _check_values(name, dimension.ends, field)


def _check_conditions(dimensions: Mapping[str, Dimension], fixed: Mapping[str, Value]) -> None:
    earlier: dict[str, Dimension] = {}
    for name, dimension in dimensions.items():
        if dimension.when is not None:
            parent = dimension.when.dimension
            if parent not in earlier:
                raise ValueError(f"the condition of {name} {_why_no_parent(parent, earlier, dimensions, fixed)}")
            for value in dimension.when.values:
                _check_condition_value(name, parent, earlier[parent], value)
        earlier[name] = dimension


def _why_no_parent(
    parent: str, earlier: Mapping[str, Dimension], dimensions: Mapping[str, Dimension], fixed: Mapping[str, Value]
) -> str:
    if parent in dimensions:
        return f"must name an earlier dimension, got {parent}, which comes later; put that first"
    if parent in fixed:
        return f"must name a dimension, got {parent}, which is fixed to {fixed[parent]!r}; leave the condition out"
    known = ", ".join(earlier) or "none"
    return f"must name an earlier dimension (here: {known}), got {parent}{nearest(parent, dimensions)}"


def _check_condition_value(name: str, parent: str, dimension: Dimension, value: Value) -> None:
    if isinstance(dimension, Float):
        raise ValueError(f"the condition of {name} must be on an Int or a Choice, got {parent}, a Float; make that a Choice")
    try:
        dimension.checked(value)
    except ValueError as error:
        raise ValueError(f"the condition of {name} waits for a value that {parent} never has: it {error}") from error


def _check_points(config: type[QAConfig], dimensions: Mapping[str, Dimension], fixed: Mapping[str, Value]) -> None:
    """Settings may each be in range and yet refuse each other, such as a stride above max_length."""
    generator = random.Random(0)
    for _ in range(_NUM_PROBES):
        point = make_point(dimensions, lambda _, dimension: dimension.draw(generator))
        try:
            config.model_validate(nested({**fixed, **point}))
        except ValidationError as error:
            given = ", ".join(f"{name}={value!r}" for name, value in point.items())
            raise ValueError(
                f"the settings refuse a point of the space: {reasons(error)} (at {given}); "
                "narrow a dimension, make it conditional with `when`, or fix the other setting"
            ) from error
