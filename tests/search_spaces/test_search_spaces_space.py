"""Spaces: checked against the trainable's settings when made, and points that reach those settings unchanged."""

import copy
import pickle
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from textwrap import dedent

import pytest

import search_spaces.space as space_module
from search_spaces.exbert import exbert
from search_spaces.space import Choice, Condition, Dimension, Float, Int, Space, Value

PLACEMENT = Choice(["none", "before", "both"])
WITH_DROPOUT = Condition("model.dropout_placement", ["before", "both"])
SMALL = Space(
    name="small",
    trainable="exbert",
    dimensions={
        "model.num_experts": Int(8, 16, step=4),
        "model.dropout_placement": PLACEMENT,
        "model.moe_dropout": Choice([0.1, 0.3], when=WITH_DROPOUT),
    },
    fixed={"training.batch_size": 8, "mixture.share": 80},
)


@pytest.mark.parametrize(
    ("dimensions", "fixed", "complaint"),
    [
        ({}, {}, "space wrong: needs at least one dimension"),
        ({"model.num_expert": Int(8, 16)}, {}, "exbert has no setting model.num_expert; did you mean model.num_experts?"),
        ({"learning_rate": Float(1e-5, 1e-4)}, {}, "did you mean training.learning_rate?"),
        ({"model.learning_rate": Float(1e-5, 1e-4)}, {}, "did you mean training.learning_rate?"),
        ({"size": Int(1, 2)}, {}, "did you mean mixture.size?"),
        ({"zzz": Int(1, 2)}, {}, "exbert has no setting zzz; its settings are mixture.share, "),
        ({"model": Int(1, 2)}, {}, "exbert has no setting model"),
        ({"model.n_layers": Int(3, 6)}, {"training.epoch": 5}, "no setting training.epoch; did you mean training.epochs?"),
        ({"model.n_layers": Int(3, 7)}, {}, "model.n_layers must be a whole number in [1, 6] or null, got 7"),
        ({"model.n_layers": Float(3, 6)}, {}, "model.n_layers must be a whole number in [1, 6] or null, got 3.0"),
        ({"model.n_layers": Choice(["3", "6"])}, {}, "got '3'"),
        ({"model.moe_dropout": Float(0, 1)}, {}, "model.moe_dropout must be a number in [0, 1), got 1.0"),
        ({"training.learning_rate": Float(1e-3, 1)}, {}, "training.learning_rate must be a number in (0, 0.1], got 1.0"),
        ({"model.balance_loss_coef": Float(-1, 1)}, {}, "must be a number in [0, inf), got -1.0"),
        (
            {"model.dropout_placement": Choice(["none", "front"])},
            {},
            "must be one of 'none', 'before', 'after', 'both', got 'front'",
        ),
        ({"model.n_layers": 4}, {}, "must be a Float, an Int or a Choice, got 4; a single value belongs in `fixed`"),
        ({"model.n_layers": Int(3, 6)}, {"training.epochs": 0}, "training.epochs must be a whole number in [1, 100], got 0"),
        ({"model.n_layers": Int(3, 6)}, {"model.n_layers": 4}, "model.n_layers is both a dimension and fixed to 4"),
    ],
)
def test_a_space_that_does_not_fit_its_trainable_is_refused(
    dimensions: Mapping[str, Dimension], fixed: Mapping[str, Value], complaint: str
) -> None:
    with pytest.raises(ValueError) as raised:
        Space(name="wrong", trainable="exbert", dimensions=dimensions, fixed=fixed)
    assert complaint in str(raised.value)


RATE = Choice([0.1, 0.3], when=WITH_DROPOUT)


