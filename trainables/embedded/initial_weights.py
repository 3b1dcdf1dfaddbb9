"""First weights of the embedded encoder: attention that starts with equal tokens and near positions.

From ordinary random weights, matching a question to its fact appears only after thousands of steps;
from these, together with the hints in `pretrain`, after some 300. Words and positions start in separate dimensions; some
heads compare words with words, others look a fixed number of tokens ahead or behind. All of it is
trained on freely. Source: the idea is Trockman & Kolter 2023, "Mimetic Initialization of
Self-Attention Layers" (arXiv:2305.09828); offset heads are rotations of sinusoidal positions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import DistilBertConfig, DistilBertForQuestionAnswering

__all__ = ["new_model"]

# Shapes: P = position dimensions, F = frequencies (P / 2), H = dimensions of one head.
_NUM_POSITION_DIMS = 32
_WAVELENGTHS = (4.0, 1000.0)
"""Shortest and longest wavelength of the sinusoidal positions, in tokens."""
_EMBEDDING_SCALE = 0.05
"""Small, so that fine-tuning can move an embedding within a hundred steps."""
_ATTENTION_GAIN = 1.4
"""Scales queries and keys alike: an equal token starts about 10 nats above an unrelated one."""
_HEADS = (("word", "word", "word", -1), (-5, -2, 2, 5), ("word", "any", -1, 1))
"""Per block, what each head compares at first: words, nothing in particular, or an offset in tokens."""


def new_model(vocab_size: int, seed: int) -> DistilBertForQuestionAnswering:
    """A DistilBERT of 3 blocks, 96 wide, with the first weights described above."""
    torch.manual_seed(seed)
    config = DistilBertConfig(
        vocab_size=vocab_size,
        dim=96,
        hidden_dim=384,
        n_layers=len(_HEADS),
        n_heads=len(_HEADS[0]),
        max_position_embeddings=512,
        pad_token_id=0,
        dropout=0.0,
        attention_dropout=0.0,
        qa_dropout=0.0,
        initializer_range=0.1,  # about 1 / sqrt(dim); the default 0.02 suits a width of 768
    )
    model = DistilBertForQuestionAnswering(config)
    with torch.no_grad():
        _set_embeddings(model.distilbert.embeddings)
        for block, heads in zip(model.distilbert.transformer.layer, _HEADS, strict=True):
            for index, head in enumerate(heads):
                _set_head(block.attention, index, head)
    return model


def _frequencies() -> Tensor:
    """Angular frequencies (F,) of the positions, fastest first, in radians per token."""
    shortest, longest = (math.log10(length) for length in _WAVELENGTHS)
    return 2 * math.pi / torch.logspace(shortest, longest, _NUM_POSITION_DIMS // 2)


def _set_embeddings(embeddings: nn.Module) -> None:
    """Random words in the first dimensions and sinusoidal positions in the last ones."""
    words, positions = embeddings.word_embeddings.weight, embeddings.position_embeddings.weight
    words.normal_(std=_EMBEDDING_SCALE)[:, -_NUM_POSITION_DIMS:] = 0
    angles = torch.arange(len(positions))[:, None] * _frequencies()
    waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)  # sine and cosine alternate
    positions.zero_()[:, -_NUM_POSITION_DIMS:] = waves * _EMBEDDING_SCALE * math.sqrt(2)


def _set_head(attention: nn.Module, index: int, head: str | int) -> None:
    """Set the query and key rows of one head."""
    width = attention.dim // attention.n_heads
    rows = slice(index * width, (index + 1) * width)
    query, key = attention.q_lin.weight[rows], attention.k_lin.weight[rows]  # (H, dim) views
    if head == "word":
        query.zero_()
        nn.init.orthogonal_(query[:, :-_NUM_POSITION_DIMS], gain=_ATTENTION_GAIN)
        key.copy_(query)
    elif isinstance(head, int):
        query.zero_()[:, -_NUM_POSITION_DIMS:] = _ATTENTION_GAIN * torch.eye(width, _NUM_POSITION_DIMS)
        key.zero_()[:, -_NUM_POSITION_DIMS:] = _ATTENTION_GAIN * _rotation(head)[:width]


def _rotation(offset: int) -> Tensor:
    """The matrix (P, P) that makes position j look like position j - offset."""
    rotation = torch.zeros(_NUM_POSITION_DIMS, _NUM_POSITION_DIMS)
    for index, frequency in enumerate(_frequencies().tolist()):
        cosine, sine = math.cos(frequency * offset), math.sin(frequency * offset)
        pair = slice(2 * index, 2 * index + 2)
        rotation[pair, pair] = torch.tensor([[cosine, -sine], [sine, cosine]])
    return rotation
