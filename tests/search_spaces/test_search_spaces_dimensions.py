"""Dimensions: what they refuse when made, and which values they take."""

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from search_spaces.space import Choice, Condition, Dimension, Float, Int


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Float(2, 1), "Float: low must be below high, got low=2 and high=1"),
        (lambda: Int(3, 3), "Int: low must be below high, got low=3 and high=3; a single value belongs in `fixed`"),
        (lambda: Float(0, 1, log=True), "Float: low must be above 0 with log=True, got low=0"),
        (lambda: Int(0, 4, log=True), "Int: low must be above 0 with log=True, got low=0"),
        (lambda: Float(0, math.inf), "high must be a finite number, got inf"),
        (lambda: Float(math.nan, 1), "low must be a finite number, got nan"),
        (lambda: Float("0", 1), "low must be a finite number, got '0'"),  # type: ignore[arg-type]
        (lambda: Int(1.0, 4), "low must be a whole number, got 1.0; for others take Float"),  # type: ignore[arg-type]
        (lambda: Int(False, 4), "low must be a whole number, got False"),
        (lambda: Int(8, 16, step=3), "lead from low to high, got step=3 with low=8 and high=16"),
        (lambda: Int(8, 16, step=0), "step must be at least 1"),
        (lambda: Int(8, 16, step=2, log=True), "step must be 1 with log=True, got step=2"),
        (lambda: Choice([]), "a Choice needs at least 2 values, got []"),
        (lambda: Choice([8]), "a Choice needs at least 2 values, got [8]; a single value belongs in `fixed`"),
        (lambda: Choice([8, 16, 8.0]), "takes each value once, got 8.0 again"),
        (lambda: Choice("both"), "a Choice takes a list of values, got 'both'; put it in brackets"),
        (lambda: Choice([1, [2]]), "takes text, finite numbers, true, false and null, got [2]"),  # type: ignore[list-item]
        (lambda: Condition("model.n_layers", []), "a condition on model.n_layers needs at least 1 value, got []"),
        (lambda: Condition("model.n_layers", "3"), "a condition on model.n_layers takes a list of values, got '3'"),
    ],
)
def test_a_wrong_dimension_is_refused_when_made(make: Callable[[], Any], complaint: str) -> None:
    with pytest.raises(ValueError) as raised:
        make()
    assert complaint in str(raised.value)


@pytest.mark.parametrize(
    ("dimension", "value", "complaint"),
    [
        (Float(1e-5, 1e-4), 2e-4, "must be a number in [1e-05, 0.0001], got 0.0002"),
        (Float(0, 2), True, "got True"),
        (Float(0, 2), "1", "got '1'"),
        (Float(0, 2), math.nan, "got nan"),
        (Float(0, 2), None, "got None"),
        (Int(8, 16), 17, "must be a whole number in [8, 16], got 17"),
        (Int(8, 16), 8.0, "got 8.0"),
        (Int(0, 16), True, "got True"),
        (Int(8, 16, step=4), 10, "must be a whole number in [8, 16] in steps of 4, got 10"),
        (Choice([0.1, 0.3]), 0.2, "must be one of 0.1, 0.3, got 0.2"),
        (Choice([0, 1]), True, "must be one of 0, 1, got True"),
        (Choice(list(range(11))), 11, "one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... (11 in all)"),
    ],
)
def test_a_value_that_a_dimension_does_not_have_is_refused_with_what_it_has(
    dimension: Dimension, value: Any, complaint: str
) -> None:
    with pytest.raises(ValueError) as raised:
        dimension.checked(value)
    assert complaint in str(raised.value)


def test_a_value_comes_back_with_the_type_that_its_dimension_has() -> None:
    assert repr(Float(0, 2).checked(1)) == "1.0"
    assert repr(Choice([0, 16]).checked(16.0)) == "16"


@pytest.mark.parametrize("dimension", [Float(1e-5, 1e-4, log=True), Int(8, 16, step=4), Choice([None, "a", 3])])
def test_drawing_gives_the_ends_and_only_values_of_the_dimension(dimension: Dimension) -> None:
    generator = random.Random(0)
    drawn = [dimension.draw(generator) for _ in range(100)]
    assert [dimension.checked(value) for value in drawn] == drawn
    assert set(dimension.ends) <= set(drawn)


def test_a_condition_does_not_hold_where_its_dimension_has_no_value() -> None:
    condition = Condition("model.moe_block", [None, 1])
    assert condition.holds({"model.moe_block": None})
    assert not condition.holds({})
    assert not condition.holds({"model.moe_block": True})
