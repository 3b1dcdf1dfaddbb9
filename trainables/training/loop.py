"""Fine-tuning as a generator of reports, for every model that returns a `QuestionAnsweringOutput`-like loss.

Recipe: AdamW, linear decay without warm-up, global-norm clipping, as `transformers.Trainer` does by default (papers: document
A, section 1.2); bfloat16 autocast on GPU.
"""

from __future__ import annotations

import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from trainables.config import QAConfig, TrainingConfig
from trainables.contract import Report, TrialContext
from trainables.training import checkpoints
from trainables.training.evaluation import Measured, evaluate, mixture_loss
from trainables.training.task import Task, open_task

__all__ = ["FineTuning", "autocast", "fine_tune", "make_optimizer", "make_schedule", "seed_everything", "update"]

LOSSES = {
    "train_qa_loss": "qa_loss",
    "train_aux_loss": "aux_loss",
    "balance_loss": "balance_loss",
    "router_z_loss": "router_z_loss",
}
"""Metric of a report -> part of the model's output whose mean since the last report it is."""


def fine_tune(
    config: QAConfig, context: TrialContext, metrics: tuple[str, ...], build_model: Callable[[], nn.Module]
) -> Iterator[Report]:
    """Trains the model that `build_model` makes, from the newest checkpoint in `context.checkpoint_dir` if there is one.

    Yields `reports_per_epoch` reports an epoch; the last of each epoch has the validation scores, the very last the test
    scores and every test prediction. `build_model` may draw from torch's generator, which is seeded before.
    """
    torch.set_num_threads(context.num_threads)
    seed_everything(context.seed)
    run = FineTuning(config, context, metrics, build_model().to(context.device))
    run.restore()
    yield from run.reports()
    checkpoints.save_final_weights(context.checkpoint_dir, run.model)


def seed_everything(seed: int) -> None:
    """Seeds every generator that a training step may draw from."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (libraries draw from it; our own code does not)
    torch.manual_seed(seed)


def make_optimizer(model: nn.Module, training: TrainingConfig) -> torch.optim.AdamW:
    """AdamW; biases and normalisation gains, the parameters with one dimension, are not decayed."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=training.learning_rate)


