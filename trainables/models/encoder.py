"""Loading a pre-trained DistilBERT encoder, cut to its first blocks, and adding layers to these."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import torch
from torch import nn
from transformers import DistilBertConfig, DistilBertModel, PreTrainedModel
from transformers.utils import logging as transformers_logging

from trainables.data.sources import encoder_fingerprint, parse_encoder
from trainables.models.encoder_config import encoder_config

__all__ = ["append_to", "draw_again", "load_encoder"]

Model = TypeVar("Model", bound=PreTrainedModel)


_KEPT_BYTES = 64 * 2**20
"""Encoders whose folder is no larger stay in a worker for its next trial: a copy takes 4 ms where loading takes 24. Training
larger ones takes minutes, and a second copy their memory."""


@dataclass(frozen=True)
class _Loaded:
    """A model as it was loaded; `missing` names the parameters that its encoder lacks."""

    model: PreTrainedModel
    missing: tuple[str, ...]


def load_encoder(encoder: str, n_layers: int | None, model_class: type[Model]) -> Model:
    """`model_class` with the encoder's embeddings and first blocks, in float32; parts that it lacks are freshly drawn.

    Fresh parts come from torch's global generator, so seed it first.

    Raises:
        DataError: see `encoder_config`.
    """
    folder = parse_encoder(encoder).path
    if folder is None or sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) > _KEPT_BYTES:
        loaded = _load(encoder, n_layers, model_class)
    else:
        kept = _kept(encoder_fingerprint(encoder), encoder, n_layers, model_class)
        loaded = _Loaded(copy.deepcopy(kept.model), kept.missing)
    model: Model = loaded.model  # type: ignore[assignment]
    _draw(model, loaded.missing)
    return model


def _draw(model: PreTrainedModel, missing: Collection[str]) -> None:
    """Draws the parameters that are `missing`, as transformers does, module by module; those next to them stay."""
    for owner in dict.fromkeys(name.rpartition(".")[0] for name in missing):
        module = model.get_submodule(owner)
        present = {name: p.detach().clone() for name, p in module.named_parameters(owner, False) if name not in missing}
        model._init_weights(module)
        model.load_state_dict(present, strict=False)


@lru_cache(maxsize=2)  # a grid's two architectures
def _kept(fingerprint: str, encoder: str, n_layers: int | None, model_class: type[PreTrainedModel]) -> _Loaded:
    """Nobody may change it. `fingerprint`: of the encoder's files, whatever lies at that path next."""
    return _load(encoder, n_layers, model_class)


def _load(encoder: str, n_layers: int | None, model_class: type[PreTrainedModel]) -> _Loaded:
    """Leaves torch's generator where it was."""
    source, kept = parse_encoder(encoder), encoder_config(encoder, n_layers)
    config = DistilBertConfig.from_pretrained(source.name_or_path, revision=source.revision, n_layers=kept.n_layers)
    with _quiet_transformers(), torch.random.fork_rng(devices=[]):
        model, told = model_class.from_pretrained(
            source.name_or_path, revision=source.revision, config=config, dtype=torch.float32, output_loading_info=True
        )
    return _Loaded(model, tuple(sorted(told["missing_keys"])))


def append_to(block: nn.Module, layer: nn.Module) -> None:
    """Makes `layer` the last part of `block`. It is not registered there: its parameters belong to whoever holds it."""
    block.register_forward_hook(lambda _module, _inputs, hidden_BTD: layer(hidden_BTD))


def draw_again(encoder: DistilBertModel, num_blocks: int) -> None:
    """Initialises the last blocks anew, from torch's generator: linear weights normal with the model's own deviation, biases 0,
    normalisation gains 1 (papers: document B, section 3.3; Zhang et al. 2021, section 5)."""
    for block in encoder.transformer.layer[len(encoder.transformer.layer) - num_blocks :]:
        for module in block.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=encoder.config.initializer_range)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)


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
