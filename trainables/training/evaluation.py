"""Scoring a model on a task's held-out examples. A result depends on weights and examples alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

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
    gates: list[torch.Tensor] = []
    total_loss = 0.0
    batch_size = _WINDOWS_PER_BATCH[torch.device(device).type]
    for begin in range(0, len(windows), _WINDOWS_PER_DECODING):
        chosen = windows[begin : begin + _WINDOWS_PER_DECODING]
        parts = []
        for batch in np.split(chosen, range(batch_size, len(chosen), batch_size)):
            with autocast():
                parts.append(_outcome(model, task, batch, device))
        start_logits, end_logits = _joined([part.start_logits for part in parts]), _joined([part.end_logits for part in parts])
        spans.append(_best_spans(task, chosen, start_logits, end_logits))
        for part in parts:  # one after another, so that the sum has the same bits whatever is decoded together
            total_loss += float(part.loss)
        gates += [part.gate_weights for part in parts if part.gate_weights is not None]
    answers = best_answers(Spans.joined(spans), task.pool, windows, held_out.examples)
    golds = task.pool.column("gold", held_out.examples)
    scored = [score_answer(text, gold) for (text, _), gold in zip(answers, golds, strict=True)]
    return Measured(
        evaluation=_summary(held_out, total_loss / len(windows), answers, scored),
        expert_loads=tuple(load for layer, moe in enumerate(routed) for load in _expert_loads(moe.tally, held_out, layer)),
        predictions=tuple(_predictions(task, held_out, answers, golds, scored, _gate_weights(gates, task, windows, held_out))),
    )


def mixture_loss(evaluations: Sequence[Evaluation], parts: Sequence[int]) -> float:
    """The loss of a held-out mixture in the training ratio: the domains' losses weighted by their `parts` of it.

    Source: papers, document A, section 1.3 no. 14.
    """
    losses = (evaluation.qa_loss for evaluation in evaluations)
    return sum(part * loss for part, loss in zip(parts, losses, strict=True)) / sum(parts)


class _Outcome(NamedTuple):
    """Of a batch of windows, where the model is."""

    start_logits: torch.Tensor  # (B, T) float32
    end_logits: torch.Tensor  # (B, T) float32
    loss: torch.Tensor  # scalar: summed over the windows, nats
    gate_weights: torch.Tensor | None  # (B, experts); None where there is no gate


def _outcome(model: nn.Module, task: Task, windows: np.ndarray, device: str) -> _Outcome:
    batch = task.tensors(windows, device)
    golds = batch.pop("start_positions"), batch.pop("end_positions")
    output = model(**batch)
    logits = output.start_logits.float(), output.end_logits.float()
    # Padding must not take probability, or a window's loss would depend on its batch.
    masked = [part.masked_fill(batch["attention_mask"] == 0, -torch.inf) for part in logits]
    loss = sum(F.cross_entropy(part, gold, reduction="sum") for part, gold in zip(masked, golds, strict=True)) / 2
    return _Outcome(logits[0], logits[1], loss, getattr(output, "gate_weights", None))


def _gate_weights(
    gates: Sequence[torch.Tensor], task: Task, windows: np.ndarray, held_out: HeldOut
) -> list[tuple[float, ...] | None]:
    """Of each example: every expert's weight, mean over the example's windows; None where there is no gate.

    `gates`: those of batches (B, experts), together of all `windows` (W,).
    """
    if not gates:
        return [None] * len(held_out.examples)
    weight_WE = torch.cat(list(gates)).double().cpu().numpy()
    place = np.searchsorted(held_out.examples, task.pool.example_index[windows])
    sum_NE = np.zeros((len(held_out.examples), weight_WE.shape[1]))
    np.add.at(sum_NE, place, weight_WE)
    count_N = np.bincount(place, minlength=len(held_out.examples))
    return [tuple(row) for row in (sum_NE / count_N[:, None]).tolist()]


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
    gates: Sequence[tuple[float, ...] | None],
) -> Iterator[Prediction]:
    ids, questions = (task.pool.column(name, held_out.examples) for name in ("id", "question"))
    for example_id, group_id, question, gold, (text, score), scores, gate in zip(
        ids, held_out.group_ids, questions, golds, answers, scored, gates, strict=True
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
            gate_weights=gate,
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
    tokens = float(tally.tokens)
    return [
        ExpertLoad(
            split=held_out.split,
            domain=held_out.domain,
            layer=layer,
            expert=expert,
            load_share=wanted[expert] / sum(wanted),
            mean_gate=probability[expert] / tokens,
            dropped_share=(wanted[expert] - kept[expert]) / wanted[expert] if wanted[expert] else 0.0,
        )
        for expert in range(len(wanted))
    ]
