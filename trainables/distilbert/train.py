"""Training the plain DistilBERT."""

from __future__ import annotations

from collections.abc import Iterator

from transformers import DistilBertForQuestionAnswering

from trainables.contract import Report, TrialContext
from trainables.distilbert.config import METRICS, Config
from trainables.distilbert.model import add_dense_block
from trainables.models.encoder import draw_again, load_encoder
from trainables.training.loop import fine_tune
from trainables.training.parents import take_over

__all__ = ["train"]


def train(config: Config, context: TrialContext) -> Iterator[Report]:
    """Fine-tunes `DistilBertForQuestionAnswering`, its head and dense block freshly drawn."""

    def build() -> DistilBertForQuestionAnswering:
        model = load_encoder(context.data.encoder, config.model.n_layers, DistilBertForQuestionAnswering)
        draw_again(model.distilbert, config.model.reinit_k)
        if config.model.dense_block:
            add_dense_block(model)
        take_over(model, context.parents)
        return model

    return fine_tune(config, context, METRICS, build)
