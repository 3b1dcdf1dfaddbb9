"""What holds of any point of any space."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.exbert import exbert, exbert_extended
from search_spaces.plain import dimensions_from_json, dimensions_to_json
from search_spaces.registry import SHIPPED
from search_spaces.space import Choice, Condition, Dimension, Float, Int, Space, Value
from trainables.registry import settings_of


def values_of(dimension: Dimension) -> st.SearchStrategy[Value]:
    """Any value of the dimension."""
    if isinstance(dimension, Float):
        return st.floats(dimension.low, dimension.high)
    return st.sampled_from(list(dimension.values))


@st.composite
def points(draw: st.DrawFn, space: Space) -> dict[str, Value]:
    """Any point of the space, decided dimension by dimension as a sampler does it."""
    values: dict[str, Value] = {}
    for name, dimension in space.dimensions.items():
        if name in space.active(values):
            values[name] = draw(values_of(dimension))
    return values


@st.composite
def discrete_spaces(draw: st.DrawFn) -> Space:
    """Spaces with a chain of conditions: experts, then placement, then rate."""
    experts = Int(2, 2 + draw(st.integers(1, 4)))
    placement = Choice(["none", "before", "both"])
    dimensions: dict[str, Dimension] = {"model.num_experts": experts}
    waits_for = draw(st.lists(st.sampled_from(list(experts.values)), min_size=1, unique=True))
    placement_when = draw(st.sampled_from([None, Condition("model.num_experts", waits_for)]))
    dimensions["model.dropout_placement"] = Choice(placement.values, when=placement_when)
    if draw(st.booleans()):
        dimensions["training.batch_size"] = Int(8, 32, step=8)
    rate_when = draw(st.lists(st.sampled_from(list(placement.values)), min_size=1, unique=True))
    dimensions["model.moe_dropout"] = Choice([0.1, 0.3], when=Condition("model.dropout_placement", rate_when))
    return Space(name="drawn", trainable="exbert", dimensions=dimensions, fixed={"training.epochs": 5, "mixture.share": 60})


def setting(config: Any, name: str) -> Any:
    """The value of a dotted setting."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


@pytest.mark.parametrize("space", SHIPPED.values(), ids=lambda space: space.name)
@given(data=st.data())
def test_any_point_of_a_space_reaches_the_settings_unchanged(space: Space, data: st.DataObject) -> None:
    values = data.draw(points(space))
    config = settings_of(space.trainable).config.model_validate(space.overrides(values))
    for name, value in {**space.fixed, **values}.items():
        assert setting(config, name) == value


@given(space=discrete_spaces(), data=st.data())
def test_what_is_fixed_reaches_the_settings_and_what_does_not_apply_stays_at_its_default(
    space: Space, data: st.DataObject
) -> None:
    values = data.draw(points(space))
    settings = settings_of("exbert").config
    config, default = settings.model_validate(space.overrides(values)), settings()
    for name, value in {**space.fixed, **values}.items():
        assert setting(config, name) == value
    for name in set(space.dimensions) - set(values):
        assert setting(config, name) == setting(default, name)


@given(space=discrete_spaces(), data=st.data())
def test_a_conditional_dimension_is_absent_exactly_where_its_condition_fails(space: Space, data: st.DataObject) -> None:
    point = space.complete(data.draw(points(space)))
    assert tuple(point) == space.active(point)
    for name, dimension in space.dimensions.items():
        when = dimension.when
        assert (name in point) == (when is None or point.get(when.dimension) in when.values)


@given(space=discrete_spaces())
def test_the_grid_has_as_many_points_as_the_space_and_all_are_complete(space: Space) -> None:
    grid = list(space.grid())
    assert len(grid) == space.size
    assert [space.complete(point) for point in grid] == grid


@given(space=discrete_spaces(), data=st.data())
def test_a_point_less_one_value_or_with_one_more_is_refused(space: Space, data: st.DataObject) -> None:
    point = data.draw(points(space))
    lost = data.draw(st.sampled_from(list(point)))
    with pytest.raises(ValueError, match=f"{lost} is missing"):
        space.complete({name: value for name, value in point.items() if name != lost})
    for name in set(space.dimensions) - set(point):
        with pytest.raises(ValueError, match=f"{name} does not apply"):
            space.complete({**point, name: space.dimensions[name].ends[0]})


@given(point=points(exbert_extended))
def test_a_point_of_the_extended_space_holds_a_point_of_the_plain_one(point: dict[str, Value]) -> None:
    assert exbert.complete({name: value for name, value in point.items() if name in exbert.dimensions})


@given(space=discrete_spaces(), sort_keys=st.booleans())
def test_a_space_survives_json_even_with_its_keys_sorted(space: Space, sort_keys: bool) -> None:
    read = Space.from_json(json.loads(json.dumps(space.to_json(), sort_keys=sort_keys)))
    assert read == space
    if not sort_keys:
        assert list(read.grid()) == list(space.grid())


numbers = st.floats(1e-9, 1e9)
scalars = st.none() | st.booleans() | st.integers(-10, 10) | numbers | st.text(max_size=3)


@given(ends=st.tuples(numbers, numbers).filter(lambda ends: ends[0] < ends[1]), log=st.booleans(), more=st.integers(1, 9))
def test_numbers_survive_json(ends: tuple[float, float], log: bool, more: int) -> None:
    low, high = ends
    dimensions: dict[str, Dimension] = {
        "a": Float(low, high, log=log),
        "b": Int(1, 1 + 2 * more, step=1 if log else 2, log=log),
    }
    assert dimensions_from_json(json.loads(json.dumps(dimensions_to_json(dimensions)))) == dimensions


@given(values=st.lists(scalars, min_size=2, max_size=5, unique_by=lambda value: (isinstance(value, bool), value)))
def test_values_survive_json_with_their_types(values: list[Value]) -> None:
    dimensions: dict[str, Dimension] = {"a": Choice(values), "b": Choice(values, when=Condition("a", values[:1]))}
    read = dimensions_from_json(json.loads(json.dumps(dimensions_to_json(dimensions))))
    assert repr(read) == repr(dimensions)
