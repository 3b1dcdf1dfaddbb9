"""The ST-MoE layer: st-moe-pytorch's modules, with routing that depends on the weights and the example alone.

Shapes: B = sequences, T = tokens, D = width, E = experts, K = experts per token (2), P = (token, expert) pairs taken.

As it ships (0.1.8) the package draws at random whether a token's second expert is taken, in evaluation too; lets padding take
expert capacity and enter the auxiliary losses; and drops tokens over capacity in evaluation. `ExactMoE` keeps its parameters,
names and training rule, and mends these three. `LibraryMoE` is the package's literal behaviour, for comparison.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from st_moe_pytorch.st_moe_pytorch import MIN_EXPERT_CAPACITY, Expert, MixtureOfExpertsReturn, MoE

from trainables.models.expert_slots import mix_in_slots
from trainables.models.tally import CountingExperts

__all__ = ["DenseBlock", "ExactMoE", "LibraryMoE", "Routing", "route"]


class Routing(NamedTuple):
    """Where each token goes. Padding goes nowhere."""

    expert_BTK: torch.Tensor  # int64
    gate_BTK: torch.Tensor  # normalised over K
    wanted_BTK: torch.Tensor  # bool: chosen, before capacity
    kept_BTK: torch.Tensor  # bool: chosen and within capacity
    place_BTK: torch.Tensor | None  # int64: how many tokens of its sequence the expert had taken before; evaluation: None
    probability_BTE: torch.Tensor  # softmax over experts
    balance_loss: torch.Tensor
    router_z_loss: torch.Tensor


def route(gate: torch.nn.Module, x_BTD: torch.Tensor, mask_BT: torch.Tensor) -> Routing:
    """Top-K routing by the rule of st-moe-pytorch 0.1.8 `TopNGating.forward`, over the real tokens only.

    Training: the k-th expert (k > 1) is taken with probability min(1, share / threshold); capacity per sequence is
    max(4, floor(real tokens x capacity factor / E)), at most the real tokens. Evaluation: all K experts, no capacity.
    """
    logits_BTE = gate.to_gates(x_BTD).float()
    probability_BTE = logits_BTE.softmax(dim=-1)
    top = probability_BTE.topk(gate.top_n, dim=-1)
    gate_BTK = top.values / top.values.sum(dim=-1, keepdim=True).clamp(min=gate.eps)
    wanted_BTK = mask_BT[..., None].expand_as(gate_BTK)
    kept_BTK, place_BTK = wanted_BTK, None
    balance_loss = router_z_loss = logits_BTE.new_zeros(())
    if gate.training:
        wanted_BTK = wanted_BTK & _drawn(gate, gate_BTK)
        kept_BTK, place_BTK = _within_capacity(gate, top.indices, wanted_BTK, mask_BT.sum(dim=1))
        balance_loss = _balance_loss(top.indices[..., 0], kept_BTK[..., 0], probability_BTE, mask_BT)
        router_z_loss = logits_BTE.logsumexp(dim=-1)[mask_BT].square().mean()
    return Routing(top.indices, gate_BTK, wanted_BTK, kept_BTK, place_BTK, probability_BTE, balance_loss, router_z_loss)


def _drawn(gate: torch.nn.Module, gate_BTK: torch.Tensor) -> torch.Tensor:
    """Whether each choice is taken; the first always. The package takes its draws in another order."""
    draw_KBT = torch.rand(gate_BTK.movedim(-1, 0).shape, device=gate_BTK.device, dtype=gate_BTK.dtype)
    taken_BTK = draw_KBT.movedim(0, -1) < gate_BTK / gate.threshold_train.clamp(min=gate.eps)
    first = torch.arange(gate_BTK.shape[-1], device=gate_BTK.device) == 0
    return taken_BTK | first


def _within_capacity(
    gate: torch.nn.Module, expert_BTK: torch.Tensor, wanted_BTK: torch.Tensor, length_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which choices find room, and each one's place in its expert, from 0.

    First choices fill an expert before second ones, earlier tokens before later ones.
    """
    capacity_B1 = _capacity(gate, length_B)[:, None]
    used_BE = torch.zeros(expert_BTK.shape[0], gate.num_gates, dtype=torch.long, device=expert_BTK.device)
    kept, places = [], []
    for expert_BT1, wanted_BT1 in zip(expert_BTK.split(1, dim=-1), wanted_BTK.split(1, dim=-1), strict=True):
        asked_BTE = torch.zeros(*expert_BT1.shape[:2], gate.num_gates, dtype=torch.int32, device=expert_BTK.device)
        asked_BTE.scatter_(2, expert_BT1, wanted_BT1.int())
        place_BTE = asked_BTE.cumsum(dim=1) - asked_BTE + used_BE[:, None]
        place_BT = place_BTE.gather(2, expert_BT1).squeeze(-1)
        kept.append(wanted_BT1.squeeze(-1) & (place_BT < capacity_B1))
        places.append(place_BT)
        used_BE = torch.minimum(used_BE + asked_BTE.sum(dim=1), capacity_B1)
    return torch.stack(kept, dim=-1), torch.stack(places, dim=-1)


