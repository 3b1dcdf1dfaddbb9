"""Settings of the plain DistilBERT (the papers' V-DB). Importing this is cheap."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from trainables.config import QAConfig, Settings

__all__ = ["METRICS", "VARIANTS", "VERSION", "Config", "ModelConfig"]

VERSION = 1
"""Bumped when the same configuration and seed would give other results."""

METRICS = ("train_qa_loss", "val_qa_loss", "learning_rate")

VARIANTS: dict[str, dict[str, Any]] = {}


class ModelConfig(Settings):
    """The encoder's first blocks, perhaps a dense block, and a question-answering head."""

    n_layers: int | None = Field(
        None, ge=1, le=6, description="transformer blocks kept, from the first; null: all of the encoder's"
    )
    dense_block: bool = Field(False, description="after the last block, one of ExBERT's experts that every token takes")


class Config(QAConfig):
    """A V-DB trial."""

    model: ModelConfig = ModelConfig()
