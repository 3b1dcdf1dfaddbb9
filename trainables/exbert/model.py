"""ExBERT: the first DistilBERT blocks, an ST-MoE layer, and a question-answering head (papers: document A, section 2.1).

Shapes: B = windows, T = tokens, D = width.
"""

from __future__ import annotations

import torch
from st_moe_pytorch import SparseMoEBlock
from torch import nn
from transformers import DistilBertConfig, DistilBertModel
from transformers.modeling_outputs import BaseModelOutput

from trainables.exbert.config import ModelConfig
from trainables.models.encoder import append_to
from trainables.models.experts import ExactMoE, LibraryMoE
from trainables.models.outputs import QuestionAnsweringOutput, span_loss

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


class ExBertForQuestionAnswering(nn.Module):
    """Start and end logits, hidden states, attentions, and the loss with its parts."""

    def __init__(self, encoder: DistilBertModel, settings: ModelConfig) -> None:
        super().__init__()
        self.distilbert = encoder
        config: DistilBertConfig = encoder.config
        self.expert_layers = nn.ModuleList(ExpertLayer(settings, config.dim) for _ in _places(settings, config.n_layers))
        self.dropout = nn.Dropout(config.qa_dropout)
        self.qa_outputs = nn.Linear(config.dim, 2)
        nn.init.normal_(self.qa_outputs.weight, std=config.initializer_range)
        nn.init.zeros_(self.qa_outputs.bias)
        for place, layer in zip(_places(settings, config.n_layers), self.expert_layers, strict=True):
            _insert(encoder.transformer.layer[place], layer, replace=settings.moe_position.startswith("replace"))

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
        for layer in self.expert_layers:
            layer.moe.token_mask_BT = attention_mask.bool()
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
            output[name] = torch.stack([layer.losses[name] for layer in self.expert_layers]).sum()
        output.loss = output.qa_loss + output.aux_loss
        output.token_means = self._token_means()

    def _token_means(self) -> dict[str, torch.Tensor]:
        """The router z-losses that are means over real tokens: weighted in the sums, bare by themselves."""
        layers = [layer for layer in self.expert_layers if layer.moe.z_loss_over_real_tokens]
        bare = [layer.losses["router_z_loss"] for layer in layers]
        weighted = [z_loss * layer.moe.router_z_loss_coef for z_loss, layer in zip(bare, layers, strict=True)]
        return {"loss": sum(weighted), "aux_loss": sum(weighted), "router_z_loss": sum(bare)} if layers else {}


def _places(settings: ModelConfig, num_blocks: int) -> range:
    """0-based indices of the blocks that get an expert layer."""
    if settings.moe_position == "replace_all_ffn":
        return range(num_blocks)
    place = num_blocks - 1 if settings.moe_block is None else settings.moe_block - 1
    return range(place, place + 1)


def _insert(block: nn.Module, layer: ExpertLayer, *, replace: bool) -> None:
    """After the block, or in the place of its feed-forward (whose residual and normalisation stay)."""
    if replace:
        block.ffn = _Borrowed(layer)
    else:
        append_to(block, layer)


class _Borrowed(nn.Module):
    """Runs a layer that is registered elsewhere, so that its parameters keep one name."""

    def __init__(self, layer: ExpertLayer) -> None:
        super().__init__()
        self._run = layer.forward

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return self._run(x_BTD)
