"""Fine-tuning as a generator of reports, for every model that returns a `QuestionAnsweringOutput`-like loss."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from trainables.config import QAConfig
from trainables.contract import DivergedError, Interrupted, Report, TrialContext
from trainables.models.block_linear import use_blocks
from trainables.models.tally import num_active
from trainables.training import checkpoints
from trainables.training.evaluation import Measured, evaluate, mixture_loss
from trainables.training.generators import restore_generators, seed_everything, state_of_generators
from trainables.training.steps import (
    STEPS_UNREAD,
    add_gradients,
    autocast,
    make_optimizer,
    make_schedule,
    read_together,
    update,
)
from trainables.training.task import Task, open_task

__all__ = ["FineTuning", "fine_tune"]

_SAVING_SHARE, _RARER_AT_MOST = 0.02, 20
"""Share of a trial's time that checkpoints may take. Those of large models (DistilBERT-base: 0.8 GB, 2 s) are made more rarely
than asked for, but not more than so many times."""

_NORM = "the gradient's norm"


def fine_tune(
    config: QAConfig, context: TrialContext, metrics: tuple[str, ...], build_model: Callable[[], nn.Module]
) -> Iterator[Report]:
    """Trains the model that `build_model` makes, from the newest checkpoint in `context.checkpoint_dir` if there is one.

    Yields `reports_per_epoch` reports an epoch; the last of each epoch has the validation scores, or every one with
    `validate_at: report`, and the very last the test scores and every test prediction. `build_model` may draw from torch's
    generator, which is seeded before.

    Raises:
        Interrupted: the context asked to stop, and a checkpoint of where the trial is lies in `context.checkpoint_dir`.
        DivergedError: a loss or gradient is not finite.
        DataError: rows that cannot be used, or fewer than the mixture needs.
    """
    torch.set_num_threads(context.num_threads)
    seed_everything(context.seed)
    run = FineTuning(config, context, metrics, use_blocks(build_model().to(context.device), context.device))
    run.restore()
    yield from run.reports()
    context.persist(partial(checkpoints.save_final_weights, context.checkpoint_dir, run.model))


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
        self.schedule = make_schedule(self.optimizer, self.total_steps, config.training.warmup_share)
        self.step = 0
        self.samples_seen = 0
        self.last_rate = config.training.learning_rate
        self.sums: defaultdict[str, float] = defaultdict(float)  # of the losses since the last report, by metric
        self.steps_since_report = 0
        self.unread: list[dict[str, torch.Tensor]] = []  # losses and gradient norms (scalars) of the last steps, oldest first
        self.saved_step: int | None = None
        self.saved_at = time.monotonic()
        self.saving_seconds = 0.0  # what the last checkpoint took
        self.best: dict[str, Any] | None = None  # with `select: best`: loss and weights of the best validation so far

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole trial."""
        return self.steps_per_epoch * self.config.training.epochs

    def reports(self) -> Iterator[Report]:
        """Trains to the end, yielding as it goes. A report that is due comes before the question whether to stop."""
        boundaries = self._boundaries()
        batches_of = lru_cache(maxsize=1)(partial(self.task.batches, seed=self.context.seed))
        while self.step < self.total_steps:
            if self.context.stop_requested():
                self._save()
                raise Interrupted(f"stopped as asked after {self.step} of {self.total_steps} steps; the checkpoint is complete")
            epoch, position = divmod(self.step, self.steps_per_epoch)
            self._train_step(batches_of(epoch=epoch)[position])
            if self.step % self.steps_per_epoch in boundaries:
                yield self._report()
                self._save_if_due()

    def _boundaries(self) -> set[int]:
        """Steps within an epoch, modulo its length, after which to report; 0 is the epoch's end."""
        parts = self.config.evaluation.reports_per_epoch
        return {math.ceil(self.steps_per_epoch * part / parts) % self.steps_per_epoch for part in range(1, parts + 1)}

    def _train_step(self, windows: np.ndarray) -> None:
        batch = self.task.tensors(windows, self.context.device)
        self.last_rate = self.schedule.get_last_lr()[0]
        precision = partial(autocast, self.config.training, self.context.device)
        losses = add_gradients(self.model, batch, self.context.micro_batches, precision)
        norm = update(self.optimizer, self.schedule, self.config.training.max_grad_norm)
        self.step += 1
        self.steps_since_report += 1
        self.samples_seen += len(windows)
        self.unread.append({**losses, _NORM: norm})
        if len(self.unread) >= STEPS_UNREAD[torch.device(self.context.device).type]:
            self._read_losses()

    def _read_losses(self) -> None:
        """Adds up the losses of the steps since the last reading. Raises DivergedError at the first that is not finite."""
        if not self.unread:
            return
        first = self.step - len(self.unread) + 1
        together = read_together(self.unread)
        self.unread.clear()
        for step, found in enumerate(together, first):
            self._check_finite(found, step)
            for name in self.metrics:
                if name in found:
                    self.sums[name] += found[name]

    def _check_finite(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                rate = self.config.training.learning_rate
                raise DivergedError(
                    f"{name} must be finite, got {value} at step {step} of {self.total_steps}; "
                    f"try a learning_rate below {rate:g}"
                )

    def _report(self) -> Report:
        self._read_losses()
        means = {name: total / self.steps_since_report for name, total in self.sums.items()}
        self.sums.clear()
        self.steps_since_report = 0
        validated = self._evaluate("val") if self._validation_due() else []
        parts = self.config.mixture.parts
        val_qa_loss = mixture_loss([part.evaluation for part in validated], parts) if validated else None
        if val_qa_loss is not None and self.config.training.select == "best":
            self._keep_if_best(val_qa_loss)
        tested = self._evaluate("test") if self.step == self.total_steps else []
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
            params_total=sum(p.numel() for p in self.model.parameters()),
            params_active=num_active(self.model),
            params_trainable=sum(p.numel() for p in self.model.parameters() if p.requires_grad),
        )

    def _keep_if_best(self, val_qa_loss: float) -> None:
        """Remembers the weights of the lowest validation loss, of equal ones the first; at the end these are the model's."""
        if self.best is None or val_qa_loss < float(self.best["val_qa_loss"]):
            frozen = {name for name, parameter in self.model.named_parameters() if not parameter.requires_grad}
            weights = {
                name: tensor.detach().to("cpu", copy=True)
                for name, tensor in self.model.state_dict().items()
                if name not in frozen
            }
            self.best = {"val_qa_loss": val_qa_loss, "weights": weights}
        if self.step == self.total_steps:
            self.model.load_state_dict(self.best["weights"], strict=False)  # what is frozen is as it was

    def _validation_due(self) -> bool:
        return self.config.evaluation.validate_at == "report" or self.step % self.steps_per_epoch == 0

    def _evaluate(self, split: Literal["val", "test"]) -> list[Measured]:
        """Scores every domain's split, without moving the generators: training is the same whatever is evaluated."""
        generators = state_of_generators(self.context.device)
        precision = partial(autocast, self.config.training, self.context.device)
        measured = [
            evaluate(self.model, self.task, held_out, self.context.device, precision) for held_out in self.task.of_split(split)
        ]
        restore_generators(generators, self.context.device)
        losses = {f"{split}_qa_loss of {part.evaluation.domain}": part.evaluation.qa_loss for part in measured}
        self._check_finite(losses, self.step)
        return measured

    def _save_if_due(self) -> None:
        """After the last report only the final weights are left to write."""
        asked = self.context.checkpoint_seconds
        pause = min(max(asked, self.saving_seconds / _SAVING_SHARE), _RARER_AT_MOST * asked)
        if time.monotonic() - self.saved_at >= pause and self.step < self.total_steps:
            self._save()

    def _save(self) -> None:
        """Writes the checkpoint of this step, unless it is there: nothing happens between a step's report and the next step."""
        if self.saved_step != self.step:
            self._read_losses()
            self.context.persist(partial(self._write, self._state()))
            self.saved_step, self.saved_at = self.step, time.monotonic()

    def _write(self, state: dict[str, Any]) -> Path:
        began = time.monotonic()  # not before: whoever writes may first wait for the storage
        path = checkpoints.save(self.context.checkpoint_dir, self.step, state)
        self.saving_seconds = time.monotonic() - began
        return path

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generators": state_of_generators(self.context.device),
            "step": self.step,
            "samples_seen": self.samples_seen,
            "sums": dict(self.sums),
            "steps_since_report": self.steps_since_report,
            **({} if self.best is None else {"best": self.best}),
        }

    def restore(self) -> None:
        """Goes on from the newest checkpoint, if there is one."""
        state = checkpoints.load_newest(
            self.context.checkpoint_dir, self.context.device, self.context.warn, up_to=self.context.resume_step
        )
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step, self.samples_seen = state["step"], state["samples_seen"]
        self.sums.update(state["sums"])
        self.steps_since_report = state["steps_since_report"]
        if best := state.get("best"):
            self.best = {**best, "weights": {name: tensor.cpu() for name, tensor in best["weights"].items()}}
        self.saved_step = self.step
        restore_generators(state["generators"], self.context.device)
