"""All experts of a layer in one batch of matrix products, in slots of a fixed number, so that nothing waits for a GPU's answer.

On a CPU a loop over the experts is faster: it neither copies their weights next to each other nor computes empty slots.

Shapes: B = sequences, T = tokens, D = width, E = experts, K = experts per token, C = slots of an expert for one sequence,
S = all slots (E x B x C), H = width within an expert.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from st_moe_pytorch.st_moe_pytorch import Expert
from torch import nn

__all__ = ["mix_in_slots"]


def mix_in_slots(
    experts: Sequence[Expert],
    x_BTD: torch.Tensor,
    gate_BTK: torch.Tensor,
    slot_BTK: torch.Tensor,
    num_slots: int,
) -> torch.Tensor:
    """Gate-weighted sum over K of the experts' outputs, (B, T, D) float32.

    `slot_BTK` (int64) is each choice's own slot, those of an expert next to each other; `num_slots` (S) where it has none.
    """
    num_choices = slot_BTK.shape[-1]
    flat_P = slot_BTK.flatten()
    choice_P = torch.arange(flat_P.numel(), device=flat_P.device)
    choice_S = torch.zeros(num_slots + 1, dtype=torch.long, device=flat_P.device).scatter(0, flat_P, choice_P)[:num_slots]
    filled_S = torch.zeros(num_slots + 1, dtype=torch.bool, device=flat_P.device).scatter(0, flat_P, True)[:num_slots]
    token_S = choice_S // num_choices  # an empty slot runs the first token, and its output goes nowhere
    gate_S1 = gate_BTK.flatten().index_select(0, choice_S)[:, None]
    # The package lets the router learn through the experts' inputs too (straight-through dispatch): value 1, gradient's 1.
    input_SD = x_BTD.flatten(0, 1).index_select(0, token_S) * (1.0 + gate_S1 - gate_S1.detach())
    output_SD = _run(experts, input_SD.view(len(experts), -1, x_BTD.shape[-1])).flatten(0, 1)
    weighted_SD = (output_SD * (gate_S1 * filled_S[:, None])).float()
    mixed = x_BTD.new_zeros(x_BTD.shape[0] * x_BTD.shape[1], x_BTD.shape[2], dtype=torch.float32)
    return mixed.index_add(0, token_S, weighted_SD).view(x_BTD.shape)


def _run(experts: Sequence[Expert], input_ESD: torch.Tensor) -> torch.Tensor:
    """Every expert over its own rows, by the rule of st-moe-pytorch 0.1.8 `Expert` and `GEGLU`."""
    first, gating, last = zip(*(expert.net for expert in experts), strict=True)
    hidden_ESH, gate_ESH = _linear(first, input_ESD).chunk(2, dim=-1)
    mult_bias_E1H = torch.stack([part.mult_bias for part in gating])[:, None]
    return _linear(last, F.gelu(gate_ESH) * hidden_ESH * mult_bias_E1H)


def _linear(layers: Sequence[nn.Linear], input_ESD: torch.Tensor) -> torch.Tensor:
    weight_EHD = torch.stack([layer.weight for layer in layers])
    bias_E1H = torch.stack([layer.bias for layer in layers])[:, None]
    return torch.baddbmm(bias_E1H, input_ESD, weight_EHD.transpose(1, 2))
