"""From start and end logits to the text of the answer. numpy only.

Source: the postprocessing of transformers' question-answering example (examples/pytorch/question-answering/utils_qa.py), for
questions that all have an answer: the best start + end over the n best of each, over all windows of an example.
Shapes: B windows, T tokens, padded on the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainables.data.pool import WindowPool

__all__ = ["Spans", "best_answers", "best_spans", "decode"]

_NONE = np.float32(-np.inf)


@dataclass(frozen=True, kw_only=True)
class Spans:
    """The best span of each window: `scores` (B,), -inf where no span is valid; tokens `starts` and `ends` (B,), inclusive."""

    scores: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    @staticmethod
    def joined(parts: Sequence[Spans]) -> Spans:
        """The spans of several batches one after another."""
        return Spans(
            scores=np.concatenate([part.scores for part in parts]),
            starts=np.concatenate([part.starts for part in parts]),
            ends=np.concatenate([part.ends for part in parts]),
        )


def decode(
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    pool: WindowPool,
    windows: np.ndarray,
    examples: np.ndarray,
    *,
    n_best: int,
    max_answer_tokens: int,
) -> list[tuple[str, float]]:
    """(text, score) of each of `examples` from the logits (B, T) of `windows`: `best_spans`, then `best_answers`."""
    spans = best_spans(
        start_logits,
        end_logits,
        lengths=pool.lengths[windows],
        context_begin=pool.context_begin[windows],
        context_end=pool.context_end[windows],
        n_best=n_best,
        max_answer_tokens=max_answer_tokens,
    )
    return best_answers(spans, pool, windows, examples)


def best_spans(
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    *,
    lengths: np.ndarray,
    context_begin: np.ndarray,
    context_end: np.ndarray,
    n_best: int,
    max_answer_tokens: int,
) -> Spans:
    """The best span of each window: start and end among the `n_best` of the window's tokens, both in the context, end not
    before start, at most `max_answer_tokens` long.

    Logits (B, T) float32, the rest (B,). Equal scores: the earlier start, then the earlier end. Logits of padding (at or past
    `lengths`) do not count, unlike in the example, so that a batch's padding changes nothing; nor do infinities and NaN.
    """
    is_token = np.arange(start_logits.shape[1]) < lengths[:, None]
    starts, start_scores = _candidates(start_logits, is_token, n_best)
    ends, end_scores = _candidates(end_logits, is_token, n_best)
    # The last end is not before the start, so one bound each is enough.
    start_scores = np.where(starts >= context_begin[:, None], start_scores, _NONE)
    end_scores = np.where(ends < context_end[:, None], end_scores, _NONE)
    scores = start_scores[:, :, None] + end_scores[:, None, :]
    gaps = (ends[:, None, :] - starts[:, :, None]).view(np.uint64)  # an end before its start becomes a huge number
    scores[gaps >= max_answer_tokens] = _NONE
    flat = scores.reshape(len(scores), -1)
    best = flat.argmax(axis=1)  # the first of equals, and candidates stand in the order of tokens
    rows = np.arange(len(flat))
    start, end = np.divmod(best, ends.shape[1])
    return Spans(scores=flat[rows, best], starts=starts[rows, start], ends=ends[rows, end])


def _candidates(logits: np.ndarray, is_token: np.ndarray, n_best: int) -> tuple[np.ndarray, np.ndarray]:
    """The `n_best` tokens of each row, the earlier one of equals, in the order of tokens, and their logits.

    Whole numbers that order as (logit descending, token ascending) are all different, so that they can be partitioned, which
    takes a fraction of a stable sort's time.
    """
    masked = np.where(is_token & np.isfinite(logits), logits, _NONE) + np.float32(0.0)  # no -0.0
    bits = masked.view(np.int32)
    descending = ~(bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF)))  # IEEE 754: negative numbers' bits order backwards
    keys = (descending.astype(np.int64) << 32) | np.arange(logits.shape[1])
    if n_best < keys.shape[1]:
        keys = np.partition(keys, n_best - 1, axis=1)[:, :n_best]
    tokens = np.sort(keys & 0xFFFFFFFF, axis=1)
    return tokens, np.take_along_axis(masked, tokens, axis=1)


def best_answers(spans: Spans, pool: WindowPool, windows: np.ndarray, examples: np.ndarray) -> list[tuple[str, float]]:
    """(text, score) of each of `examples`, in their order: its best span over its windows; ("", 0.0) where none is valid.

    `spans` belong to `windows`, which may come in any order. Equal scores: the earlier window.
    """
    position = {int(example): i for i, example in enumerate(examples)}
    best: dict[int, int] = {}
    for i in np.lexsort((windows, -spans.scores)).tolist():
        if np.isfinite(spans.scores[i]):
            best.setdefault(position[int(pool.example_index[windows[i]])], i)
    chosen = np.array([best[p] for p in sorted(best)], dtype=np.int64)
    chars = pool.span_chars(windows[chosen], spans.starts[chosen], spans.ends[chosen])
    contexts = pool.column("context", [examples[p] for p in sorted(best)])
    answers = [("", 0.0)] * len(examples)
    for p, i, (start, end), context in zip(sorted(best), chosen.tolist(), chars.tolist(), contexts, strict=True):
        answers[p] = (context[start:end], float(spans.scores[i]))
    return answers
