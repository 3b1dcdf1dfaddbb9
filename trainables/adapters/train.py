"""Training adapters."""

from __future__ import annotations

from collections.abc import Iterator

from transformers import DistilBertModel

from trainables.adapters.config import METRICS, Config
from trainables.adapters.model import AdaptersForQuestionAnswering
from trainables.contract import Report, TrialContext
from trainables.models.encoder import load_encoder
from trainables.training.loop import fine_tune

__all__ = ["train"]


def train(config: Config, context: TrialContext) -> Iterator[Report]:
    """Trains adapters of the encoder's first blocks, and a head, both freshly drawn; the encoder stays as it is."""

    def build() -> AdaptersForQuestionAnswering:
        encoder = load_encoder(context.data.encoder, config.model.n_layers, DistilBertModel)
        return AdaptersForQuestionAnswering(encoder, config.model)

    return fine_tune(config, context, METRICS, build)
