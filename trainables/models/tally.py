"""Counting where tokens go in an evaluation, for every layer that sends them to experts.

Shapes: B = sequences, T = tokens, D = width, E = experts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

__all__ = ["CountingExperts", "ExpertTally", "num_active"]


@dataclass
class ExpertTally:
    """Sums over the real tokens that passed a layer since `reset`, where the layer is: nothing waits for a GPU to count."""

    wanted: torch.Tensor  # (E,) float64, as the next two
    kept: torch.Tensor
    probability: torch.Tensor
    tokens: torch.Tensor  # scalar

    @classmethod
    def empty(cls, num_experts: int) -> ExpertTally:
        return cls(*(torch.zeros(shape, dtype=torch.float64) for shape in (num_experts, num_experts, num_experts, ())))

    def add(
        self, wanted_BTE: torch.Tensor, kept_BTE: torch.Tensor, probability_BTE: torch.Tensor, mask_BT: torch.Tensor
    ) -> None:
        """Counts the tokens of `mask_BT`."""
        probability = torch.where(mask_BT[..., None], probability_BTE, 0.0)
        for name, part in (("wanted", wanted_BTE), ("kept", kept_BTE), ("probability", probability)):
            counted = part.detach().sum(dim=(0, 1)).double()
            setattr(self, name, getattr(self, name).to(counted.device) + counted)
        self.tokens = self.tokens.to(mask_BT.device) + mask_BT.sum()


class CountingExperts(nn.Module):
    """A layer of experts that is told which tokens are real and, in evaluation, counts where they go."""

    num_experts: int
    router_z_loss_coef: float
    z_loss_over_real_tokens: bool
    """Whether the router z-loss is a mean over the batch's real tokens; otherwise padding counts, as many a window."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.token_mask_BT: torch.Tensor | None = None  # bool; set by the model before each pass
        self.reset_tally()

    def reset_tally(self) -> None:
        self.tally = ExpertTally.empty(self.num_experts)

    @property
    def experts_per_token(self) -> float:
        """How many experts compute for one token, on average."""
        raise NotImplementedError

    def expert_parameters(self) -> Iterable[nn.Parameter]:
        """The weights of all experts."""
        raise NotImplementedError

    def _mask(self, x: torch.Tensor) -> torch.Tensor:
        if self.token_mask_BT is None:
            return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        return self.token_mask_BT


def num_active(model: nn.Module) -> int:
    """Parameters that one token's pass through the model uses: of its expert layers, those of the experts it goes to."""
    layers = [module for module in model.modules() if isinstance(module, CountingExperts)]
    idle = [
        round(sum(p.numel() for p in layer.expert_parameters()) * (1 - layer.experts_per_token / layer.num_experts))
        for layer in layers
    ]
    return sum(p.numel() for p in model.parameters()) - sum(idle)
