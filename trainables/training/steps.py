"""One optimiser step: the recipe's optimiser and schedule, and a batch's gradients, in parts where memory is short.

Recipe: AdamW, linear decay (by default without warm-up) and global-norm clipping, as `transformers.Trainer` does by default
(papers: document A, section 1.2); bfloat16 autocast on GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainables.config import TrainingConfig

__all__ = ["STEPS_UNREAD", "add_gradients", "autocast", "make_optimizer", "make_schedule", "read_together", "update"]

STEPS_UNREAD = {"cpu": 1, "cuda": 32}
"""Steps whose losses are read together, since reading waits for a GPU. Other waits stay: transformers 5.23 looks at a batch's
padding, and expert layers at their masks. What this gains on a GPU is not measured."""

_LOSSES = {
    "train_qa_loss": "qa_loss",
    "train_aux_loss": "aux_loss",
    "balance_loss": "balance_loss",
    "router_z_loss": "router_z_loss",
}
"""Metric of a report -> part of the model's output whose mean over the steps since the last report it is."""


def make_optimizer(model: nn.Module, training: TrainingConfig) -> torch.optim.AdamW:
    """AdamW; biases and normalisation gains, the parameters with one dimension, are not decayed."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=training.learning_rate, fused=True)


def make_schedule(
    optimizer: torch.optim.Optimizer, total_steps: int, warmup_share: float = 0.0
) -> torch.optim.lr_scheduler.LambdaLR:
    """Over `warmup_share` of the steps, rounded up, linearly from 0 to the peak rate; from there to 0 after `total_steps`."""
    warmup_steps = math.ceil(total_steps * warmup_share)

    def share_of_peak(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        return max(0.0, 1.0 - (step - warmup_steps) / max(1, total_steps - warmup_steps))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share_of_peak)


def autocast(training: TrainingConfig, device: str) -> torch.autocast:
    """bfloat16 where `precision` asks for it; `auto` does on a GPU."""
    kind = torch.device(device).type
    enabled = training.precision == "bfloat16" or (training.precision == "auto" and kind == "cuda")
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=enabled)


def add_gradients(
    model: nn.Module,
    batch: Mapping[str, torch.Tensor],
    num_parts: int,
    precision: Callable[[], AbstractContextManager[object]],
) -> dict[str, torch.Tensor]:
    """Adds the gradients of the whole batch's loss to the parameters', and returns its losses (scalars) by metric.

    The batch goes through the model in `num_parts` runs of windows, at most one a window, each padded as the whole batch is
    and weighted by its share. What differs from one part: dropout and the draws for second experts take other random numbers,
    and sums are rounded in another order (in bfloat16 by far more than in float32).
    """
    losses: dict[str, torch.Tensor] = {}
    for part in _parts(batch, num_parts):
        with precision():
            output = model.train()(**part.inputs)
        part.weighted(output, "loss").backward()
        for metric, name in _losses_of(output).items():
            loss = part.weighted(output, name).detach()
            losses[metric] = losses[metric] + loss if metric in losses else loss
    return losses


def _losses_of(output: Any) -> Mapping[str, str]:
    """Metric -> part of `output`; models without auxiliary losses have only `loss`."""
    return {metric: name for metric, name in _LOSSES.items() if getattr(output, name, None) is not None} or {
        "train_qa_loss": "loss"
    }


def update(
    optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler, max_grad_norm: float
) -> torch.Tensor:
    """One optimiser step down the gradients, clipped to the global norm `max_grad_norm`; returns the norm before (scalar)."""
    norm = nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], max_grad_norm)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def read_together(steps: Sequence[Mapping[str, torch.Tensor]]) -> list[dict[str, float]]:
    """The values of several steps' scalars, which have the same names, with a single wait for a GPU."""
    names = list(steps[0])
    values_SL = torch.stack([torch.stack([step[name].float() for name in names]) for step in steps]).tolist()
    return [dict(zip(names, values, strict=True)) for values in values_SL]


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Consecutive windows of a batch. The shares are of the whole batch's windows and real tokens, in (0, 1]."""

    inputs: dict[str, torch.Tensor]
    window_share: float
    token_share: torch.Tensor  # scalar

    def weighted(self, output: Any, name: str) -> torch.Tensor:
        """What the part adds to the whole batch's loss `name`: means over windows and over real tokens weigh apart."""
        loss: torch.Tensor = getattr(output, name)
        if self.window_share == 1.0:
            return loss
        over_tokens: Mapping[str, torch.Tensor] = getattr(output, "token_means", None) or {}
        if name not in over_tokens:
            return loss * self.window_share
        return (loss - over_tokens[name]) * self.window_share + over_tokens[name] * self.token_share


def _parts(batch: Mapping[str, torch.Tensor], num_parts: int) -> Iterator[_Part]:
    mask_BT = batch["attention_mask"]
    num_windows = len(mask_BT)
    if min(num_parts, num_windows) == 1:
        yield _Part(inputs=dict(batch), window_share=1.0, token_share=mask_BT.new_ones(()))
        return
    sections = {name: tensor.tensor_split(min(num_parts, num_windows)) for name, tensor in batch.items()}
    for values in zip(*sections.values(), strict=True):
        inputs = dict(zip(sections, values, strict=True))
        part_BT = inputs["attention_mask"]
        yield _Part(inputs=inputs, window_share=len(part_BT) / num_windows, token_share=part_BT.sum() / mask_BT.sum())