def _capacity(gate: torch.nn.Module, length: torch.Tensor) -> torch.Tensor:
    """Tokens of a sequence that an expert takes in training; `length` counts the real ones."""
    room = (length * gate.capacity_factor_train / gate.num_gates).long()
    return torch.minimum(length, room).clamp(min=MIN_EXPERT_CAPACITY)


def _balance_loss(
    first_BT: torch.Tensor, kept_first_BT: torch.Tensor, probability_BTE: torch.Tensor, mask_BT: torch.Tensor
) -> torch.Tensor:
    """E^2 x mean over sequences and experts of (share of first choices kept) x (mean probability).

    As in the package the shares are taken after capacity, so that a collapsed router scores the capacity factor, not E:
    the value says nothing about collapse.
    """
    num_experts = probability_BTE.shape[-1]
    length_B1 = mask_BT.sum(dim=1, keepdim=True).clamp(min=1)
    share_BE = (F.one_hot(first_BT, num_experts) * kept_first_BT[..., None]).sum(dim=1) / length_B1
    mean_BE = (probability_BTE * mask_BT[..., None]).sum(dim=1) / length_B1
    return (share_BE * mean_BE).mean() * num_experts**2


class _CountedMoE(CountingExperts, MoE):
    """The package's layer, counting."""

    @property
    def experts_per_token(self) -> float:
        return float(self.gate.top_n)

    def expert_parameters(self) -> Iterable[torch.nn.Parameter]:
        return self.experts.parameters()