@pytest.mark.parametrize(
    ("dimensions", "fixed", "complaint"),
    [
        ({"model.moe_dropout": RATE, "model.dropout_placement": PLACEMENT}, {}, "which comes later; put that first"),
        (
            {"model.moe_dropout": RATE},
            {"model.dropout_placement": "before"},
            "which is fixed to 'before'; leave the condition out",
        ),
        ({"model.n_layers": Int(3, 6), "model.moe_dropout": RATE}, {}, "must name an earlier dimension (here: model.n_layers)"),
        (
            {"model.dropout_placement": Choice(["none", "after"]), "model.moe_dropout": RATE},
            {},
            "waits for a value that model.dropout_placement never has: it must be one of 'none', 'after', got 'before'",
        ),
        (
            {
                "model.threshold": Float(0.1, 0.5),
                "model.moe_dropout": Choice([0.1, 0.3], when=Condition("model.threshold", [0.2])),
            },
            {},
            "must be on an Int or a Choice, got model.threshold, a Float",
        ),
        (
            {"model.dropout_placement": PLACEMENT, "model.moe_dropout": Choice([0.1, 0.3], when=("a", ["b"]))},  # type: ignore[arg-type]
            {},
            "the condition of model.moe_dropout must be Condition(dimension, values), got ('a', ['b'])",
        ),
    ],
)
def test_a_condition_that_could_not_be_decided_is_refused(
    dimensions: Mapping[str, Dimension], fixed: Mapping[str, Value], complaint: str
) -> None:
    with pytest.raises(ValueError) as raised:
        Space(name="wrong", trainable="exbert", dimensions=dimensions, fixed=fixed)
    assert complaint in str(raised.value)


@pytest.mark.parametrize(
    ("dimensions", "fixed", "complaint"),
    [
        ({"training.stride": Int(16, 200)}, {"training.max_length": 128}, "stride must be below max_length=128"),
        ({"mixture.share": Int(0, 100)}, {"mixture.size": 50}, "size x share must give whole examples"),
        ({"model.moe_position": Choice(["after_last", "after_block"])}, {}, "moe_block must be given"),
    ],
)
def test_settings_that_refuse_each_other_are_found_before_anything_is_drawn(
    dimensions: Mapping[str, Dimension], fixed: Mapping[str, Value], complaint: str
) -> None:
    with pytest.raises(ValueError, match="narrow a dimension, make it conditional") as raised:
        Space(name="wrong", trainable="exbert", dimensions=dimensions, fixed=fixed)
    assert complaint in str(raised.value)


def test_a_setting_that_another_needs_may_be_conditional_on_it() -> None:
    block = Int(1, 3, when=Condition("model.moe_position", ["after_block"]))
    dimensions = {"model.moe_position": Choice(["after_last", "after_block"]), "model.moe_block": block}
    assert Space(name="positions", trainable="exbert", dimensions=dimensions).size == 4


def test_a_space_of_an_unknown_trainable_names_those_that_exist() -> None:
    with pytest.raises(
        ValueError,
        match=r"trainable must be one of adapters, .*, moe_variants, got 'exbrt'; did you mean 'exbert'",
    ):
        Space(name="wrong", trainable="exbrt", dimensions={"model.n_layers": Int(3, 6)})


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({}, "model.num_experts is missing, it must be a whole number in [8, 16] in steps of 4"),
        ({}, "model.dropout_placement is missing"),
        ({"model.num_experts": 9}, "model.num_experts must be a whole number in [8, 16] in steps of 4, got 9"),
        ({"model.dropout_placement": "both"}, "model.moe_dropout is missing, it must be one of 0.1, 0.3"),
        (
            {"model.dropout_placement": "none", "model.moe_dropout": 0.1},
            "model.moe_dropout does not apply where model.dropout_placement is 'none'",
        ),
        ({"model.moe_dropout": 0.1}, "model.moe_dropout does not apply where model.dropout_placement is not given"),
        ({"num_experts": 8}, "num_experts is not one of its dimensions"),
        ({"num_experts": 8}, "did you mean model.num_experts?"),
        ({"training.batch_size": 16}, "training.batch_size is fixed to 8, leave it out"),
    ],
)
def test_every_problem_of_a_point_is_named(values: dict[str, Value], complaint: str) -> None:
    with pytest.raises(ValueError) as raised:
        SMALL.complete(values)
    assert str(raised.value).startswith("space small: ")
    assert complaint in str(raised.value)


