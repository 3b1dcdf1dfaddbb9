"""ExBERT: the first DistilBERT blocks, an ST-MoE layer, and a question-answering head (papers: document A, section 2.1).

Shapes: B = windows, T = tokens, D = width.
"""

from __future__ import annotations

import torch
from st_moe_pytorch import SparseMoEBlock
from torch import nn
from transformers import DistilBertModel

from trainables.exbert.config import ModelConfig
from trainables.models.experts import ExactMoE, LibraryMoE
from trainables.models.routed_qa import RoutedQuestionAnswering, insert

__all__ = ["ExBertForQuestionAnswering", "ExpertLayer"]

CAPACITY_FACTOR_EVAL = 2.0
"""st-moe-pytorch 0.1.8's default; only `moe_semantics: library` has a capacity in evaluation."""


class ExpertLayer(nn.Module):
    """[dropout] -> expert layer in one of its wirings -> [dropout]; keeps the losses of the last pass."""

    def __init__(self, settings: ModelConfig, dim: int) -> None:
        super().__init__()
        placed = settings.dropout_placement
        self.dropout_before = nn.Dropout(settings.moe_dropout if placed in ("before", "both") else 0.0)
        self.dropout_after = nn.Dropout(settings.moe_dropout if placed in ("after", "both") else 0.0)
        self.residual = settings.moe_wiring == "bare_residual"
        moe = _expert_module(settings, dim)
        self.block = moe if settings.moe_wiring.startswith("bare") else _sparse_block(moe, settings.moe_wiring)
        self.losses: dict[str, torch.Tensor] = {}

    @property
    def moe(self) -> ExactMoE | LibraryMoE:
        """The routed experts, whatever they are wrapped in."""
        moe: ExactMoE | LibraryMoE = self.block.moe if isinstance(self.block, SparseMoEBlock) else self.block
        return moe

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        x_BTD = self.dropout_before(x_BTD)
        result = self.block(x_BTD)
        self.losses = {
            "aux_loss": result.total_aux_loss.sum(),
            "balance_loss": result.balance_loss.sum(),
            "router_z_loss": result.router_z_loss.sum(),
        }
        mixed_BTD = result.outputs + x_BTD if self.residual else result.outputs
        out: torch.Tensor = self.dropout_after(mixed_BTD.to(x_BTD.dtype))
        return out


def _expert_module(settings: ModelConfig, dim: int) -> ExactMoE | LibraryMoE:
    kind = {"exact": ExactMoE, "library": LibraryMoE}[settings.moe_semantics]
    moe: ExactMoE | LibraryMoE = kind(
        dim=dim,
        num_experts=settings.num_experts,
        gating_top_n=2,
        threshold_train=settings.threshold,
        threshold_eval=settings.threshold,
        capacity_factor_train=settings.capacity_factor,
        capacity_factor_eval=CAPACITY_FACTOR_EVAL,
        balance_loss_coef=settings.balance_loss_coef,
        router_z_loss_coef=settings.router_z_loss_coef,
        is_distributed=False,
    )
    if settings.expert_dropout:
        _add_dropout(moe, settings.expert_dropout)
    return moe


def _add_dropout(moe: ExactMoE | LibraryMoE, rate: float) -> None:
    """Puts dropout before the last projection of every expert."""
    for expert in moe.experts.experts:
        *first, last = expert.net
        expert.net = nn.Sequential(*first, nn.Dropout(rate), last)


def _sparse_block(moe: ExactMoE | LibraryMoE, wiring: str) -> SparseMoEBlock:
    return SparseMoEBlock(
        moe, add_ff_before=wiring in ("block_before", "block_both"), add_ff_after=wiring in ("block_after", "block_both")
    )


class ExBertForQuestionAnswering(RoutedQuestionAnswering):
    """Start and end logits, hidden states, attentions, and the loss with its parts."""

    def __init__(self, encoder: DistilBertModel, settings: ModelConfig) -> None:
        places = _places(settings, encoder.config.n_layers)
        super().__init__(encoder, [ExpertLayer(settings, encoder.config.dim) for _ in places])
        for place, layer in zip(places, self.expert_layers, strict=True):
            insert(encoder.transformer.layer[place], layer, replace=settings.moe_position.startswith("replace"))


def _places(settings: ModelConfig, num_blocks: int) -> range:
    """0-based indices of the blocks that get an expert layer."""
    if settings.moe_position == "replace_all_ffn":
        return range(num_blocks)
    place = num_blocks - 1 if settings.moe_block is None else settings.moe_block - 1
    return range(place, place + 1)
