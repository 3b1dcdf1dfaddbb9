"""Training the gate of an ensemble."""

from __future__ import annotations

from collections.abc import Iterator

from transformers import DistilBertForQuestionAnswering, DistilBertModel

from trainables.contract import Parent, Report, TrialContext
from trainables.gated_ensemble.config import METRICS, Config
from trainables.gated_ensemble.model import GatedEnsemble
from trainables.models.encoder import load_encoder
from trainables.training.loop import fine_tune
from trainables.training.parents import load_parent

__all__ = ["train"]


def train(config: Config, context: TrialContext) -> Iterator[Report]:
    """Trains a freshly drawn gate over the parents' models; these and the encoder stay as they are."""

    def build() -> GatedEnsemble:
        base = load_encoder(context.data.encoder, config.model.n_layers, DistilBertModel)
        return GatedEnsemble(base, [_expert(parent, context.data.encoder) for parent in context.parents], config.model)

    return fine_tune(config, context, METRICS, build)


def _expert(parent: Parent, encoder: str) -> DistilBertForQuestionAnswering:
    model = load_encoder(encoder, parent.config.model.n_layers, DistilBertForQuestionAnswering)  # type: ignore[attr-defined]
    load_parent(model, parent)
    return model
