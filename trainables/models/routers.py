"""Routers: which experts take a token, and what each one's output counts for.

Shapes: B = sequences, T = tokens, D = width, E = experts, K = experts per token.

All of them route by the weights and the sequence alone: padding goes nowhere, capacity is each sequence's own and holds in
training only (expert choice is all capacity, in evaluation too), and whatever is drawn is drawn in training. Formulas: papers,
document D, sections 3.2 and 3.3 of the digest, and the papers named at each class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from st_moe_pytorch.st_moe_pytorch import TopNGating
from torch import nn

from trainables.models.experts import Routing, route

__all__ = ["ROUTERS", "Assignment", "Router", "balance"]

_EPSILON = 1e-9


class Assignment(NamedTuple):
    """Who takes which token. Padding goes nowhere."""

    weight_BTE: torch.Tensor  # what the expert's output counts for; 0 where it does not take the token
    wanted_BTE: torch.Tensor  # bool: chosen, before capacity
    kept_BTE: torch.Tensor  # bool: chosen and within capacity
    probability_BTE: torch.Tensor  # the router's belief, sums to 1 over experts
    balance_loss: torch.Tensor  # scalar, 0 in evaluation
    router_z_loss: torch.Tensor  # scalar, 0 in evaluation


def balance(probability_BTE: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """n x sum over experts of f x P, by sequence, and the mean of that: 1 for uniform routing, n for a collapsed one.

    f: share of the sequence's real tokens whose likeliest expert it is; P: its mean probability over them (Fedus et al. 2022,
    equations 4 to 6; papers, section 3.3, where the means are over the batch: by sequence, a batch in parts has the same loss).
    """
    num_experts = probability_BTE.shape[-1]
    length_B1 = mask_BT.sum(dim=1, keepdim=True).clamp(min=1)
    likeliest_BTE = F.one_hot(probability_BTE.argmax(dim=-1), num_experts) * mask_BT[..., None]
    share_BE = likeliest_BTE.sum(dim=1) / length_B1
    mean_BE = (probability_BTE * mask_BT[..., None]).sum(dim=1) / length_B1
    return num_experts * (share_BE * mean_BE).sum(dim=-1).mean()


class Router(nn.Module):
    """Base of all: what it was made with, and the room that an expert has."""

    default_capacity_factor = 1.25
    """Training: room per expert, relative to an even load of one expert a token (Fedus et al. 2022, section 2.2)."""

    straight_through = False
    """The router also learns through what goes into the experts, as in st-moe-pytorch."""

    def __init__(self, dim: int, num_experts: int, capacity_factor: float | None = None, normalized: bool = False) -> None:
        """`capacity_factor`: None for the router's own. `normalized`: a token's weights are scaled to sum to 1."""
        super().__init__()
        self.num_experts = num_experts
        self.capacity_factor = self.default_capacity_factor if capacity_factor is None else capacity_factor
        self.normalized = normalized

    @property
    def experts_per_token(self) -> float:
        """How many experts compute for one token, on average."""
        raise NotImplementedError

    def forward(self, x_BTD: torch.Tensor, mask_BT: torch.Tensor) -> Assignment:
        """`x_BTD`: float; `mask_BT`: bool, real tokens."""
        raise NotImplementedError


class _RuleRouter(Router):
    """A linear map to the experts' logits (named as in st-moe-pytorch), and a rule that follows from the probabilities."""

    def __init__(self, dim: int, num_experts: int, capacity_factor: float | None = None, normalized: bool = False) -> None:
        super().__init__(dim, num_experts, capacity_factor, normalized)
        self.to_gates = nn.Linear(dim, num_experts, bias=False)

    def forward(self, x_BTD: torch.Tensor, mask_BT: torch.Tensor) -> Assignment:
        """See `Router.forward`."""
        logits_BTE = self.to_gates(x_BTD).float()
        probability_BTE = logits_BTE.softmax(dim=-1)
        wanted_BTE, kept_BTE = self._assign(probability_BTE, mask_BT)
        weight_BTE = probability_BTE * kept_BTE
        if self.normalized:
            weight_BTE = weight_BTE / weight_BTE.sum(dim=-1, keepdim=True).clamp(min=_EPSILON)
        balance_loss = router_z_loss = logits_BTE.new_zeros(())
        if self.training:
            balance_loss = balance(probability_BTE, mask_BT)
            router_z_loss = logits_BTE.logsumexp(dim=-1)[mask_BT].square().mean()
        return Assignment(weight_BTE, wanted_BTE, kept_BTE, probability_BTE, balance_loss, router_z_loss)

    def _assign(self, probability_BTE: torch.Tensor, mask_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Wanted and kept, as in `Assignment`."""
        raise NotImplementedError

    def _room(self, mask_BT: torch.Tensor) -> torch.Tensor:
        """Tokens of each sequence that an expert takes, (B, 1, 1) int64: at least 1, at most the real ones."""
        length_B = mask_BT.sum(dim=1)
        share_B = (length_B * self.capacity_factor / self.num_experts).long().clamp(min=1)
        return torch.minimum(share_B, length_B)[:, None, None]


class SwitchTop1(_RuleRouter):
    """Each token to its likeliest expert, weighted by that probability (Fedus et al. 2022, section 2.1).

    Earlier tokens fill an expert before later ones; those that find no room pass by the layer.
    """

    experts_per_token = 1.0

    def _assign(self, probability_BTE: torch.Tensor, mask_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        wanted_BTE = F.one_hot(probability_BTE.argmax(dim=-1), self.num_experts).bool() & mask_BT[..., None]
        if not self.training:
            return wanted_BTE, wanted_BTE
        return wanted_BTE, wanted_BTE & (wanted_BTE.cumsum(dim=1) <= self._room(mask_BT))


class ExpertChoice(_RuleRouter):
    """Each expert takes the tokens of a sequence that give it the highest probability (Zhou et al. 2022, section 3.2).

    Exactly C = tokens x capacity factor / E of them, rounded down but at least 1 and at most all, so that a token has about
    `capacity_factor` experts on average, and some none.
    """

    default_capacity_factor = 2.0
    """Zhou et al. 2022, section 4: as much computing as top-2 routing."""

    @property
    def experts_per_token(self) -> float:
        """See `Router.experts_per_token`."""
        return min(self.capacity_factor, float(self.num_experts))

    def _assign(self, probability_BTE: torch.Tensor, mask_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        offered_BTE = probability_BTE.masked_fill(~mask_BT[..., None], -1.0)
        rank_BTE = offered_BTE.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        taken_BTE = (rank_BTE < self._room(mask_BT)) & mask_BT[..., None]
        return taken_BTE, taken_BTE


class SoftRouter(_RuleRouter):
    """Every expert takes every token, weighted by its probability (papers, section 3.3: y = sum of s_i x E_i(x))."""

    @property
    def experts_per_token(self) -> float:
        """See `Router.experts_per_token`."""
        return float(self.num_experts)

    def _assign(self, probability_BTE: torch.Tensor, mask_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        taken_BTE = mask_BT[..., None].expand_as(probability_BTE)
        return taken_BTE, taken_BTE


class StTopTwo(Router):
    """A token's two likeliest experts, weighted by their shares of both probabilities, to the rule of st-moe-pytorch.

    See `trainables.models.experts.route`, also for capacity, which is at least 4 tokens; the balance loss is the package's,
    which capacity bounds.
    """

    experts_per_token = 2.0
    straight_through = True
    threshold = 0.2
    """The second expert is taken with probability min(1, share / threshold) in training (st-moe-pytorch 0.1.8's default)."""

    def __init__(self, dim: int, num_experts: int, capacity_factor: float | None = None, normalized: bool = True) -> None:
        super().__init__(dim, num_experts, capacity_factor, normalized=True)
        self.gate = TopNGating(
            dim, num_experts, threshold_train=self.threshold, capacity_factor_train=float(self.capacity_factor)
        )

    def forward(self, x_BTD: torch.Tensor, mask_BT: torch.Tensor) -> Assignment:
        """See `Router.forward`."""
        routing = route(self.gate, x_BTD, mask_BT)
        one_hot_BTKE = F.one_hot(routing.expert_BTK, self.num_experts)
        wanted_BTE = (one_hot_BTKE * routing.wanted_BTK[..., None]).sum(dim=2).bool()
        kept_BTE = (one_hot_BTKE * routing.kept_BTK[..., None]).sum(dim=2).bool()
        weight_BTE = (one_hot_BTKE * (routing.gate_BTK * routing.kept_BTK)[..., None]).sum(dim=2)
        losses = self._balance(routing, mask_BT), routing.router_z_loss
        return Assignment(weight_BTE, wanted_BTE, kept_BTE, routing.probability_BTE, *losses)

    def _balance(self, routing: Routing, mask_BT: torch.Tensor) -> torch.Tensor:
        return routing.balance_loss


class GshardTopTwo(StTopTwo):
    """As `StTopTwo`, but the second expert is taken with probability min(1, 2 x share) (Lepikhin et al. 2021, Algorithm 1)."""

    straight_through = False
    threshold = 0.5

    def _balance(self, routing: Routing, mask_BT: torch.Tensor) -> torch.Tensor:
        return balance(routing.probability_BTE, mask_BT) if self.training else routing.balance_loss


class RandomRouter(Router):
    """The control that learns no routing: training draws an expert for each token, evaluation takes the mean of all.

    Their mean is what the draw comes to in expectation, so that chance moves no prediction.
    """

    @property
    def experts_per_token(self) -> float:
        """See `Router.experts_per_token`: in evaluation."""
        return float(self.num_experts)

    def forward(self, x_BTD: torch.Tensor, mask_BT: torch.Tensor) -> Assignment:
        """See `Router.forward`."""
        even_BTE = torch.full((*x_BTD.shape[:2], self.num_experts), 1.0 / self.num_experts, device=x_BTD.device)
        taken_BTE = mask_BT[..., None].expand_as(even_BTE)
        weight_BTE = even_BTE * taken_BTE
        if self.training:
            drawn_BT = torch.randint(self.num_experts, x_BTD.shape[:2], device=x_BTD.device)
            taken_BTE = F.one_hot(drawn_BT, self.num_experts).bool() & taken_BTE
            weight_BTE = taken_BTE.float()
        nothing = even_BTE.new_zeros(())
        return Assignment(weight_BTE, taken_BTE, taken_BTE, even_BTE, nothing, nothing)


ROUTERS: Mapping[str, type[Router]] = {
    "switch_top1": SwitchTop1,
    "gshard_top2": GshardTopTwo,
    "expert_choice": ExpertChoice,
    "st_top2": StTopTwo,
    "soft": SoftRouter,
    "random": RandomRouter,
}
"""By the name that settings have."""
