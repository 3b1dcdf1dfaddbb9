"""What is searched on the shipped encoder, a toy of 3 blocks and width 96: the paper's four things at its size.

Bounds and values are not the paper's: all blocks that there are, half its experts, and half, once, twice and four times the
embedded preset's learning rate in place of V-DB's.
"""

from __future__ import annotations

from search_spaces.exbert import DROPOUT
from search_spaces.space import Choice, Float, Int, Space
from search_spaces.stages import Narrowing, Stage

__all__ = ["LEARNING_RATE", "N_LAYERS", "distilbert_embedded", "embedded", "exbert_embedded"]

N_LAYERS = Int(1, 3)

LEARNING_RATE = Float(1e-4, 2e-3, log=True)
"""A fifth to four times the embedded preset's."""

exbert_embedded = Space(
    name="exbert_embedded",
    trainable="exbert",
    dimensions={
        "model.n_layers": N_LAYERS,
        "model.num_experts": Int(4, 8),
        "training.learning_rate": LEARNING_RATE,
        **DROPOUT,
    },
)
"""The counterpart of `exbert`."""

distilbert_embedded = Space(
    name="distilbert_embedded",
    trainable="distilbert",
    dimensions={"model.n_layers": N_LAYERS, "training.learning_rate": LEARNING_RATE},
)
"""The counterpart of `distilbert`."""

embedded = Narrowing(
    name="embedded",
    trainable="exbert",
    # As the paper set out: all blocks, the most experts and the usual rate, here the embedded preset's
    start={
        "model.n_layers": 3,
        "model.num_experts": 8,
        "training.learning_rate": 5e-4,
        "model.dropout_placement": "none",
    },
    stages=(
        Stage(name="experts", dimensions={"model.num_experts": Choice([4, 6, 8])}),
        Stage(name="blocks", dimensions={"model.n_layers": Choice([1, 2, 3])}),
        Stage(name="learning_rate", dimensions={"training.learning_rate": Choice([2.5e-4, 5e-4, 1e-3, 2e-3])}),
        Stage(name="dropout", dimensions=DROPOUT),
    ),
)
"""The paper's stages in its order. Each point of it is a point of `exbert_embedded`."""
