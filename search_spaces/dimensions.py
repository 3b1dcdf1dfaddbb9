"""One dimension of a space: a range of numbers or a list of values, everywhere or only under a condition."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Choice", "Condition", "Dimension", "Float", "Int", "Value", "shown"]

Value = bool | int | float | str | None
"""What a dimension can take: a scalar that JSON can write."""


@dataclass(frozen=True)
class Condition:
    """Holds where the dimension of that name applies and has one of these values."""

    dimension: str
    values: Sequence[Value]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _listed(self.values, f"a condition on {self.dimension}", at_least=1))

    def holds(self, values: Mapping[str, Value]) -> bool:
        """Whether `values` has the dimension with one of the condition's values; False where it is not there."""
        return self.dimension in values and _find(values[self.dimension], self.values) is not None


@dataclass(frozen=True)
class Float:
    """A number in [low, high]; with `log`, equally likely in each decade."""

    low: float
    high: float
    log: bool = False
    when: Condition | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_range(self)
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))

    @property
    def values(self) -> None:
        """Too many to list."""
        return None

    @property
    def ends(self) -> Sequence[Value]:
        """The lowest and the highest value."""
        return self.low, self.high

    def describe(self) -> str:
        """What it takes, for errors."""
        return f"a number in [{self.low:g}, {self.high:g}]"

    def checked(self, value: Value) -> float:
        """`value` as a float. Raises ValueError where it is no number or out of range."""
        if not _is_number(value) or not self.low <= value <= self.high:  # type: ignore[operator]
            raise ValueError(f"must be {self.describe()}, got {value!r}")
        return float(value)  # type: ignore[arg-type]

    def draw(self, generator: random.Random) -> float:
        """Any of its values, the ends as often as all between them."""
        return generator.choice((self.low, self.high, *(generator.uniform(self.low, self.high) for _ in range(2))))


@dataclass(frozen=True)
class Int:
    """A whole number in {low, low + step, ..., high}; with `log`, equally likely in each decade."""

    low: int
    high: int
    step: int = 1
    log: bool = False
    when: Condition | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("low", "high", "step"):
            if type(getattr(self, name)) is not int:
                raise ValueError(f"Int: {name} must be a whole number, got {getattr(self, name)!r}; for others take Float")
        _check_range(self)
        if self.step < 1 or (self.high - self.low) % self.step:
            raise ValueError(
                f"Int: step must be at least 1 and lead from low to high, got step={self.step} with low={self.low} and "
                f"high={self.high}; change one of them, or list the values in a Choice"
            )
        if self.log and self.step != 1:
            raise ValueError(f"Int: step must be 1 with log=True, got step={self.step}; leave one of them out")

    @property
    def values(self) -> Sequence[Value]:
        """All, from the lowest."""
        return range(self.low, self.high + 1, self.step)

    @property
    def ends(self) -> Sequence[Value]:
        """The lowest and the highest value."""
        return self.low, self.high

    def describe(self) -> str:
        """What it takes, for errors."""
        return f"a whole number in [{self.low}, {self.high}]" + (f" in steps of {self.step}" if self.step > 1 else "")

    def checked(self, value: Value) -> int:
        """`value`. Raises ValueError where it is no whole number or none of the range's."""
        if type(value) is not int or value not in self.values:
            raise ValueError(f"must be {self.describe()}, got {value!r}")
        return value

    def draw(self, generator: random.Random) -> int:
        """Any of its values, the ends as often as all between them."""
        between = (generator.randrange(self.low, self.high + 1, self.step) for _ in range(2))
        return generator.choice((self.low, self.high, *between))


@dataclass(frozen=True)
class Choice:
    """One of a list of values without an order that a sampler could use."""

    values: Sequence[Value]
    when: Condition | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _listed(self.values, "a Choice", at_least=2))

    @property
    def ends(self) -> Sequence[Value]:
        """All values: none is more extreme than another."""
        return self.values

    def describe(self) -> str:
        """What it takes, for errors."""
        return f"one of {shown(self.values)}"

    def checked(self, value: Value) -> Value:
        """The listed value equal to `value`. Raises ValueError where there is none."""
        index = _find(value, self.values)
        if index is None:
            raise ValueError(f"must be {self.describe()}, got {value!r}")
        return self.values[index]

    def draw(self, generator: random.Random) -> Value:
        """Any of its values."""
        return generator.choice(self.values)


Dimension = Float | Int | Choice


def shown(values: Sequence[Value]) -> str:
    """The values in a line, at most ten."""
    more = f", ... ({len(values)} in all)" if len(values) > 10 else ""
    return ", ".join(repr(value) for value in values[:10]) + more


def _is_number(value: object) -> bool:
    """Also a bool is an int to Python, and no number to us."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_range(dimension: Float | Int) -> None:
    kind, low, high = type(dimension).__name__, dimension.low, dimension.high
    for name, bound in (("low", low), ("high", high)):
        if not _is_number(bound):
            raise ValueError(f"{kind}: {name} must be a finite number, got {bound!r}")
    if not low < high:
        raise ValueError(f"{kind}: low must be below high, got low={low} and high={high}; a single value belongs in `fixed`")
    if dimension.log and not low > 0:
        raise ValueError(f"{kind}: low must be above 0 with log=True, got low={low}; raise it, or leave log out")


def _listed(values: Sequence[Value], what: str, *, at_least: int) -> tuple[Value, ...]:
    """`values` as a tuple of different scalars."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ValueError(f"{what} takes a list of values, got {values!r}; put it in brackets")
    for index, value in enumerate(values):
        if not (value is None or isinstance(value, str | bool) or _is_number(value)):
            raise ValueError(f"{what} takes text, finite numbers, true, false and null, got {value!r}")
        if _find(value, values[:index]) is not None:
            raise ValueError(f"{what} takes each value once, got {value!r} again; leave one out")
    if len(values) < at_least:
        hint = "; a single value belongs in `fixed`" if values else ""
        raise ValueError(f"{what} needs at least {at_least} value{'s' * (at_least > 1)}, got {list(values)}{hint}")
    return tuple(values)


def _find(value: Value, values: Sequence[Value]) -> int | None:
    """Where `value` is in `values`; 1 and 1.0 are the same, 1 and True are not."""
    for index, known in enumerate(values):
        if value == known and isinstance(value, bool) == isinstance(known, bool):
            return index
    return None
