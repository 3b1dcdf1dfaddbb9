"""SQuAD's scores of one answer against the accepted ones. Standard library only.

Source: the official SQuAD v1.1 evaluation script (normalise, exact match, token F1, maximum over golds).
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["AnswerScores", "contains_gold", "em_raw", "exact_match", "f1", "normalise", "score_answer"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)  # ASCII only, as in the official script


@dataclass(frozen=True, kw_only=True)
class AnswerScores:
    """Scores of one prediction, each in [0, 1]; multiply the mean by 100 for the percentages that papers print."""

    em: float
    f1: float
    em_raw: float
    contains_gold: float


def score_answer(prediction: str, golds: Sequence[str]) -> AnswerScores:
    """All scores of `prediction`, each the maximum over `golds`; as the functions below give, but each text normalised once."""
    normalised, gold_texts = normalise(prediction), [normalise(gold) for gold in golds]
    words, padded = normalised.split(), f" {normalised} "
    return AnswerScores(
        em=float(normalised in gold_texts),
        f1=max((1.0 if gold == normalised != "" else _token_f1(words, gold.split()) for gold in gold_texts), default=0.0),
        em_raw=em_raw(prediction, golds),
        contains_gold=float(any(f" {gold} " in padded if gold else not normalised for gold in gold_texts)),
    )


def normalise(text: str) -> str:
    """`text` in lower case without ASCII punctuation and English articles, words joined by single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, golds: Sequence[str]) -> float:
    """1.0 if the normalised prediction equals a normalised gold, else 0.0."""
    normalised = normalise(prediction)
    return float(any(normalised == normalise(gold) for gold in golds))


def em_raw(prediction: str, golds: Sequence[str]) -> float:
    """1.0 if the prediction equals a gold character by character, else 0.0 (papers: "a torn ACL" is not "torn ACL")."""
    return float(prediction in golds)


def f1(prediction: str, golds: Sequence[str]) -> float:
    """The best harmonic mean of token precision and recall over golds, in [0, 1]; 0.0 where no token is shared."""
    words = normalise(prediction).split()
    return max((_token_f1(words, normalise(gold).split()) for gold in golds), default=0.0)


def contains_gold(prediction: str, golds: Sequence[str]) -> float:
    """1.0 if a normalised gold stands in the normalised prediction as whole words; a gold without words must be equal."""
    normalised = normalise(prediction)
    padded = f" {normalised} "
    return float(any(f" {words} " in padded if (words := normalise(gold)) else not normalised for gold in golds))


def _token_f1(prediction: list[str], gold: list[str]) -> float:
    shared = sum(min(prediction.count(word), gold.count(word)) for word in set(gold))
    if shared == 0:
        return 0.0
    precision, recall = shared / len(prediction), shared / len(gold)
    return 2 * precision * recall / (precision + recall)
