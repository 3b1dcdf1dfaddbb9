"""Training ExBERT."""

from __future__ import annotations

from collections.abc import Iterator

from transformers import DistilBertModel

from trainables.contract import Report, TrialContext
from trainables.exbert.config import METRICS, Config
from trainables.exbert.model import ExBertForQuestionAnswering
from trainables.models.encoder import load_encoder
from trainables.training.loop import fine_tune

__all__ = ["train"]


def train(config: Config, context: TrialContext) -> Iterator[Report]:
    """Fine-tunes the encoder's first blocks together with an expert layer and a head, both freshly drawn."""

    def build() -> ExBertForQuestionAnswering:
        encoder = load_encoder(context.data.encoder, config.model.n_layers, DistilBertModel)
        return ExBertForQuestionAnswering(encoder, config.model)

    return fine_tune(config, context, METRICS, build)
