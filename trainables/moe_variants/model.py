"""DistilBERT with layers of routed feed-forward experts, by settings (papers, document D, section 3.2 of the digest).

Shapes: B = windows, T = tokens, D = width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import DistilBertConfig, DistilBertModel
from transformers.models.distilbert.modeling_distilbert import FFN

from trainables.models.routed_experts import FeedForwardExpert, RoutedExperts, upcycle
from trainables.models.routed_qa import RoutedQuestionAnswering, insert
from trainables.models.routers import ROUTERS
from trainables.moe_variants.config import ModelConfig

__all__ = ["MoEVariantForQuestionAnswering", "places"]


class MoEVariantForQuestionAnswering(RoutedQuestionAnswering):
    """A question answerer with expert layers in the places that the settings name."""

    def __init__(self, encoder: DistilBertModel, settings: ModelConfig) -> None:
        blocks = [encoder.transformer.layer[place] for place in places(settings, encoder.config.n_layers)]
        replace = settings.placement != "after_last"
        layers = [_Experts(settings, encoder.config, block.ffn) for block in blocks]
        super().__init__(encoder, layers if replace else [_Appended(layer, encoder.config) for layer in layers])
        for block, layer in zip(blocks, self.expert_layers, strict=True):
            insert(block, layer, replace=replace)
            _freeze(layer.moe, settings.freeze)


def places(settings: ModelConfig, num_blocks: int) -> Sequence[int]:
    """0-based indices of the blocks that get an expert layer."""
    if settings.placement == "last_blocks":
        return range(num_blocks - settings.num_blocks, num_blocks)
    return {"after_last": range(num_blocks - 1, num_blocks), "every_second": range(1, num_blocks, 2), "all": range(num_blocks)}[
        settings.placement
    ]


class _Experts(RoutedExperts):
    """In the place of a feed-forward: with its outer dropout."""

    def __init__(self, settings: ModelConfig, config: DistilBertConfig, trained: FFN) -> None:
        router = ROUTERS[settings.router](config.dim, settings.num_experts, settings.capacity_factor, settings.normalized_gates)
        experts = [FeedForwardExpert(config, settings.expert_dropout) for _ in range(settings.num_experts)]
        super().__init__(router, experts, settings.balance_loss_coef, settings.router_z_loss_coef)
        self.dropout = nn.Dropout(config.dropout)
        if settings.expert_init != "random":
            for expert in experts:
                upcycle(expert, trained, settings.expert_noise if settings.expert_init == "upcycled_noise" else 0.0)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        out_BTD: torch.Tensor = self.dropout(super().forward(x_BTD))
        return out_BTD


class _Appended(nn.Module):
    """An expert layer of its own, with the residual and normalisation that DistilBERT has about its feed-forward."""

    def __init__(self, experts: RoutedExperts, config: DistilBertConfig) -> None:
        super().__init__()
        self.moe = experts
        self.layer_norm = nn.LayerNorm(config.dim, eps=1e-12)

    @property
    def losses(self) -> dict[str, torch.Tensor]:
        """See `RoutedLayer`."""
        return self.moe.losses

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        out_BTD: torch.Tensor = self.layer_norm(x_BTD + self.moe(x_BTD))
        return out_BTD


def _freeze(experts: RoutedExperts, what: str) -> None:
    frozen = {"none": (), "gate": (experts.router,), "expert": (experts.experts,), "moe": (experts.router, experts.experts)}
    for part in frozen[what]:
        part.requires_grad_(False)
