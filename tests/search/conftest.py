"""Spaces that the tests of the search share."""

import pytest

from search_spaces.space import Choice, Condition, Float, Int, Space


@pytest.fixture
def mixed() -> Space:
    """A continuous, a whole, a listed dimension and one under a condition."""
    return Space(
        name="mixed",
        trainable="exbert",
        dimensions={
            "model.n_layers": Int(3, 6),
            "training.learning_rate": Float(1e-5, 1e-3, log=True),
            "model.dropout_placement": Choice(["none", "before", "after"]),
            "model.moe_dropout": Float(0.05, 0.5, when=Condition("model.dropout_placement", ["before", "after"])),
        },
    )


@pytest.fixture
def small() -> Space:
    """Four layers, and a dropout that only one of two placements has: 4 x (1 + 2) points."""
    return Space(
        name="small",
        trainable="exbert",
        dimensions={
            "model.n_layers": Int(3, 6),
            "model.dropout_placement": Choice(["none", "before"]),
            "model.moe_dropout": Choice([0.1, 0.3], when=Condition("model.dropout_placement", ["before"])),
        },
    )