def make_schedule(optimizer: torch.optim.Optimizer, total_steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """From the peak rate linearly to 0 after `total_steps`."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1.0 - step / max(1, total_steps)))


def update(
    loss: torch.Tensor, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler, max_grad_norm: float
) -> None:
    """One optimiser step down `loss`: gradients, clipped to the global norm `max_grad_norm`, then weights and rate."""
    loss.backward()
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], max_grad_norm)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad(set_to_none=True)


def autocast(training: TrainingConfig, device: str) -> torch.autocast:
    """bfloat16 where `precision` asks for it; `auto` does on a GPU."""
    kind = torch.device(device).type
    enabled = training.precision == "bfloat16" or (training.precision == "auto" and kind == "cuda")
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=enabled)


class FineTuning:
    """One trial's model, optimiser, schedule and place in the data."""

    def __init__(self, config: QAConfig, context: TrialContext, metrics: tuple[str, ...], model: nn.Module) -> None:
        self.config = config
        self.context = context
        self.metrics = metrics
        self.model = model
        self.task: Task = open_task(config, context.data, context.prepared_dir)
        self.steps_per_epoch = len(self.task.batches(epoch=0, seed=context.seed))
        self.optimizer = make_optimizer(model, config.training)
        self.schedule = make_schedule(self.optimizer, self.steps_per_epoch * config.training.epochs)
        self.step = 0
        self.samples_seen = 0
        self.last_rate = config.training.learning_rate
        self.sums: defaultdict[str, float] = defaultdict(float)
        self.saved_at = time.monotonic()

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole trial."""
        return self.steps_per_epoch * self.config.training.epochs

    def reports(self) -> Iterator[Report]:
        """Trains to the end, yielding as it goes."""
        since_report = 0
        while self.step < self.total_steps:
            epoch, position = divmod(self.step, self.steps_per_epoch)
            batches = self.task.batches(epoch=epoch, seed=self.context.seed)
            boundaries = self._boundaries()
            for batch in batches[position:]:
                self._train_step(batch)
                since_report += 1
                if self.step % self.steps_per_epoch in boundaries:
                    yield self._report(since_report)
                    since_report = 0

    def _boundaries(self) -> set[int]:
        """Steps within an epoch, modulo its length, after which to report; 0 is the epoch's end."""
        parts = self.config.evaluation.reports_per_epoch
        return {math.ceil(self.steps_per_epoch * part / parts) % self.steps_per_epoch for part in range(1, parts + 1)}

    def _train_step(self, windows: np.ndarray) -> None:
        batch = self.task.tensors(windows, self.context.device)
        self.last_rate = self.schedule.get_last_lr()[0]
        with autocast(self.config.training, self.context.device):
            output = self.model.train()(**batch)
        update(output.loss, self.optimizer, self.schedule, self.config.training.max_grad_norm)
        self.step += 1
        self.samples_seen += len(windows)
        for name, part in LOSSES.items():
            if name in self.metrics:
                self.sums[name] += float(loss_part(output, part).detach())

    def _report(self, num_steps: int) -> Report:
        means = {name: total / num_steps for name, total in self.sums.items()}
        self.sums.clear()
        epoch_ended = self.step % self.steps_per_epoch == 0
        finished = self.step == self.total_steps
        validated = self._evaluate("val") if epoch_ended else []
        tested = self._evaluate("test") if finished else []
        val_qa_loss = mixture_loss([part.evaluation for part in validated], self.config.mixture.share) if validated else None
        values = {**means, "val_qa_loss": val_qa_loss, "learning_rate": self.last_rate}
        measured = validated + tested
        return Report(
            step=self.step,
            epoch=self.step / self.steps_per_epoch,
            samples_seen=self.samples_seen,
            metrics={name: values[name] for name in self.metrics},
            evaluations=tuple(part.evaluation for part in measured),
            expert_loads=tuple(load for part in measured for load in part.expert_loads),
            predictions=tuple(prediction for part in tested for prediction in part.predictions),
            checkpoint=self._checkpoint(finished),
            params_total=sum(p.numel() for p in self.model.parameters()),
            params_trainable=sum(p.numel() for p in self.model.parameters() if p.requires_grad),
        )

    def _evaluate(self, split: Literal["val", "test"]) -> list[Measured]:
        """Scores every domain's split, without moving the generators: training is the same whatever is evaluated."""
        generators = checkpoints.state_of_generators(self.context.device)
        precision = partial(autocast, self.config.training, self.context.device)
        measured = [
            evaluate(self.model, self.task, held_out, self.context.device, precision) for held_out in self.task.of_split(split)
        ]
        checkpoints.restore_generators(generators, self.context.device)
        return measured

    def _checkpoint(self, finished: bool) -> Path | None:
        now = time.monotonic()
        if finished or now - self.saved_at < self.context.checkpoint_seconds:
            return None
        self.saved_at = now
        return checkpoints.save(self.context.checkpoint_dir, self.step, self._state())

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generators": checkpoints.state_of_generators(self.context.device),
            "step": self.step,
            "samples_seen": self.samples_seen,
        }

    def restore(self) -> None:
        """Goes on from the newest checkpoint, if there is one. Checkpoints are made at reports, so no loss sums are pending."""
        state = checkpoints.load_newest(self.context.checkpoint_dir, self.context.device)
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step, self.samples_seen = state["step"], state["samples_seen"]
        checkpoints.restore_generators(state["generators"], self.context.device)


def loss_part(output: Any, part: str) -> torch.Tensor:
    """A part of the loss; models without auxiliary losses have only `loss`."""
    value: torch.Tensor = output.loss if part == "qa_loss" and not hasattr(output, "qa_loss") else getattr(output, part)
    return value
