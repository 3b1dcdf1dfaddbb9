"""Adapters of a frozen encoder and mixtures of them: (IA)3 vectors and LoRA matrices, weighted by a router.

Formulas: papers, document D, section 3.3 of the digest (Zadouri et al. 2024; (IA)3: Liu et al. 2022; LoRA: Hu et al. 2022). A
mixture of one is the plain adapter, and has no router. All begin as the identity.

Shapes: B = sequences, T = tokens, D = width of what is routed by, E = adapters of a mixture, R = rank (of a mixture: all of its
adapters' ranks), I = inputs and O = outputs of a projection.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

from trainables.models.routers import balance
from trainables.models.tally import CountingExperts

__all__ = ["AdapterMixture", "LoraMixture", "Merging", "VectorMixture"]

Merging = Literal["soft", "top1", "top2"]
"""All adapters weighted by the router's probabilities, or only the likeliest one or two."""


class AdapterMixture(CountingExperts):
    """Base of both: the router, and its loss."""

    z_loss_over_real_tokens = False
    router_z_loss_coef = 0.0

    def __init__(self, routed_by: int, num_experts: int, merging: Merging, balance_loss_coef: float) -> None:
        """`routed_by`: width of what the router reads (D)."""
        self.num_experts = num_experts
        super().__init__()
        self.router = nn.Linear(routed_by, num_experts, bias=False) if num_experts > 1 else None
        self.num_chosen = {"soft": num_experts, "top1": 1, "top2": 2}[merging]
        self.balance_loss_coef = balance_loss_coef
        self.sentence_BD: torch.Tensor | None = None  # where it is given, all tokens are routed by it
        self.losses: dict[str, torch.Tensor] = {}

    @property
    def moe(self) -> AdapterMixture:
        """Itself: see `RoutedLayer`."""
        return self

    @property
    def experts_per_token(self) -> float:
        """See `CountingExperts.experts_per_token`."""
        return float(self.num_chosen)

    def weights(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """What each adapter counts for, (B, T, E) float32, with a sum of 1.

        Of the likeliest, the probabilities' shares; the sum that they are divided by passes no gradient, so that the router
        learns by the likeliest alone, too.
        """
        nothing = x_BTD.new_zeros((), dtype=torch.float32)
        self.losses = {"aux_loss": nothing, "balance_loss": nothing, "router_z_loss": nothing}
        if self.router is None:
            return x_BTD.new_ones(*x_BTD.shape[:2], 1, dtype=torch.float32)
        read_BTD = x_BTD if self.sentence_BD is None else self.sentence_BD[:, None].expand(-1, x_BTD.shape[1], -1)
        probability_BTE = self.router(read_BTD).float().softmax(dim=-1)
        chosen_BTE = torch.zeros_like(probability_BTE, dtype=torch.bool)
        chosen_BTE.scatter_(-1, probability_BTE.topk(self.num_chosen, dim=-1).indices, True)
        weight_BTE = probability_BTE * chosen_BTE
        mask_BT = self._mask(x_BTD)
        if self.training:
            balance_loss = balance(probability_BTE, mask_BT)
            self.losses |= {"balance_loss": balance_loss, "aux_loss": balance_loss * self.balance_loss_coef}
        else:
            taken_BTE = chosen_BTE & mask_BT[..., None]
            self.tally.add(taken_BTE, taken_BTE, probability_BTE, mask_BT)
        return weight_BTE / weight_BTE.sum(dim=-1, keepdim=True).detach()


class VectorMixture(AdapterMixture):
    """MoV: scales each element by the weighted mean of (IA)3 vectors (soft merging: one vector a token)."""

    def __init__(self, size: int, routed_by: int, num_experts: int, merging: Merging, balance_loss_coef: float) -> None:
        """`size`: elements of what is scaled (O)."""
        super().__init__(routed_by, num_experts, merging, balance_loss_coef)
        self.vectors_EO = nn.Parameter(torch.ones(num_experts, size))

    def expert_parameters(self) -> Iterable[nn.Parameter]:
        """See `CountingExperts.expert_parameters`."""
        return [self.vectors_EO]

    def forward(self, x_BTD: torch.Tensor, scaled_BTO: torch.Tensor) -> torch.Tensor:
        """`scaled_BTO` times the vector that `x_BTD` is routed to."""
        return scaled_BTO * (self.weights(x_BTD) @ self.vectors_EO).to(scaled_BTO.dtype)


class LoraMixture(AdapterMixture):
    """MoLoRA: the weighted sum of the outputs B A x of LoRA adapters. A is drawn as PyTorch draws linear weights, B is 0."""

    def __init__(
        self, inputs: int, outputs: int, rank: int, routed_by: int, num_experts: int, merging: Merging, balance_loss_coef: float
    ) -> None:
        super().__init__(routed_by, num_experts, merging, balance_loss_coef)
        self.rank = rank
        self.down_ERI = nn.Parameter(torch.empty(num_experts, rank, inputs))
        self.up_ERO = nn.Parameter(torch.zeros(num_experts, rank, outputs))
        for down_RI in self.down_ERI:
            nn.init.kaiming_uniform_(down_RI, a=math.sqrt(5))

    def expert_parameters(self) -> Iterable[nn.Parameter]:
        """See `CountingExperts.expert_parameters`."""
        return [self.down_ERI, self.up_ERO]

    def forward(self, x_BTI: torch.Tensor) -> torch.Tensor:
        """What is added to the projection of `x_BTI`, (B, T, O)."""
        weight_BTE = self.weights(x_BTI)
        hidden_BTR = x_BTI @ self.down_ERI.flatten(0, 1).T  # of all adapters, next to each other
        weighted_BTR = hidden_BTR * weight_BTE.repeat_interleave(self.rank, dim=-1).to(hidden_BTR.dtype)
        return weighted_BTR @ self.up_ERO.flatten(0, 1)
