"""Rows of SQuAD's size without SQuAD: words of the embedded encoder's vocabulary, five questions a context."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from trainables.embedded import ENCODER_PATH

__all__ = ["write_rows"]

_MEDIAN_WORDS, _SPREAD, _LONGEST = 148, 0.42, 700
"""Of a context, log-normal. With a question of 11 words and 3 special tokens the median is 162 tokens and the 95th percentile
311, as measured over 4,000 rows of SQuAD v1.1 (train) with DistilBERT's WordPieces."""

_QUESTION_WORDS, _ANSWER_WORDS, _QUESTIONS = 11, 5, 5


def write_rows(path: Path, num_rows: int, seed: int = 0) -> None:
    """Writes `num_rows` flat JSONL rows; a context's own questions stand together."""
    generator = np.random.default_rng(seed)
    vocabulary = json.loads((ENCODER_PATH / "tokenizer.json").read_text())["model"]["vocab"]
    words = np.array([word for word in vocabulary if word.isalpha() and len(word) > 1])
    with path.open("w", encoding="utf-8") as file:
        context: list[str] = []
        for number in range(num_rows):
            if number % _QUESTIONS == 0:
                length = int(np.clip(generator.lognormal(np.log(_MEDIAN_WORDS), _SPREAD), 2 * _ANSWER_WORDS, _LONGEST))
                context = generator.choice(words, length).tolist()
            first = int(generator.integers(len(context) - _ANSWER_WORDS))
            answer = " ".join(context[first : first + int(generator.integers(1, _ANSWER_WORDS + 1))])
            row = {
                "id": f"row-{number}",
                "question": " ".join(generator.choice(words, _QUESTION_WORDS)),
                "context": " ".join(context),
                "answers": {"text": [answer], "answer_start": [len("".join(f"{word} " for word in context[:first]))]},
            }
            file.write(json.dumps(row) + "\n")
