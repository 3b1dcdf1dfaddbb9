"""Spaces as plain data: what it looks like, and what is refused when read."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from search_spaces.registry import SHIPPED
from search_spaces.space import Choice, Condition, Float, Int, Space

SMALL = Space(
    name="small",
    trainable="exbert",
    dimensions={
        "model.n_layers": Int(3, 6),
        "training.learning_rate": Float(1e-5, 1.1e-4, log=True),
        "model.dropout_placement": Choice(["none", "before"]),
        "model.moe_dropout": Choice([0.1, 0.3], when=Condition("model.dropout_placement", ["before"])),
    },
    fixed={"training.batch_size": 8},
)
DESCRIBED = {
    "name": "small",
    "trainable": "exbert",
    "fixed": {"training.batch_size": 8},
    "dimensions": {
        "model.n_layers": {"kind": "int", "low": 3, "high": 6, "step": 1, "log": False, "when": None},
        "training.learning_rate": {"kind": "float", "low": 1e-5, "high": 1.1e-4, "log": True, "when": None},
        "model.dropout_placement": {"kind": "choice", "values": ["none", "before"], "when": None},
        "model.moe_dropout": {
            "kind": "choice",
            "values": [0.1, 0.3],
            "when": {"dimension": "model.dropout_placement", "values": ["before"]},
        },
    },
}


def test_a_space_is_described_by_name_trainable_fixed_settings_and_dimensions() -> None:
    assert json.dumps(SMALL.to_json()) == json.dumps(DESCRIBED)
    assert Space.from_json(DESCRIBED) == SMALL


@pytest.mark.parametrize("space", SHIPPED.values(), ids=lambda space: space.name)
def test_a_shipped_space_survives_json(space: Space) -> None:
    read = Space.from_json(json.loads(json.dumps(space.to_json())))
    assert read == space
    assert list(read.dimensions) == list(space.dimensions)


def test_a_dimension_that_comes_before_the_one_it_waits_for_is_put_after_it() -> None:
    dimensions = dict(reversed(DESCRIBED["dimensions"].items()))
    read = Space.from_json({**DESCRIBED, "dimensions": dimensions})
    assert read == SMALL
    names = ["model.dropout_placement", "model.moe_dropout", "training.learning_rate", "model.n_layers"]
    assert list(read.dimensions) == names


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda space: space.pop("name"), "must have name, trainable, dimensions, fixed, but lacks name"),
        (lambda space: space.update(dimension={}), "got 'dimension'; did you mean dimensions?"),
        (lambda space: space["dimensions"].update(x=3), "x: must be a mapping whose kind is one of choice, float, int, got 3"),
        (lambda space: layers(space).update(kind="integer"), "model.n_layers: must be a mapping whose kind is one of"),
        (lambda space: layers(space).pop("step"), "model.n_layers: must have kind, low, high, step, log, when, but lacks step"),
        (lambda space: layers(space).update(low=7), "model.n_layers: Int: low must be below high, got low=7 and high=6"),
        (lambda space: layers(space).update(when="never"), "must be a mapping with dimension, values, got 'never'"),
        (lambda space: layers(space).update(high=9), "space small: model.n_layers must be a whole number in [1, 6]"),
    ],
)
def test_data_that_describes_no_space_is_refused_with_what_is_wrong(change: Callable[[Any], Any], complaint: str) -> None:
    described = copy.deepcopy(DESCRIBED)
    change(described)
    with pytest.raises(ValueError) as raised:
        Space.from_json(described)
    assert str(raised.value).startswith("not the description of a space: ")
    assert complaint in str(raised.value)


def layers(space: Any) -> dict[str, Any]:
    """The description of the first dimension."""
    described: dict[str, Any] = space["dimensions"]["model.n_layers"]
    return described
