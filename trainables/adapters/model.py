"""A frozen DistilBERT with adapters in its projections, and a question-answering head.

Shapes: B = windows, T = tokens, D = width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from transformers import DistilBertModel

from trainables.adapters.config import ModelConfig
from trainables.models.adapters import AdapterMixture, LoraMixture, VectorMixture
from trainables.models.routed_qa import Borrowed, RoutedQuestionAnswering

__all__ = ["AdaptersForQuestionAnswering"]


class AdaptersForQuestionAnswering(RoutedQuestionAnswering):
    """Only the adapters, their routers and the head learn."""

    def __init__(self, encoder: DistilBertModel, settings: ModelConfig) -> None:
        for parameter in encoder.parameters():
            parameter.requires_grad_(False)
        add = _add_vectors if settings.method in ("ia3", "mov") else _add_lora
        adapters = [adapter for block in encoder.transformer.layer for adapter in add(block, settings)]
        super().__init__(encoder, adapters if settings.num_experts > 1 else [])
        self.adapters = nn.ModuleList(adapters if settings.num_experts == 1 else [])
        self.reads_sentences = settings.routing_input == "sentence"

    def _prepare(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> None:
        super()._prepare(input_ids, attention_mask)
        if self.reads_sentences:
            self._route_by_sentences(input_ids, attention_mask)

    @torch.no_grad()
    def _route_by_sentences(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> None:
        """Gives every router the mean over real tokens of what the encoder makes of them without adapters and dropout."""
        was_training = self.distilbert.training
        _set_active(self.distilbert, False)
        states_BTD = self.distilbert.eval()(input_ids, attention_mask).last_hidden_state
        self.distilbert.train(was_training)
        _set_active(self.distilbert, True)
        mask_BT1 = attention_mask[..., None].to(states_BTD.dtype)
        sentence_BD = (states_BTD * mask_BT1).sum(dim=1) / mask_BT1.sum(dim=1)
        for layer in self.expert_layers:
            layer.sentence_BD = sentence_BD


class _Adapted(nn.Module):
    """A frozen projection with an adapter that is registered elsewhere; the adapter can be switched off."""

    def __init__(self, projection: nn.Linear, adapter: AdapterMixture) -> None:
        super().__init__()
        self.projection = projection
        self.adapter = Borrowed(adapter)
        self.is_active = True


class _ScaledOutput(_Adapted):
    """l * (W x)."""

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.projection(x_BTD)
        return self.adapter(x_BTD, out) if self.is_active else out


class _ScaledInput(_Adapted):
    """W (l * x), routed by what the feed-forward as a whole got."""

    routed_by_BTD: torch.Tensor

    def forward(self, x_BTI: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.projection(self.adapter(self.routed_by_BTD, x_BTI) if self.is_active else x_BTI)
        return out


class _Added(_Adapted):
    """W x + (sum of B A x)."""

    def forward(self, x_BTI: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.projection(x_BTI)
        return out + self.adapter(x_BTI) if self.is_active else out


def _set_active(module: nn.Module, is_active: bool) -> None:
    for part in module.modules():
        if isinstance(part, _Adapted):
            part.is_active = is_active


def _add_vectors(block: nn.Module, settings: ModelConfig) -> Iterator[VectorMixture]:
    """(IA)3's three places: softmax(Q (l_k * K)') (l_v * V), and W2 (l_ff * gelu(W1 x))."""
    attention, feed_forward = block.attention, block.ffn
    routed_by = attention.k_lin.in_features
    for name in ("k_lin", "v_lin"):
        adapter = _vectors(getattr(attention, name).out_features, routed_by, settings)
        setattr(attention, name, _ScaledOutput(getattr(attention, name), adapter))
        yield adapter
    adapter = _vectors(feed_forward.lin2.in_features, routed_by, settings)
    scaled = feed_forward.lin2 = _ScaledInput(feed_forward.lin2, adapter)
    feed_forward.register_forward_pre_hook(lambda _module, inputs: setattr(scaled, "routed_by_BTD", inputs[0]))
    yield adapter


def _vectors(size: int, routed_by: int, settings: ModelConfig) -> VectorMixture:
    return VectorMixture(size, routed_by, settings.num_experts, settings.merging, settings.balance_loss_coef)


def _add_lora(block: nn.Module, settings: ModelConfig) -> Iterator[LoraMixture]:
    """All six projections, each routed by its own input, or by sentences."""
    assert settings.rank is not None
    width = block.attention.q_lin.in_features
    for owner, names in ((block.attention, ("q_lin", "k_lin", "v_lin", "out_lin")), (block.ffn, ("lin1", "lin2"))):
        for name in names:
            projection = getattr(owner, name)
            adapter = LoraMixture(
                projection.in_features,
                projection.out_features,
                settings.rank,
                width if settings.routing_input == "sentence" else projection.in_features,
                settings.num_experts,
                settings.merging,
                settings.balance_loss_coef,
            )
            setattr(owner, name, _Added(projection, adapter))
            yield adapter
