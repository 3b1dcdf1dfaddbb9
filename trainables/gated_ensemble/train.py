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
from trainables.training.preparation import prepared_for

__all__ = ["train"]


def train(config: Config, context: TrialContext) -> Iterator[Report]:
    """Trains a freshly drawn gate over the parents' models; these and the encoder stay as they are."""

    def build() -> GatedEnsemble:
        base = load_encoder(context.data.encoder, config.model.n_layers, DistilBertModel)
        return GatedEnsemble(base, [_expert(parent, context.data.encoder) for parent in context.parents], config.model)

    return fine_tune(_of_gate(config, context), context, METRICS, build)


def _of_gate(config: Config, context: TrialContext) -> Config:
    """The configuration with the mixture that the gate learns from."""
    if config.model.gate_data == "mixture":
        return config
    prepared = prepared_for(config, context.data, context.prepared_dir)
    counts = prepared.counts_of(config.mixture)
    others = [
        0 if count else len(domain.split("train")) for count, domain in zip(counts, prepared.domains.values(), strict=True)
    ]
    examples = tuple(map(max, others, counts)) if config.model.gate_data == "all" else tuple(others)
    mixture = config.mixture.model_copy(update={"examples": examples, "size": sum(examples)})
    return config.model_copy(update={"mixture": mixture})


def _expert(parent: Parent, encoder: str) -> DistilBertForQuestionAnswering:
    model = load_encoder(encoder, parent.config.model.n_layers, DistilBertForQuestionAnswering)  # type: ignore[attr-defined]
    load_parent(model, parent)
    return model
