"""What is known of a pre-trained DistilBERT encoder before anything of it is loaded. Imports no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.data.errors import DataError
from trainables.data.sources import EncoderSource, parse_encoder

__all__ = ["EncoderConfig", "encoder_config"]

_BLOCKS, _POSITIONS = 6, 512
"""Where config.json leaves them out (transformers 5.23, `DistilBertConfig`)."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The first `n_layers` transformer blocks of an encoder that takes windows of up to `max_position_embeddings` tokens."""

    n_layers: int
    max_position_embeddings: int


def encoder_config(encoder: str, n_layers: int | None = None) -> EncoderConfig:
    """The encoder's own configuration, with the first `n_layers` blocks (None: all).

    Raises:
        DataError: it cannot be read, is not a DistilBERT, or has fewer blocks.
    """
    found = _read(encoder)
    if found.get("model_type") != "distilbert":
        raise DataError(
            f"the encoder must be a DistilBERT, got {found.get('model_type')!r} in {encoder}; "
            "name one such as distilbert-base-uncased"
        )
    blocks = int(found.get("n_layers") or found.get("num_hidden_layers") or _BLOCKS)
    if n_layers is not None and not 1 <= n_layers <= blocks:
        raise DataError(
            f"model.n_layers must be in [1, {blocks}], the blocks of {encoder}, got {n_layers}; "
            "take fewer, or an encoder with more blocks"
        )
    positions = int(found.get("max_position_embeddings") or _POSITIONS)
    return EncoderConfig(n_layers=n_layers or blocks, max_position_embeddings=positions)


def _read(encoder: str) -> dict[str, Any]:
    try:
        found = json.loads(_file(parse_encoder(encoder)).read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
        error: Exception = ValueError("its config.json holds no object")
    except (OSError, ValueError) as caught:
        error = caught
    raise DataError(f"cannot load the encoder {encoder}: {error}; name a local folder, or use --preset embedded") from error


def _file(source: EncoderSource) -> Path:
    if source.path is not None:
        return source.path / "config.json"
    from transformers.utils.hub import cached_file

    return Path(str(cached_file(source.name_or_path, "config.json", revision=source.revision)))
