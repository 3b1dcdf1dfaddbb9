"""Training a mixture-of-experts variant."""

from __future__ import annotations

from collections.abc import Iterator

from transformers import DistilBertModel

from trainables.contract import Report, TrialContext
from trainables.models.encoder import load_encoder
from trainables.moe_variants.config import METRICS, Config
from trainables.moe_variants.model import MoEVariantForQuestionAnswering
from trainables.training.loop import fine_tune
from trainables.training.parents import take_over

__all__ = ["train"]


def train(config: Config, context: TrialContext) -> Iterator[Report]:
    """Fine-tunes the encoder's first blocks with expert layers and a freshly drawn head."""

    def build() -> MoEVariantForQuestionAnswering:
        encoder = load_encoder(context.data.encoder, config.model.n_layers, DistilBertModel)
        model = MoEVariantForQuestionAnswering(encoder, config.model)
        take_over(model, context.parents)
        return model

    return fine_tune(config, context, METRICS, build)
