"""What of plain DistilBERT is searched, so that a tuned ExBERT is compared with a V-DB tuned over the same ranges.

The paper tuned only ExBERT (document A, section 3.4). The counterparts of ExBERT's spaces have exactly those of its dimensions
that V-DB has too.
"""

from __future__ import annotations

from search_spaces.exbert import LEARNING_RATE, N_LAYERS, TRAINING
from search_spaces.space import Choice, Space

__all__ = ["distilbert", "distilbert_controls", "distilbert_extended", "staged_dense"]

distilbert = Space(
    name="distilbert",
    trainable="distilbert",
    dimensions={"model.n_layers": N_LAYERS, "training.learning_rate": LEARNING_RATE},
)
"""The counterpart of `exbert`."""

distilbert_controls = Space(
    name="distilbert_controls",
    trainable="distilbert",
    dimensions={
        "model.n_layers": N_LAYERS,
        "model.dense_block": Choice([False, True]),
        "training.learning_rate": LEARNING_RATE,
    },
)
"""Whether experts or tuning make the difference; reading 29 and digest, section 5.2, E11: V-DB tuned over the same ranges, cut
to 4 blocks, and that with a dense block as wide as an expert."""

staged_dense = Space(
    name="staged_dense",
    trainable="distilbert",
    dimensions={"model.start_from": Choice(["base", "mixed"])},
)
"""Fine-tuning at once, or after a stage on the mixture: document D's comparison of FT with IT and FT, dense."""

distilbert_extended = Space(
    name="distilbert_extended", trainable="distilbert", dimensions={**distilbert.dimensions, **TRAINING}
)
"""The counterpart of `exbert_extended`."""
