"""A question answerer whose transformer blocks hold layers of routed experts, and its loss with the auxiliary parts.

Shapes: B = windows, T = tokens, D = width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import nn
from transformers import DistilBertConfig, DistilBertModel
from transformers.modeling_outputs import BaseModelOutput

from trainables.models.encoder import append_to
from trainables.models.outputs import QuestionAnsweringOutput, span_loss
from trainables.models.tally import CountingExperts

__all__ = ["Borrowed", "RoutedLayer", "RoutedQuestionAnswering", "insert"]


class RoutedLayer(Protocol):
    """A module (B, T, D) -> (B, T, D) around a layer of experts."""

    @property
    def moe(self) -> CountingExperts:
        """The routed experts, whatever they are wrapped in."""
        ...

    losses: dict[str, torch.Tensor]
    """Of the last pass, scalars: `aux_loss`, which is weighted, `balance_loss` and `router_z_loss`, which are not."""


class RoutedQuestionAnswering(nn.Module):
    """Start and end logits, hidden states, attentions, and the loss with its parts."""

    def __init__(self, encoder: DistilBertModel, layers: Iterable[nn.Module]) -> None:
        """`layers`: `RoutedLayer`s that the encoder's blocks run (see `insert`), in the order of the forward pass."""
        super().__init__()
        self.distilbert = encoder
        config: DistilBertConfig = encoder.config
        self.expert_layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(config.qa_dropout)
        self.qa_outputs = nn.Linear(config.dim, 2)
        nn.init.normal_(self.qa_outputs.weight, std=config.initializer_range)
        nn.init.zeros_(self.qa_outputs.bias)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        start_positions: torch.Tensor | None = None,
        end_positions: torch.Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> QuestionAnsweringOutput:
        """`input_ids` and `attention_mask` of shape (B, T), int64; positions of shape (B,), token indices in [0, T)."""
        self._prepare(input_ids, attention_mask)
        encoded = self._encode(input_ids, attention_mask, output_hidden_states, output_attentions)
        start_logits, end_logits = self.qa_outputs(self.dropout(encoded.last_hidden_state)).unbind(dim=-1)
        output = QuestionAnsweringOutput(
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        if start_positions is not None and end_positions is not None:
            self._add_losses(output, start_positions, end_positions)
        return output

    def _prepare(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> None:
        """Tells the expert layers what they need to know of the batch beyond their inputs."""
        for layer in self.expert_layers:
            layer.moe.token_mask_BT = attention_mask.bool()

    def _encode(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, hidden: bool, attentions: bool) -> BaseModelOutput:
        usual = self.distilbert.config._attn_implementation
        if attentions:  # fused attention does not keep the weights
            self.distilbert.set_attn_implementation("eager")
        try:
            return self.distilbert(input_ids, attention_mask, output_hidden_states=hidden, output_attentions=attentions)
        finally:
            self.distilbert.set_attn_implementation(usual)

    def _add_losses(self, output: QuestionAnsweringOutput, start_B: torch.Tensor, end_B: torch.Tensor) -> None:
        """Total = QA loss + auxiliary losses of all expert layers, each already weighted (papers: document A, section 2.1)."""
        output.qa_loss = span_loss(output.start_logits, output.end_logits, start_B, end_B)
        for name in ("aux_loss", "balance_loss", "router_z_loss"):
            output[name] = sum((layer.losses[name] for layer in self.expert_layers), output.qa_loss.new_zeros(()))
        output.loss = output.qa_loss + output.aux_loss
        output.token_means = self._token_means()

    def _token_means(self) -> dict[str, torch.Tensor]:
        """The router z-losses that are means over real tokens: weighted in the sums, bare by themselves."""
        layers = [layer for layer in self.expert_layers if layer.moe.z_loss_over_real_tokens]
        bare = [layer.losses["router_z_loss"] for layer in layers]
        weighted = [z_loss * layer.moe.router_z_loss_coef for z_loss, layer in zip(bare, layers, strict=True)]
        return {"loss": sum(weighted), "aux_loss": sum(weighted), "router_z_loss": sum(bare)} if layers else {}


def insert(block: nn.Module, layer: nn.Module, *, replace: bool) -> None:
    """Lets `block` run `layer` after all else, or in the place of its feed-forward (whose residual and normalisation stay)."""
    if replace:
        block.ffn = Borrowed(layer)
    else:
        append_to(block, layer)


class Borrowed(nn.Module):
    """Runs a layer that is registered elsewhere, so that its parameters keep one name."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._run = layer.forward

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self._run(*inputs)
        return out
