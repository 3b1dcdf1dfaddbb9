"""Decoding as transformers' question-answering example does it: one example, one window and one pair of tokens at a time.

Written from the algorithm of `postprocess_qa_predictions` (examples/pytorch/question-answering/utils_qa.py of transformers at
commit 31f57e9; the package on PyPI does not contain it), for questions that all have an answer: the best `n_best` starts and
ends of each window, every pair that lies in the context in order and is not too long, the best `n_best` pairs of all windows,
and their probabilities. Left out: null answers, which SQuAD v1.1 does not have, progress bar and files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["n_best_answers"]


def n_best_answers(
    examples: Sequence[Mapping[str, Any]],
    features: Sequence[Mapping[str, Any]],
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    *,
    n_best: int = 20,
    max_answer_tokens: int = 30,
) -> dict[str, list[dict[str, Any]]]:
    """Each example's answers with text, logits and probability, best first.

    `examples` have id and context, `features` example_id and offset_mapping (None outside the context), as the example's own.
    """
    rows_of = defaultdict(list)
    for row, feature in enumerate(features):
        rows_of[feature["example_id"]].append(row)
    answers = {}
    for example in examples:
        found: list[dict[str, Any]] = []
        for row in rows_of[example["id"]]:
            found += _pairs(start_logits[row], end_logits[row], features[row]["offset_mapping"], n_best, max_answer_tokens)
        best = sorted(found, key=lambda each: each["score"], reverse=True)[:n_best]
        for each in best:
            begin, end = each.pop("offsets")
            each["text"] = example["context"][begin:end]
        answers[example["id"]] = _with_probabilities(
            best or [{"text": "empty", "start_logit": 0.0, "end_logit": 0.0, "score": 0.0}]
        )
    return answers


def _pairs(
    start_row: np.ndarray, end_row: np.ndarray, offsets: Sequence[tuple[int, int] | None], n_best: int, max_answer_tokens: int
) -> list[dict[str, Any]]:
    starts = np.argsort(start_row)[-1 : -n_best - 1 : -1].tolist()
    ends = np.argsort(end_row)[-1 : -n_best - 1 : -1].tolist()
    found = []
    for start in starts:
        for end in ends:
            if start >= len(offsets) or end >= len(offsets) or offsets[start] is None or offsets[end] is None:
                continue
            if end < start or end - start + 1 > max_answer_tokens:
                continue
            found.append(
                {
                    "offsets": (offsets[start][0], offsets[end][1]),  # type: ignore[index]
                    "score": start_row[start] + end_row[end],
                    "start_logit": start_row[start],
                    "end_logit": end_row[end],
                }
            )
    return found


def _with_probabilities(best: list[dict[str, Any]]) -> list[dict[str, Any]]:
    scores = np.array([each.pop("score") for each in best])
    weights = np.exp(scores - scores.max())
    for each, probability in zip(best, weights / weights.sum(), strict=True):
        each["probability"] = float(probability)
    return best
