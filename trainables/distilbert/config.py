"""Settings of the plain DistilBERT (the papers' V-DB). Importing this is cheap."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from trainables.config import ModelSettings, ParentPoint, QAConfig, mixed_parent

__all__ = ["METRICS", "VARIANTS", "VERSION", "Config", "ModelConfig", "parents_of"]

VERSION = 2
"""Bumped when the same configuration and seed would give other results."""

METRICS = ("train_qa_loss", "val_qa_loss", "learning_rate")

VARIANTS: dict[str, dict[str, Any]] = {}


class ModelConfig(ModelSettings):
    """The encoder's first blocks, perhaps a dense block, and a question-answering head."""

    n_layers: int | None = Field(
        None, ge=1, le=6, description="transformer blocks kept, from the first; null: all of the encoder's"
    )
    reinit_k: int = Field(
        0, ge=0, le=6, description="last blocks that begin freshly drawn (papers: document B, section 3.3: 2 to 4)"
    )
    start_from: Literal["base", "mixed"] = Field(
        "base",
        description="base: the pre-trained encoder; mixed: this very model trained on 60:40 shuffled, a trial of its own",
    )
    dense_block: bool = Field(False, description="after the last block, one of ExBERT's experts that every token takes")

    @property
    def least_blocks(self) -> int:
        """See `ModelSettings.least_blocks`."""
        return max(1, self.reinit_k)

    @model_validator(mode="after")
    def _blocks_to_draw(self) -> ModelConfig:
        if self.n_layers is not None and self.reinit_k > self.n_layers:
            raise ValueError(f"reinit_k must be in [0, n_layers={self.n_layers}], got {self.reinit_k}")
        return self


class Config(QAConfig):
    """A V-DB trial."""

    model: ModelConfig = ModelConfig()


def parents_of(config: QAConfig) -> tuple[ParentPoint, ...]:
    """See `mixed_parent`."""
    return mixed_parent("distilbert", config.model)
