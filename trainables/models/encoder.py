"""Loading a pre-trained DistilBERT encoder, cut to its first blocks, and adding layers to these."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn
from transformers import AutoConfig, DistilBertConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from trainables.data.errors import DataError
from trainables.data.sources import parse_encoder

__all__ = ["append_to", "encoder_config", "load_encoder"]

Model = TypeVar("Model", bound=PreTrainedModel)


def encoder_config(encoder: str, n_layers: int | None = None) -> DistilBertConfig:
    """The encoder's own configuration, with the first `n_layers` blocks (None: all).

    Raises:
        DataError: it cannot be loaded, is not a DistilBERT, or has fewer blocks.
    """
    source = parse_encoder(encoder)
    try:
        config = AutoConfig.from_pretrained(source.name_or_path, revision=source.revision)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot load the encoder {encoder}: {error}; name a local folder, or use --preset embedded") from error
    if not isinstance(config, DistilBertConfig):
        raise DataError(
            f"the encoder must be a DistilBERT, got {config.model_type!r} in {encoder}; "
            "name one such as distilbert-base-uncased"
        )
    if n_layers is not None and not 1 <= n_layers <= config.n_layers:
        raise DataError(
            f"model.n_layers must be in [1, {config.n_layers}], the blocks of {encoder}, got {n_layers}; "
            "take fewer, or an encoder with more blocks"
        )
    config.n_layers = n_layers or config.n_layers
    return config


def load_encoder(encoder: str, n_layers: int | None, model_class: type[Model]) -> Model:
    """`model_class` with the encoder's embeddings and first blocks, in float32; parts that it lacks are freshly drawn.

    Fresh parts come from torch's global generator, so seed it first.
    """
    source, config = parse_encoder(encoder), encoder_config(encoder, n_layers)
    with _quiet_transformers():
        model: Model = model_class.from_pretrained(
            source.name_or_path, revision=source.revision, config=config, dtype=torch.float32
        )
    return model


def append_to(block: nn.Module, layer: nn.Module) -> None:
    """Makes `layer` the last part of `block`. It is not registered there: its parameters belong to whoever holds it."""
    block.register_forward_hook(lambda _module, _inputs, hidden_BTD: layer(hidden_BTD))


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silences the report of freshly drawn and unused weights: here it says only what is meant to happen."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
