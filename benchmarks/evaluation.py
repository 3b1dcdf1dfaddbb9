"""Decoding and scoring against the postprocessing of transformers' question-answering example, on the same logits.

    python benchmarks/evaluation.py            # 10,000 examples of SQuAD's size

Logits are random with a bump at each window's answer; what the example's way and ours predict is compared text by text.
Goal: ten times as fast, scores included, where the example's own scoring is not counted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from evaluation_peer import n_best_answers
from rich.console import Console
from rich.table import Table
from squad_sized import write_rows

from trainables.config import MixtureConfig
from trainables.data.answers import Spans, best_answers, best_spans
from trainables.data.pool import WindowPool
from trainables.data.prepared import open_prepared
from trainables.data.scores import score_answer
from trainables.data.spec import DataSpec, DomainSpec
from trainables.embedded import ENCODER_PATH

N_BEST, MAX_ANSWER_TOKENS, MAX_LENGTH, STRIDE = 20, 30, 384, 128
_BATCH = 512  # windows, as `trainables.training.evaluation` decodes them


def make_pool(folder: Path, num_examples: int) -> WindowPool:
    """The examples, prepared as a trial's are."""
    write_rows(folder / "rows.jsonl", num_examples)
    data = DataSpec(encoder=str(ENCODER_PATH), domains={"squad": DomainSpec(train=str(folder / "rows.jsonl"))})
    mixture = MixtureConfig(size=num_examples // 2 // 100 * 100, share=100)
    return open_prepared(data, mixture, max_length=MAX_LENGTH, stride=STRIDE, prepared_dir=folder / "prepared").pool


def make_logits(pool: WindowPool, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Start and end logits (W, T) float32, padding far below all."""
    generator = np.random.default_rng(seed)
    rows = np.arange(pool.num_windows)
    is_token = np.arange(MAX_LENGTH) < pool.lengths[:, None]
    parts = []
    for answer in (pool.starts, pool.ends):
        logits = generator.normal(size=is_token.shape).astype(np.float32) * 2
        logits[rows, answer] += 5
        parts.append(np.where(is_token, logits, np.float32(-1e4)))
    return parts[0], parts[1]


def ours(pool: WindowPool, start_logits: np.ndarray, end_logits: np.ndarray) -> list[tuple[str, float]]:
    """Decoding batch by batch in the order of length, as an evaluation does it."""
    windows = np.argsort(pool.lengths, kind="stable")
    spans = []
    for begin in range(0, len(windows), _BATCH):
        rows = windows[begin : begin + _BATCH]
        width = int(pool.lengths[rows].max())
        ranges = {
            "lengths": pool.lengths[rows],
            "context_begin": pool.context_begin[rows],
            "context_end": pool.context_end[rows],
        }
        logits = start_logits[rows, :width], end_logits[rows, :width]
        spans.append(best_spans(*logits, **ranges, n_best=N_BEST, max_answer_tokens=MAX_ANSWER_TOKENS))
    return best_answers(Spans.joined(spans), pool, windows, np.arange(pool.num_examples))


def scored(pool: WindowPool, answers: list[tuple[str, float]]) -> float:
    """Exact match, percent."""
    golds = pool.column("gold", np.arange(pool.num_examples))
    return 100 * sum(score_answer(text, gold).em for (text, _), gold in zip(answers, golds, strict=True)) / len(answers)


def as_the_example_has_them(pool: WindowPool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Examples and features in the form that the example's code takes. Making it is not measured."""
    ids = [str(index) for index in range(pool.num_examples)]
    contexts = pool.column("context", np.arange(pool.num_examples))
    examples = [{"id": name, "context": context} for name, context in zip(ids, contexts, strict=True)]
    features = []
    for window in range(pool.num_windows):
        inside = np.arange(pool.context_begin[window], pool.context_end[window])
        chars = pool.span_chars(np.full(len(inside), window), inside, inside).tolist()
        offsets: list[tuple[int, int] | None] = [None] * MAX_LENGTH
        offsets[int(inside[0]) : int(inside[-1]) + 1] = [(begin, end) for begin, end in chars]
        features.append({"example_id": ids[pool.example_index[window]], "offset_mapping": offsets})
    return examples, features


def measure(folder: Path, num_examples: int, repeats: int) -> Table:
    """All three in turn, in seconds of the one CPU that each takes: other work on the machine does not count; the table."""
    pool = make_pool(folder, num_examples)
    start_logits, end_logits = make_logits(pool)
    examples, features = as_the_example_has_them(pool)
    taken: dict[str, list[float]] = {"the example's postprocessing": [], "ours": [], "ours, scores included": []}
    for _ in range(repeats):
        began = time.process_time()
        theirs = n_best_answers(
            examples, features, start_logits, end_logits, n_best=N_BEST, max_answer_tokens=MAX_ANSWER_TOKENS
        )
        peer = time.process_time()
        answers = ours(pool, start_logits, end_logits)
        decoded = time.process_time()
        em = scored(pool, answers)
        for seconds, value in zip(taken.values(), (peer - began, decoded - peer, time.process_time() - peer), strict=True):
            seconds.append(value)
    differing = sum(text != best[0]["text"] for (text, _), best in zip(answers, theirs.values(), strict=True))
    if differing:
        raise SystemExit(f"{differing} of {num_examples} predictions differ from the example's, allowed are 0")
    title = (
        f"{num_examples:,} examples in {pool.num_windows:,} windows, all predictions equal, EM {em:.1f} %, {repeats} repeats"
    )
    shown = Table("", "CPU seconds, median (least to most)", "example ÷ this", title=title)
    for name, seconds in taken.items():
        ratios = [first / each for first, each in zip(taken["the example's postprocessing"], seconds, strict=True)]
        shown.add_row(name, f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})", f"{median(ratios):.1f}")
    return shown


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Console(width=120).print(measure(Path(folder), arguments.examples, arguments.repeats))


if __name__ == "__main__":
    main()
