"""Settings of the gated ensemble. Importing this is cheap.

Sources: papers, document B, with the readings of section 2.3 of the digest.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from pydantic import Field

from trainables.config import ModelSettings, ParentPoint, QAConfig

__all__ = ["METRICS", "VARIANTS", "VERSION", "Config", "ModelConfig", "parents_of"]

VERSION = 2
"""Bumped when the same configuration and seed would give other results."""

METRICS = ("train_qa_loss", "val_qa_loss", "learning_rate")

_GATE_RATE = {"learning_rate": 1e-3}
"""The gate is small and freshly drawn; digest, section 2.3."""

VARIANTS: dict[str, dict[str, Any]] = {
    "logits": {"model": {"combine": "logits"}, "training": _GATE_RATE},
    "probabilities": {"model": {"combine": "probabilities"}, "training": _GATE_RATE},
}
"""What is mixed: the paper's equation is of probabilities, its implementation of logits (section 2.1)."""


class ModelConfig(ModelSettings):
    """The experts and their gate. Only the gate learns."""

    n_layers: int | None = Field(
        None, ge=1, le=6, description="transformer blocks of each expert, from the first; null: all of the encoder's"
    )
    reinit_k: int = Field(0, ge=0, le=6, description="last blocks of each expert that begin freshly drawn")
    combine: Literal["logits", "probabilities"] = Field(
        "logits", description="what the gate's weights mix, for starts and ends: logits, or probabilities over the tokens"
    )
    gate_input: Literal["base_mean", "base_cls", "embedding_mean", "expert_cls"] = Field(
        "base_mean",
        description="what the gate reads: the mean or first state of the frozen encoder, the mean of its embeddings, or the "
        "experts' first states side by side",
    )
    gate_data: Literal["mixture", "others", "all"] = Field(
        "mixture",
        description="what the gate learns from: the mixture, as the experts do; all examples of the domains that the mixture "
        "leaves out; or both",
    )
    expert_epochs: int | None = Field(
        None, ge=1, le=100, description="passes of each expert over its domain; null: the sweep's"
    )
    gate_hidden: int = Field(768, ge=8, le=4096, description="width of the gate's two hidden layers (section 2.1: 768)")

    @property
    def least_blocks(self) -> int:
        """See `ModelSettings.least_blocks`."""
        return max(1, self.reinit_k)


class Config(QAConfig):
    """A trial of the gated ensemble. Its mixture is what the experts learn from, and the gate unless `gate_data` says more."""

    model: ModelConfig = ModelConfig()


def parents_of(config: QAConfig) -> tuple[ParentPoint, ...]:
    """One expert for each domain of the mixture: a plain DistilBERT trained on that domain alone.

    Of two domains each gives as many examples as the mixture has in all, of more as many as the mixture has of it.

    Raises:
        ValueError: the gate is to learn from what the mixture leaves out, and it leaves out nothing.
    """
    model: ModelConfig = config.model  # type: ignore[assignment]
    if model.gate_data != "mixture" and all(config.mixture.parts):
        raise ValueError(
            f"gate_data={model.gate_data} needs domains that the mixture leaves out, and it has examples of all; "
            "take gate_data=mixture, or a share of 0 or 100"
        )
    changes = {"reinit_k": model.reinit_k, "n_layers": model.n_layers}
    training: dict[str, Any] = {"select": config.training.select}
    if model.expert_epochs is not None:
        training["epochs"] = model.expert_epochs
    expert = partial(ParentPoint, trainable="distilbert", model=changes, training=training)
    counts = config.mixture.examples
    if not counts:
        return tuple(expert(share=share) for share in (100, 0))
    alone = (tuple(count * (place == own) for place, count in enumerate(counts)) for own in range(len(counts)))
    return tuple(expert(share=config.mixture.share, examples=each) for each in alone if any(each))
