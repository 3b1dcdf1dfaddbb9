"""The configuration of a pre-trained DistilBERT encoder, known before anything of it is loaded."""

from __future__ import annotations

from transformers import AutoConfig, DistilBertConfig

from trainables.data.errors import DataError
from trainables.data.sources import parse_encoder

__all__ = ["encoder_config"]


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