class ExactMoE(_CountedMoE):
    """The package's layer with masked, deterministic routing and without empty expert slots."""

    z_loss_over_real_tokens = True

    def forward(self, x: torch.Tensor, noise_gates: bool = False, noise_mult: float = 1.0) -> MixtureOfExpertsReturn:
        """`x` of shape (B, T, D); padding gives zeros. The noise arguments are the package's and not supported here."""
        mask_BT = self._mask(x)
        routing = route(self.gate, x, mask_BT)
        if not self.training:
            one_hot_BTKE = F.one_hot(routing.expert_BTK, self.num_experts)
            wanted_BTE = (one_hot_BTKE * routing.wanted_BTK[..., None]).sum(dim=2)
            kept_BTE = (one_hot_BTKE * routing.kept_BTK[..., None]).sum(dim=2)
            self.tally.add(wanted_BTE, kept_BTE, routing.probability_BTE, mask_BT)
        aux = routing.balance_loss * self.balance_loss_coef + routing.router_z_loss * self.router_z_loss_coef
        return MixtureOfExpertsReturn(self._mix(x, routing), aux, routing.balance_loss, routing.router_z_loss)

    def _mix(self, x_BTD: torch.Tensor, routing: Routing) -> torch.Tensor:
        """Gate-weighted sum of the experts' outputs."""
        if routing.place_BTK is None or x_BTD.device.type == "cpu" or not self._fits_slots(x_BTD):
            return self._mix_one_by_one(x_BTD, routing)
        return self._mix_in_slots(x_BTD, routing)

    def _fits_slots(self, x_BTD: torch.Tensor) -> bool:
        """Whether slots are at most twice as many as tokens' choices, and experts draw no dropout, each in its turn."""
        num_slots = self.num_experts * self._slots_per_sequence(x_BTD)
        return num_slots <= 2 * self.gate.top_n * x_BTD.shape[1] and all(len(e.net) == 3 for e in self.experts.experts)

    def _slots_per_sequence(self, x_BTD: torch.Tensor) -> int:
        """Of an expert: its capacity for a sequence without padding, since none has more."""
        return int(_capacity(self.gate, torch.tensor(x_BTD.shape[1])))

    def _mix_in_slots(self, x_BTD: torch.Tensor, routing: Routing) -> torch.Tensor:
        """All experts at once, empty slots included: no number that the CPU would have to wait for."""
        assert routing.place_BTK is not None
        room = self._slots_per_sequence(x_BTD)
        num_sequences = len(x_BTD)
        first_slot_B11 = torch.arange(num_sequences, device=x_BTD.device)[:, None, None] * room
        slot_BTK = routing.expert_BTK * (num_sequences * room) + first_slot_B11 + routing.place_BTK
        num_slots = self.num_experts * num_sequences * room
        slot_BTK = slot_BTK.masked_fill(~routing.kept_BTK, num_slots)
        return mix_in_slots(self.experts.experts, x_BTD, routing.gate_BTK, slot_BTK, num_slots)

    def _mix_one_by_one(self, x_BTD: torch.Tensor, routing: Routing) -> torch.Tensor:
        """Each expert over its own tokens, as many as there are: on a CPU nothing is faster (benchmarks/moe.py)."""
        num_choices = routing.expert_BTK.shape[-1]
        pair_P = routing.kept_BTK.flatten().nonzero().squeeze(1)
        pair_P = pair_P[routing.expert_BTK.flatten()[pair_P].argsort(stable=True)]
        token_P = pair_P // num_choices
        gate_P1 = routing.gate_BTK.flatten()[pair_P, None]
        # The package lets the router learn through the experts' inputs too (straight-through dispatch): value 1, gradient's 1.
        input_PD = x_BTD.flatten(0, 1)[token_P] * (1.0 + gate_P1 - gate_P1.detach())
        counts = routing.expert_BTK.flatten()[pair_P].bincount(minlength=self.num_experts).tolist()
        parts = input_PD.split(counts)
        output_PD = torch.cat([expert(part) for expert, part in zip(self.experts.experts, parts, strict=True)])
        mixed = x_BTD.new_zeros(x_BTD.shape[0] * x_BTD.shape[1], x_BTD.shape[2], dtype=torch.float32)
        return mixed.index_add(0, token_P, (output_PD * gate_P1).float()).view(x_BTD.shape)


class LibraryMoE(_CountedMoE):
    """st-moe-pytorch 0.1.8 to the letter. Its tally counts both choices as wanted: a second one not drawn counts as dropped."""

    z_loss_over_real_tokens = False

    def forward(self, x: torch.Tensor, noise_gates: bool = False, noise_mult: float = 1.0) -> MixtureOfExpertsReturn:
        """`x` of shape (B, T, D)."""
        if self.training:
            return super().forward(x, noise_gates=noise_gates, noise_mult=noise_mult)
        combine: list[torch.Tensor] = []
        hook = self.gate.register_forward_hook(lambda _module, _inputs, outputs: combine.append(outputs[1]))
        try:
            result = super().forward(x, noise_gates=noise_gates, noise_mult=noise_mult)
        finally:
            hook.remove()
        mask_BT = self._mask(x)
        probability_BTE = self.gate.to_gates(x).float().softmax(dim=-1)
        chosen_BTK = probability_BTE.topk(self.gate.top_n, dim=-1).indices
        wanted_BTE = F.one_hot(chosen_BTK, self.num_experts).sum(dim=2) * mask_BT[..., None]
        kept_BTE = (combine[0].sum(dim=-1) > 0) * mask_BT[..., None]
        self.tally.add(wanted_BTE, kept_BTE, probability_BTE, mask_BT)
        return result


class DenseBlock(torch.nn.Module):
    """An expert layer without routing: one expert that every token takes, normalised before and added to what comes in."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.expert = Expert(dim, prenorm=True)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x_BTD + self.expert(x_BTD)
        return out
