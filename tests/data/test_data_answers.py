"""Decoding equals the question-answering example's rule, written again here in the plainest way."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainables.data.answers import Spans, best_answers, best_spans, decode
from trainables.data.counts import RowCounts
from trainables.data.pool import WindowPool
from trainables.data.store import EXAMPLES_SCHEMA, open_file, write_file
from trainables.data.windows import make_windows

QUESTION = "who?"
CONTEXTS = [
    "alpha beta gamma delta epsilon river city king queen old",
    "torn",
    "the old city near the great lake " * 4,
    "naïve 🧬 alpha",
]


@pytest.fixture(scope="module")
def pool(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> WindowPool:
    """Four examples of one to several windows, each in a file of its own so that global numbering matters."""
    import pyarrow as pa

    files = []
    for i, context in enumerate(CONTEXTS):
        folder = tmp_path_factory.mktemp(f"file{i}")
        windows = make_windows(tokenizer, [QUESTION], [context], [(0, 4)], max_length=16, stride=4)
        row = dict.fromkeys(EXAMPLES_SCHEMA.names, "") | {"context": context, "answer_start": 0, "gold": []}
        counts = RowCounts(read=1, kept=1, empty=0, no_span=0, repaired=0, respelled=0)
        write_file(folder, windows, pa.Table.from_pylist([row], schema=EXAMPLES_SCHEMA), counts, 0)
        files.append(open_file(folder))
    return WindowPool(files)


def _offsets(pool: WindowPool, window: int) -> list[tuple[int, int] | None]:
    """Character offsets of a window's tokens, None outside the context."""
    inside = np.arange(pool.context_begin[window], pool.context_end[window])
    chars = pool.span_chars(np.full(len(inside), window), inside, inside).tolist()
    found: list[tuple[int, int] | None] = [None] * int(pool.lengths[window])
    for i, (start, end) in zip(inside.tolist(), chars, strict=True):
        found[i] = (start, end)
    return found


def _reference(
    pool: WindowPool, start: np.ndarray, end: np.ndarray, windows: np.ndarray, examples: list[int], n_best: int, longest: int
) -> list[tuple[str, float]]:
    answers = []
    for example in examples:
        candidates = []
        for window in sorted(windows.tolist()):
            if pool.example_index[window] != example:
                continue
            row, offsets = windows.tolist().index(window), _offsets(pool, window)
            tokens = range(len(offsets))
            starts = sorted(tokens, key=lambda i: (-start[row, i], i))[:n_best]
            ends = sorted(tokens, key=lambda i: (-end[row, i], i))[:n_best]
            for s in starts:
                for e in ends:
                    if offsets[s] is None or offsets[e] is None or e < s or e - s + 1 > longest:
                        continue
                    candidates.append((-(start[row, s] + end[row, e]), window, s, e, (offsets[s][0], offsets[e][1])))
        if candidates:
            score, *_, (a, b) = min(candidates)
            answers.append((CONTEXTS[example][a:b], float(-score)))
        else:
            answers.append(("", 0.0))
    return answers


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 25), st.integers(1, 12), st.booleans())
def test_decoding_equals_the_reference(pool: WindowPool, seed: int, n_best: int, longest: int, ties: bool) -> None:
    generator = np.random.default_rng(seed)
    windows = generator.permutation(pool.num_windows)
    shape = (len(windows), int(pool.lengths.max()) + 3)
    start, end = generator.normal(size=(2, *shape)).astype(np.float32) * 4
    if ties:
        start, end = start.round(), end.round()
    examples = generator.permutation(4)
    found = decode(start, end, pool, windows, examples, n_best=n_best, max_answer_tokens=longest)
    assert found == _reference(pool, start, end, windows, examples.tolist(), n_best, longest)


def test_padding_and_batching_change_no_answer(pool: WindowPool) -> None:
    generator = np.random.default_rng(0)
    windows, examples = np.arange(pool.num_windows), np.arange(4)
    start, end = generator.normal(size=(2, pool.num_windows, int(pool.lengths.max()))).astype(np.float32)
    whole = decode(start, end, pool, windows, examples, n_best=20, max_answer_tokens=30)
    parts = []
    for w in windows.tolist()[::-1]:
        length = int(pool.lengths[w])
        logits = [np.pad(part[w : w + 1, :length], ((0, 0), (0, 7)), constant_values=99.0) for part in (start, end)]
        ranges = {"context_begin": pool.context_begin[[w]], "context_end": pool.context_end[[w]], "lengths": pool.lengths[[w]]}
        parts.append(best_spans(*logits, **ranges, n_best=20, max_answer_tokens=30))
    assert best_answers(Spans.joined(parts), pool, windows[::-1], examples) == whole


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_an_example_without_any_valid_span_gets_an_empty_answer(value: float, pool: WindowPool) -> None:
    logits = np.full((pool.num_windows, int(pool.lengths.max())), value, dtype=np.float32)
    found = decode(logits, logits, pool, np.arange(pool.num_windows), np.arange(4), n_best=20, max_answer_tokens=30)
    assert found == [("", 0.0)] * 4


def test_an_example_whose_windows_are_not_given_gets_an_empty_answer(pool: WindowPool) -> None:
    logits = np.zeros((1, int(pool.lengths[0])), dtype=np.float32)
    found = decode(logits, logits, pool, np.array([0]), np.array([1, 0]), n_best=20, max_answer_tokens=1)
    assert found == [("", 0.0), ("alpha", 0.0)]


def test_the_gold_span_decodes_to_the_answer(pool: WindowPool) -> None:
    windows, width = np.arange(pool.num_windows), int(pool.lengths.max())
    start, end = (np.eye(width, dtype=np.float32)[labels] * 9 for labels in (pool.starts, pool.ends))
    texts = [text for text, _ in decode(start, end, pool, windows, np.arange(4), n_best=20, max_answer_tokens=30)]
    assert texts == ["alpha", "torn", "the", "naïv"]  # characters 0 to 4, widened to the tokens they touch
