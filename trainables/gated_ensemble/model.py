"""Frozen question answerers whose answers a gate weighs, window by window (papers: document B, sections 3.2 and 4.3).

Shapes: B = windows, T = tokens, D = width, E = experts, G = what the gate reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DistilBertForQuestionAnswering, DistilBertModel

from trainables.gated_ensemble.config import ModelConfig
from trainables.models.outputs import QuestionAnsweringOutput, span_loss
from trainables.models.tally import CountingExperts

__all__ = ["Gate", "GatedEnsemble"]


class Gate(CountingExperts):
    """Three fully connected layers with ReLU between them, and a softmax over experts (section 4.3)."""

    z_loss_over_real_tokens = False
    router_z_loss_coef = 0.0

    def __init__(self, inputs: int, hidden: int, num_experts: int) -> None:
        self.num_experts = num_experts
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, num_experts)
        )

    @property
    def moe(self) -> Gate:
        """Itself: see `RoutedLayer`."""
        return self

    @property
    def experts_per_token(self) -> float:
        """See `CountingExperts.experts_per_token`: every expert answers."""
        return float(self.num_experts)

    def expert_parameters(self) -> Iterable[nn.Parameter]:
        """See `CountingExperts.expert_parameters`: the gate holds none."""
        return ()

    def forward(self, read_BG: torch.Tensor) -> torch.Tensor:
        """Weights of the experts, (B, E) float32, with a sum of 1. In evaluation windows are counted, not tokens."""
        weight_BE: torch.Tensor = self.layers(read_BG).float().softmax(dim=-1)
        if not self.training:
            likeliest_B1E = F.one_hot(weight_BE.argmax(dim=-1), self.num_experts)[:, None]
            every_B1 = torch.ones(len(weight_BE), 1, dtype=torch.bool, device=weight_BE.device)
            self.tally.add(likeliest_B1E, likeliest_B1E, weight_BE[:, None], every_B1)
        return weight_BE


class GatedEnsemble(nn.Module):
    """The experts' start and end logits, mixed by the gate's weights."""

    def __init__(self, base: DistilBertModel, experts: Sequence[DistilBertForQuestionAnswering], settings: ModelConfig) -> None:
        super().__init__()
        self.base = base
        self.experts = nn.ModuleList(experts)
        for frozen in (self.base, self.experts):
            frozen.requires_grad_(False)
        self.combine, self.gate_input = settings.combine, settings.gate_input
        width = base.config.dim * (len(experts) if settings.gate_input == "expert_cls" else 1)
        self.gate = Gate(width, settings.gate_hidden, len(experts))

    @property
    def expert_layers(self) -> list[Gate]:
        """What is counted in an evaluation."""
        return [self.gate]

    def train(self, mode: bool = True) -> GatedEnsemble:
        """Experts and encoder draw no dropout: they are what they were trained to be."""
        super().train(mode)
        self.base.eval()
        self.experts.eval()
        return self

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        start_positions: torch.Tensor | None = None,
        end_positions: torch.Tensor | None = None,
    ) -> QuestionAnsweringOutput:
        """`input_ids` and `attention_mask` of shape (B, T), int64; positions of shape (B,), token indices in [0, T)."""
        with torch.no_grad():
            answers = [expert(input_ids, attention_mask, output_hidden_states=True) for expert in self.experts]
            read_BG = self._read(input_ids, attention_mask, [answer.hidden_states[-1] for answer in answers])
        weight_BE = self.gate(read_BG)
        output = QuestionAnsweringOutput(
            start_logits=self._mixed(
                torch.stack([answer.start_logits for answer in answers], dim=1), weight_BE, attention_mask
            ),
            end_logits=self._mixed(torch.stack([answer.end_logits for answer in answers], dim=1), weight_BE, attention_mask),
            gate_weights=weight_BE,
        )
        if start_positions is not None and end_positions is not None:
            output.qa_loss = span_loss(output.start_logits, output.end_logits, start_positions, end_positions)
            output.loss = output.qa_loss
        return output

    def _mixed(self, logits_BET: torch.Tensor, weight_BE: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        """sum of g_i f_i, of logits or of probabilities over the real tokens; of these the logarithm, (B, T) float32."""
        if self.combine == "logits":
            return (weight_BE[..., None] * logits_BET.float()).sum(dim=1)
        lowest = torch.finfo(torch.float32).min
        log_BET = logits_BET.float().masked_fill(mask_BT[:, None] == 0, lowest).log_softmax(dim=-1)
        log_weight_BE = weight_BE.clamp(min=torch.finfo(torch.float32).tiny).log()  # a weight may underflow to 0
        return (log_weight_BE[..., None] + log_BET).logsumexp(dim=1)

    def _read(self, input_ids: torch.Tensor, mask_BT: torch.Tensor, expert_states: Sequence[torch.Tensor]) -> torch.Tensor:
        """What the gate reads of each window, (B, G)."""
        if self.gate_input == "expert_cls":
            return torch.cat([states_BTD[:, 0] for states_BTD in expert_states], dim=-1)
        if self.gate_input == "embedding_mean":
            return _mean(self.base.embeddings(input_ids), mask_BT)
        states_BTD = self.base(input_ids, mask_BT).last_hidden_state
        return states_BTD[:, 0] if self.gate_input == "base_cls" else _mean(states_BTD, mask_BT)


def _mean(states_BTD: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Over the real tokens, (B, D)."""
    mask_BT1 = mask_BT[..., None].to(states_BTD.dtype)
    return (states_BTD * mask_BT1).sum(dim=1) / mask_BT1.sum(dim=1)
