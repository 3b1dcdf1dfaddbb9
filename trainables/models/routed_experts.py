"""Feed-forward experts behind a router: freshly drawn, or copies of a trained feed-forward (sparse upcycling).

Shapes: B = sequences, T = tokens, D = width, E = experts, N = the tokens that an expert takes.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from transformers import DistilBertConfig
from transformers.activations import get_activation
from transformers.models.distilbert.modeling_distilbert import FFN

from trainables.models.routers import Assignment, Router
from trainables.models.tally import CountingExperts

__all__ = ["FeedForwardExpert", "RoutedExperts", "upcycle"]


class FeedForwardExpert(nn.Module):
    """DistilBERT's feed-forward without its outer dropout, and with one before its last projection."""

    def __init__(self, config: DistilBertConfig, dropout: float) -> None:
        super().__init__()
        self.lin1 = nn.Linear(config.dim, config.hidden_dim)
        self.activation = get_activation(config.activation)
        self.dropout = nn.Dropout(dropout)
        self.lin2 = nn.Linear(config.hidden_dim, config.dim)
        for linear in (self.lin1, self.lin2):
            nn.init.normal_(linear.weight, std=config.initializer_range)
            nn.init.zeros_(linear.bias)

    def forward(self, x_ND: torch.Tensor) -> torch.Tensor:
        out_ND: torch.Tensor = self.lin2(self.dropout(self.activation(self.lin1(x_ND))))
        return out_ND


def upcycle(expert: FeedForwardExpert, trained: FFN, noise: float = 0.0) -> None:
    """Makes `expert` a copy of `trained` (Komatsuzaki et al. 2023, section 3).

    `noise`: standard deviation of what is added to each weight matrix, relative to the matrix's own; drawn from torch's
    generator.
    """
    with torch.no_grad():
        for name in ("lin1", "lin2"):
            mine, theirs = getattr(expert, name), getattr(trained, name)
            mine.load_state_dict(theirs.state_dict())
            if noise:
                mine.weight.add_(torch.randn_like(mine.weight) * (noise * theirs.weight.std()))


class RoutedExperts(CountingExperts):
    """Weighted sum of the outputs of the experts that take a token; zeros where none does."""

    z_loss_over_real_tokens = True

    def __init__(
        self, router: Router, experts: Iterable[nn.Module], balance_loss_coef: float, router_z_loss_coef: float
    ) -> None:
        self.num_experts = router.num_experts
        super().__init__()
        self.router = router
        self.experts = nn.ModuleList(experts)
        self.balance_loss_coef = balance_loss_coef
        self.router_z_loss_coef = router_z_loss_coef
        self.losses: dict[str, torch.Tensor] = {}

    @property
    def moe(self) -> RoutedExperts:
        """Itself: see `RoutedLayer`."""
        return self

    @property
    def experts_per_token(self) -> float:
        """See `CountingExperts.experts_per_token`."""
        return self.router.experts_per_token

    def expert_parameters(self) -> Iterable[nn.Parameter]:
        """See `CountingExperts.expert_parameters`."""
        return self.experts.parameters()

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        mask_BT = self._mask(x_BTD)
        assigned: Assignment = self.router(x_BTD, mask_BT)
        if not self.training:
            self.tally.add(assigned.wanted_BTE, assigned.kept_BTE, assigned.probability_BTE, mask_BT)
        self.losses = {
            "aux_loss": assigned.balance_loss * self.balance_loss_coef + assigned.router_z_loss * self.router_z_loss_coef,
            "balance_loss": assigned.balance_loss,
            "router_z_loss": assigned.router_z_loss,
        }
        return self._mix(x_BTD, assigned)

    def _mix(self, x_BTD: torch.Tensor, assigned: Assignment) -> torch.Tensor:
        """Each expert over its own tokens."""
        x_PD = x_BTD.flatten(0, 1)
        weight_PE, kept_PE = assigned.weight_BTE.flatten(0, 1), assigned.kept_BTE.flatten(0, 1)
        mixed_PD = torch.zeros_like(x_PD, dtype=torch.float32)
        for index, expert in enumerate(self.experts):
            token_N = kept_PE[:, index].nonzero().squeeze(1)
            weight_N1 = weight_PE[token_N, index, None]
            input_ND = x_PD[token_N]
            if self.router.straight_through:
                input_ND = input_ND * (1.0 + weight_N1 - weight_N1.detach())
            mixed_PD = mixed_PD.index_add(0, token_N, (expert(input_ND) * weight_N1).float())
        return mixed_PD.view(x_BTD.shape).to(x_BTD.dtype)
