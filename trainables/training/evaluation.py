"""Scoring a model on a task's held-out examples. A result depends on weights and examples alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from trainables.config import EvaluationConfig
from trainables.contract import Evaluation, ExpertLoad, Prediction
from trainables.data.answers import Spans, best_answers, best_spans
from trainables.data.scores import AnswerScores, score_answer
from trainables.models.tally import ExpertTally
from trainables.training.task import HeldOut, Task

__all__ = ["Measured", "evaluate", "mixture_loss"]

_WINDOWS_PER_BATCH = {"cpu": 16, "cuda": 128}
"""On a CPU larger batches are no faster and take memory; on a GPU they are."""

_WINDOWS_PER_DECODING = 512
"""With fewer, numpy's calls cost more than their work (benchmarks/evaluation.py), and waits for the GPU more often."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What an evaluation of one domain's split found."""

    evaluation: Evaluation
    expert_loads: tuple[ExpertLoad, ...]
    predictions: tuple[Prediction, ...]


@torch.inference_mode()
def evaluate(
    model: nn.Module, task: Task, held_out: HeldOut, device: str, autocast: Callable[[], AbstractContextManager[object]]
) -> Measured:
    """Scores `model` on `held_out`; the model is left in evaluation mode."""
    model.eval()
    routed = [layer.moe for layer in getattr(model, "expert_layers", ())]
    for moe in routed:
        moe.reset_tally()
    windows = held_out.windows[np.argsort(task.pool.lengths[held_out.windows], kind="stable")]
    spans: list[Spans] = []
    total_loss = 0.0
    batch_size = _WINDOWS_PER_BATCH[torch.device(device).type]
    for begin in range(0, len(windows), _WINDOWS_PER_DECODING):
        chosen = windows[begin : begin + _WINDOWS_PER_DECODING]
        parts = []
        for batch in np.split(chosen, range(batch_size, len(chosen), batch_size)):
            with autocast():
                parts.append(_logits(model, task, batch, device))
        start_logits, end_logits = (_joined([part[which] for part in parts]) for which in (0, 1))
        spans.append(_best_spans(task, chosen, start_logits, end_logits))
        for _, _, loss in parts:  # one after another, so that the sum has the same bits whatever is decoded together
            total_loss += float(loss)
    answers = best_answers(Spans.joined(spans), task.pool, windows, held_out.examples)
    golds = task.pool.column("gold", held_out.examples)
    scored = [score_answer(text, gold) for (text, _), gold in zip(answers, golds, strict=True)]
    return Measured(
        evaluation=_summary(held_out, total_loss / len(windows), answers, scored),
        expert_loads=tuple(load for layer, moe in enumerate(routed) for load in _expert_loads(moe.tally, held_out, layer)),
        predictions=tuple(_predictions(task, held_out, answers, golds, scored)),
    )


def mixture_loss(evaluations: Sequence[Evaluation], share: int) -> float:
    """The loss of a held-out mixture in the training ratio: the two domains' losses weighted by their shares.

    Source: papers, document A, section 1.3 no. 14. `share`: percent of the first domain.
    """
    first, second = (evaluation.qa_loss for evaluation in evaluations)
    return (share * first + (100 - share) * second) / 100


def _logits(model: nn.Module, task: Task, windows: np.ndarray, device: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Start and end logits (B, T) float32 and the summed loss of the windows (scalar), nats, where the model is."""
    batch = task.tensors(windows, device)
    golds = batch.pop("start_positions"), batch.pop("end_positions")
    output = model(**batch)
    logits = output.start_logits.float(), output.end_logits.float()
    # Padding must not take probability, or a window's loss would depend on its batch.
    masked = [part.masked_fill(batch["attention_mask"] == 0, -torch.inf) for part in logits]
    loss = sum(F.cross_entropy(part, gold, reduction="sum") for part, gold in zip(masked, golds, strict=True)) / 2
    return logits[0], logits[1], loss


def _best_spans(task: Task, windows: np.ndarray, start_logits: np.ndarray, end_logits: np.ndarray) -> Spans:
    settings: EvaluationConfig = task.config.evaluation
    return best_spans(
        start_logits,
        end_logits,
        lengths=task.pool.lengths[windows],
        context_begin=task.pool.context_begin[windows],
        context_end=task.pool.context_end[windows],
        n_best=settings.n_best,
        max_answer_tokens=settings.max_answer_tokens,
    )


def _joined(parts: Sequence[torch.Tensor]) -> np.ndarray:
    """Batches of logits (B, T) of different T as one array; what is added at the right is padding, and never read."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([F.pad(part, (0, width - part.shape[1])) for part in parts]).cpu().numpy()


def _predictions(
    task: Task,
    held_out: HeldOut,
    answers: Sequence[tuple[str, float]],
    golds: Sequence[Sequence[str]],
    scored: Sequence[AnswerScores],
) -> Iterator[Prediction]:
    ids, questions = (task.pool.column(name, held_out.examples) for name in ("id", "question"))
    for example_id, group_id, question, gold, (text, score), scores in zip(
        ids, held_out.group_ids, questions, golds, answers, scored, strict=True
    ):
        yield Prediction(
            domain=held_out.domain,
            example_id=example_id,
            group_id=group_id,
            question=question,
            gold=tuple(gold),
            prediction=text,
            score=score,
            em=scores.em,
            f1=scores.f1,
        )


def _summary(
    held_out: HeldOut, qa_loss: float, answers: Sequence[tuple[str, float]], scored: Sequence[AnswerScores]
) -> Evaluation:
    def percent(name: str) -> float:
        return 100 * sum(getattr(scores, name) for scores in scored) / len(scored)

    return Evaluation(
        split=held_out.split,
        domain=held_out.domain,
        examples=len(scored),
        qa_loss=qa_loss,
        em=percent("em"),
        f1=percent("f1"),
        em_raw=percent("em_raw"),
        contains_gold=percent("contains_gold"),
        mean_answer_tokens=sum(len(text.split()) for text, _ in answers) / len(answers),
    )


def _expert_loads(tally: ExpertTally, held_out: HeldOut, layer: int) -> list[ExpertLoad]:
    wanted, kept, probability = (part.tolist() for part in (tally.wanted, tally.kept, tally.probability))
    return [
        ExpertLoad(
            split=held_out.split,
            domain=held_out.domain,
            layer=layer,
            expert=expert,
            load_share=wanted[expert] / sum(wanted),
            mean_gate=probability[expert] / tally.tokens,
            dropped_share=(wanted[expert] - kept[expert]) / wanted[expert] if wanted[expert] else 0.0,
        )
        for expert in range(len(wanted))
    ]
