"""Loading a pre-trained DistilBERT encoder, cut to its first blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, DistilBertConfig, DistilBertForQuestionAnswering, PreTrainedModel
from transformers.utils import logging as transformers_logging

__all__ = ["check_layers", "encoder_config", "load_question_answerer", "split_revision"]


def split_revision(encoder: str) -> tuple[str, str | None]:
    """`owner/name@revision` as (`owner/name`, `revision`); a local folder is left whole."""
    if Path(encoder).is_dir():
        return encoder, None
    name, _, revision = encoder.partition("@")
    return name, revision or None


def encoder_config(encoder: str) -> DistilBertConfig:
    """The encoder's own configuration.

    Raises:
        ValueError: it is not a DistilBERT encoder.
    """
    name, revision = split_revision(encoder)
    config = AutoConfig.from_pretrained(name, revision=revision)
    if not isinstance(config, DistilBertConfig):
        raise ValueError(
            f"the encoder must be a DistilBERT, got {config.model_type!r} in {encoder}; name one such as distilbert-base-uncased"
        )
    return config


def check_layers(n_layers: int | None, config: DistilBertConfig, encoder: str) -> int:
    """The number of blocks to keep, `None` meaning all of the encoder's.

    Raises:
        ValueError: more blocks than the encoder has.
    """
    kept = config.n_layers if n_layers is None else n_layers
    if not 1 <= kept <= config.n_layers:
        raise ValueError(
            f"model.n_layers must be in [1, {config.n_layers}], the blocks of {encoder}, got {n_layers}; "
            f"take fewer, or an encoder with more blocks"
        )
    return kept


def load_question_answerer(
    encoder: str, *, n_layers: int | None, model_class: type[PreTrainedModel] = DistilBertForQuestionAnswering, **extra: Any
) -> PreTrainedModel:
    """`model_class` with the encoder's embeddings and first `n_layers` blocks; what the encoder lacks is freshly drawn.

    The fresh parts come from torch's global generator, so seed it first. `extra` goes to the model's constructor.
    """
    name, revision = split_revision(encoder)
    config = encoder_config(encoder)
    config.n_layers = check_layers(n_layers, config, encoder)
    with _quiet_transformers():
        model: PreTrainedModel = model_class.from_pretrained(
            name, revision=revision, config=config, dtype=torch.float32, **extra
        )
    return model


class _quiet_transformers:  # noqa: N801  (reads as a function)
    """Silences the report of freshly drawn and unused weights: here it says only what is meant to happen."""

    def __enter__(self) -> None:
        self._verbosity = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        transformers_logging.set_verbosity(self._verbosity)