def test_a_value_under_a_condition_that_does_not_apply_itself_does_not_count() -> None:
    chain: dict[str, Dimension] = {
        "model.n_layers": Int(3, 6),
        "model.dropout_placement": Choice(["none", "before", "both"], when=Condition("model.n_layers", [6])),
        "model.moe_dropout": Choice([0.1, 0.3], when=WITH_DROPOUT),
    }
    space = Space(name="chain", trainable="exbert", dimensions=chain)
    values: dict[str, Value] = {"model.n_layers": 3, "model.dropout_placement": "both", "model.moe_dropout": 0.1}
    assert space.active(values) == ("model.n_layers",)
    assert space.active({**values, "model.n_layers": 6}) == tuple(chain)
    assert space.size == 3 + 1 + 2 * 2


def test_all_problems_of_a_point_come_at_once() -> None:
    with pytest.raises(ValueError) as raised:
        SMALL.complete({"model.num_experts": 9, "model.dropout_placement": "none", "x": 1})
    assert all(part in str(raised.value) for part in ("got 9", "x is not one of"))


def test_a_point_comes_back_in_the_order_of_the_space() -> None:
    values: dict[str, Value] = {"model.moe_dropout": 0.3, "model.dropout_placement": "both", "model.num_experts": 8}
    assert list(SMALL.complete(values)) == list(SMALL.dimensions)


def test_overrides_are_nested_and_hold_what_is_fixed() -> None:
    assert SMALL.overrides({"model.num_experts": 8, "model.dropout_placement": "none"}) == {
        "training": {"batch_size": 8},
        "mixture": {"share": 80},
        "model": {"num_experts": 8, "dropout_placement": "none"},
    }


def test_a_grid_has_every_point_once_with_the_first_dimension_outermost() -> None:
    grid = list(SMALL.grid())
    assert len(grid) == SMALL.size == 3 * (1 + 2 * 2)
    assert grid[0] == {"model.num_experts": 8, "model.dropout_placement": "none"}
    assert [point["model.num_experts"] for point in grid] == [8] * 5 + [12] * 5 + [16] * 5
    assert len({tuple(point.items()) for point in grid}) == len(grid)


def test_a_continuous_space_has_no_size_and_refuses_a_grid_at_once() -> None:
    assert exbert.size is None
    with pytest.raises(ValueError, match=r"got Float for training.learning_rate; list values in a Choice"):
        exbert.grid()


def test_the_size_of_a_large_space_is_known_without_walking_through_it() -> None:
    dimensions: dict[str, Dimension] = {
        "training.batch_size": Int(1, 1024),
        "mixture.seed": Int(0, 10**6 - 1),
        **SMALL.dimensions,
    }
    large = Space(name="large", trainable="exbert", dimensions=dimensions)
    assert large.size == 1024 * 10**6 * 15
    assert len(list(islice(large.grid(), 20))) == 20


def test_a_space_survives_copies_and_keeps_to_itself() -> None:
    dimensions: dict[str, Dimension] = {"model.n_layers": Int(3, 6)}
    space = Space(name="own", trainable="exbert", dimensions=dimensions)
    dimensions["model.num_experts"] = Int(8, 16)
    assert list(space.dimensions) == ["model.n_layers"]
    assert pickle.loads(pickle.dumps(space)) == copy.deepcopy(space) == space


def test_a_shipped_space_is_narrowed_with_replace() -> None:
    narrowed = replace(exbert, dimensions={**exbert.dimensions, "model.n_layers": Int(1, 3)})
    assert narrowed.dimensions["model.n_layers"] == Int(1, 3)
    assert list(narrowed.dimensions) == list(exbert.dimensions)


def test_the_example_in_the_module_is_a_space() -> None:
    example = (space_module.__doc__ or "").partition("\n\n")[2]
    made = eval(f"({dedent(example)})", vars(space_module))
    assert (made.name, list(made.dimensions)[-1], made.size) == ("layers", "model.moe_dropout", None)
