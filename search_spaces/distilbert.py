"""What of plain DistilBERT is searched, so that a tuned ExBERT is compared with a V-DB tuned over the same ranges.

The paper tuned only ExBERT (document A, section 3.4). These spaces have exactly the dimensions of ExBERT's that V-DB has too.
"""

from __future__ import annotations

from search_spaces.exbert import LEARNING_RATE, N_LAYERS, TRAINING
from search_spaces.space import Space

__all__ = ["distilbert", "distilbert_extended"]

distilbert = Space(
    name="distilbert",
    trainable="distilbert",
    dimensions={"model.n_layers": N_LAYERS, "training.learning_rate": LEARNING_RATE},
)
"""The counterpart of `exbert`."""

distilbert_extended = Space(
    name="distilbert_extended", trainable="distilbert", dimensions={**distilbert.dimensions, **TRAINING}
)
"""The counterpart of `exbert_extended`."""
