"""V-DB with a dense block: as wide as an expert of ExBERT's and in the same place, but without routing.

The fairness control of reading 29 (digest, section 1.3): does ExBERT gain by its experts, or by what a feed-forward adds?
"""

from __future__ import annotations

from transformers import DistilBertForQuestionAnswering

from trainables.models.encoder import append_to
from trainables.models.experts import DenseBlock

__all__ = ["add_dense_block"]


def add_dense_block(model: DistilBertForQuestionAnswering) -> None:
    """Puts a freshly drawn dense block after the last transformer block."""
    model.dense_block = DenseBlock(model.config.dim)
    append_to(model.distilbert.transformer.layer[-1], model.dense_block)
