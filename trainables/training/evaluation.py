"""Scoring a model on a domain's held-out examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from trainables.config import QAConfig
from trainables.contract import Evaluation, ExpertLoad, Prediction
from trainables.data import scores
from trainables.data.answers import decode
from trainables.models.experts import ExpertTally
from trainables.training.task import HeldOut, Task

__all__ = ["Evaluator", "Measured"]

_WINDOWS_PER_BATCH = 64


@dataclass(frozen=True)
class Measured:
    """What an evaluation found; `qa_loss` is in the mixture's ratio of domains."""

    qa_loss: float | None = None
    evaluations: tuple[Evaluation, ...] = ()
    expert_loads: tuple[ExpertLoad, ...] = ()
    predictions: tuple[Prediction, ...] = ()


class Evaluator:
    """Evaluates on a task's held-out examples. A result depends on weights and examples alone."""

    def __init__(self, task: Task, config: QAConfig, device: str) -> None:
        self._task = task
        self._config = config
        self._device = device

    @staticmethod
    def nothing() -> Measured:
        """What is known where nothing was evaluated."""
        return Measured()

    def validate(self, model: nn.Module) -> Measured:
        """Scores on the validation examples of every domain.

        The loss is that of a held-out mixture in the training ratio (papers: document A, section 1.3 no. 14): the domains'
        losses weighted by their shares.
        """
        measured = [self._evaluate(model, held_out) for held_out in self._task.validation]
        share = self._config.mixture.share / 100
        losses = [part.evaluations[0].qa_loss for part in measured]
        weights = [share, 1 - share] if len(losses) == 2 else [1 / len(losses)] * len(losses)
        qa_loss = sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
        return Measured(
            qa_loss,
            tuple(evaluation for part in measured for evaluation in part.evaluations),
            tuple(load for part in measured for load in part.expert_loads),
        )

    def test(self, model: nn.Module) -> Measured:
        """Scores and predictions on the test examples of every domain. Only a finished model is tested."""
        measured = [self._evaluate(model, held_out) for held_out in self._task.test]
        return Measured(
            None,
            tuple(evaluation for part in measured for evaluation in part.evaluations),
            tuple(load for part in measured for load in part.expert_loads),
            tuple(prediction for part in measured for prediction in part.predictions),
        )

    @torch.inference_mode()
    def _evaluate(self, model: nn.Module, held_out: HeldOut) -> Measured:
        model.eval()
        routed = [layer.moe for layer in getattr(model, "expert_layers", ())]
        for moe in routed:
            moe.reset_tally()
        start_logits, end_logits, qa_loss = self._logits(model, held_out)
        answers = decode(
            held_out.domain,
            held_out.windows,
            start_logits,
            end_logits,
            held_out.examples,
            n_best=self._config.evaluation.n_best,
            max_answer_tokens=self._config.evaluation.max_answer_tokens,
        )
        predictions = [self._score(held_out, example, *answer) for example, answer in zip(held_out.examples, answers, strict=True)]
        loads = [load for layer, moe in enumerate(routed) for load in _expert_loads(moe.tally, held_out, layer)]
        return Measured(qa_loss, (_summary(held_out, qa_loss, predictions),), tuple(loads), tuple(predictions))

    def _logits(self, model: nn.Module, held_out: HeldOut) -> tuple[list[np.ndarray], list[np.ndarray], float]:
        """Start and end logits of each window, without padding, in the order of `held_out.windows`; and the mean loss."""
        by_length = np.argsort(held_out.lengths, kind="stable")
        starts: list[np.ndarray] = [np.empty(0)] * len(by_length)
        ends = list(starts)
        total = 0.0
        for begin in range(0, len(by_length), _WINDOWS_PER_BATCH):
            chosen = by_length[begin : begin + _WINDOWS_PER_BATCH]
            batch = held_out.batch(chosen, self._device)
            positions = batch.pop("start_positions"), batch.pop("end_positions")
            output = model(**batch)
            logits = output.start_logits.float(), output.end_logits.float()
            total += sum(float(F.cross_entropy(part, gold, reduction="sum")) for part, gold in zip(logits, positions, strict=True)) / 2
            start_rows, end_rows = (part.cpu().numpy() for part in logits)
            for row, window in enumerate(chosen):
                length = held_out.lengths[window]
                starts[window], ends[window] = start_rows[row, :length], end_rows[row, :length]
        return starts, ends, total / max(1, len(by_length))

    def _score(self, held_out: HeldOut, example: int, text: str, score: float) -> Prediction:
        gold = held_out.domain.gold(example)
        return Prediction(
            domain=held_out.name,
            example_id=held_out.domain.id(example),
            question=held_out.domain.question(example),
            gold=tuple(gold),
            prediction=text,
            score=score,
            em=scores.exact_match(text, gold),
            f1=scores.f1(text, gold),
        )


def _summary(held_out: HeldOut, qa_loss: float, predictions: Sequence[Prediction]) -> Evaluation:
    def percent(values: Sequence[float]) -> float:
        return 100 * sum(values) / max(1, len(values))

    return Evaluation(
        split=held_out.split,
        domain=held_out.name,
        examples=len(predictions),
        qa_loss=qa_loss,
        em=percent([p.em for p in predictions]),
        f1=percent([p.f1 for p in predictions]),
        em_raw=percent([scores.exact_match_raw(p.prediction, p.gold) for p in predictions]),
        contains_gold=percent([scores.contains_gold(p.prediction, p.gold) for p in predictions]),
        mean_answer_tokens=sum(len(p.prediction.split()) for p in predictions) / max(1, len(predictions)),
    )


def _expert_loads(tally: ExpertTally, held_out: HeldOut, layer: int) -> list[ExpertLoad]:
    wanted, kept, probability = (part.tolist() for part in (tally.wanted, tally.kept, tally.probability))
    total = max(1.0, sum(wanted))
    return [
        ExpertLoad(
            split=held_out.split,
            domain=held_out.name,
            layer=layer,
            expert=expert,
            load_share=wanted[expert] / total,
            mean_gate=probability[expert] / max(1, tally.tokens),
            dropped_share=(wanted[expert] - kept[expert]) / wanted[expert] if wanted[expert] else 0.0,
        )
        for expert in range(len(wanted))
    ]
