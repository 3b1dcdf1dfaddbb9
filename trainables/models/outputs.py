"""What every question-answering model here returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers.utils import ModelOutput

__all__ = ["QuestionAnsweringOutput", "span_loss"]


@dataclass
class QuestionAnsweringOutput(ModelOutput):
    """Logits and the loss with its parts. B = windows in the batch, T = tokens, D = width.

    `loss` = `qa_loss` + `aux_loss`; the losses are scalars, and None where no positions were given. They are means over
    windows but for what `token_means` has.
    """

    loss: torch.Tensor | None = None
    qa_loss: torch.Tensor | None = None
    aux_loss: torch.Tensor | None = None
    balance_loss: torch.Tensor | None = None
    router_z_loss: torch.Tensor | None = None
    token_means: dict[str, torch.Tensor] | None = None  # the portion of each loss above that is a mean over real tokens
    start_logits: torch.Tensor | None = None  # (B, T)
    end_logits: torch.Tensor | None = None  # (B, T)
    gate_weights: torch.Tensor | None = None  # of an ensemble, each expert's weight in each window: (B, experts)
    hidden_states: tuple[torch.Tensor, ...] | None = None  # embeddings and each block: (B, T, D)
    attentions: tuple[torch.Tensor, ...] | None = None  # each block: (B, heads, T, T)


def span_loss(
    start_logits_BT: torch.Tensor, end_logits_BT: torch.Tensor, start_B: torch.Tensor, end_B: torch.Tensor
) -> torch.Tensor:
    """(CE_start + CE_end) / 2 in nats, mean over windows (papers: document A, section 1.2)."""
    return (F.cross_entropy(start_logits_BT.float(), start_B) + F.cross_entropy(end_logits_BT.float(), end_B)) / 2
