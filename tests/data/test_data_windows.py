"""Windows hold the whole question and all of the context, and mark the answer where it is."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainables.data.errors import DataError
from trainables.data.windows import WindowArrays, make_windows

WORD = st.sampled_from(
    ["river", "city", "king", "alpha", "betas", "zzz", "(", "🧬", "cafe\u0301", "İ", "的", ",", "\u200b", "x1"]
)
TEXT = st.lists(WORD, min_size=1, max_size=40).map(" ".join)


def _windows(tokenizer: Any, question: str, context: str, answer: str, **more: int) -> WindowArrays:
    start = context.index(answer)
    asked = {"max_length": 24, "stride": 6, **more}
    return make_windows(tokenizer, [question], [context], [(start, start + len(answer))], **asked)


def _text(windows: WindowArrays, w: int, context: str) -> str:
    begin = windows.bounds[w]
    return context[windows.char_starts[begin + windows.starts[w]] : windows.char_ends[begin + windows.ends[w]]]


@pytest.mark.parametrize("question", ["who built it?", "  who built it ?", ""])
@pytest.mark.parametrize("answer", ["king 1", "great lake", "the river", "protein."])
def test_every_window_with_the_answer_decodes_to_it(question: str, answer: str, tokenizer: Any) -> None:
    context = "the river stands near the old city. " * 4 + "king 1 built the great lake " + "by the protein. " * 5
    windows = _windows(tokenizer, question, context, answer)
    labelled = np.flatnonzero(windows.ends)
    assert len(labelled) >= 1
    assert {_text(windows, w, context) for w in labelled} == {answer}
    assert (windows.starts[windows.ends == 0] == 0).all()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.data(), TEXT, TEXT, st.integers(0, 7))
def test_nothing_is_lost(tokenizer: Any, data: Any, question: str, context: str, stride: int) -> None:
    question = question[:20]
    answer_start = data.draw(st.integers(0, len(context) - 1))
    answer_end = data.draw(st.integers(answer_start + 1, len(context)))
    windows = make_windows(tokenizer, [question], [context], [(answer_start, answer_end)], max_length=40, stride=stride)
    whole = tokenizer(context, add_special_tokens=False, return_offsets_mapping=True)
    head = tokenizer(question, add_special_tokens=False)["input_ids"]
    seen, step = [], None
    for w, (begin, end) in enumerate(zip(windows.bounds, windows.bounds[1:], strict=False)):
        ids = windows.input_ids[begin:end].tolist()
        assert len(ids) <= 40 and ids[: len(head) + 2] == [2, *head, 3]
        first, last = windows.context_begin[w], windows.context_end[w]
        tokens = ids[first:last]
        seen += tokens if w == 0 else tokens[stride:]
        step = step or last - first - stride
        offsets = list(zip(windows.char_starts[begin:end], windows.char_ends[begin:end], strict=True))[first:last]
        assert offsets == whole["offset_mapping"][w * step : w * step + last - first]
    assert seen == whole["input_ids"]
    _check_labels(windows, whole["offset_mapping"], (answer_start, answer_end), step, stride)


def _check_labels(
    windows: WindowArrays, offsets: list[tuple[int, int]], answer: tuple[int, int], step: int, stride: int
) -> None:
    """Labels are the context tokens that overlap the answer, in exactly the windows that hold all of them."""
    inside = [i for i, (start, end) in enumerate(offsets) if start < answer[1] and end > answer[0]]
    for w in range(len(windows.starts)):
        begin, end = windows.context_begin[w], windows.context_end[w]
        holds = bool(inside) and w * step <= inside[0] and inside[-1] < w * step + end - begin
        if windows.ends[w]:
            found = (windows.starts[w] - begin + w * step, windows.ends[w] - begin + w * step)
            assert holds and found == (inside[0], inside[-1])
    if inside and len(inside) <= stride:
        assert windows.ends.any()


def test_examples_keep_their_order_across_batches(tokenizer: Any) -> None:
    contexts = [f"the river {'stands ' * (i % 40)} alpha" for i in range(1100)]
    chars = [(len(context) - 5, len(context)) for context in contexts]
    windows = make_windows(tokenizer, ["who?"] * 1100, contexts, chars, max_length=24, stride=6)
    assert (np.diff(windows.example_index) >= 0).all()
    assert set(windows.example_index.tolist()) == set(range(1100))
    labelled = np.flatnonzero(windows.ends)
    assert {_text(windows, w, contexts[windows.example_index[w]]) for w in labelled} == {"alpha"}
    assert set(windows.example_index[labelled].tolist()) == set(range(1100))


def test_a_question_that_leaves_no_room_is_refused_with_what_would_fit(tokenizer: Any) -> None:
    # room at max_length 24, stride 6: 24 - 3 special tokens - 6 - 1 = 14 tokens
    assert len(_windows(tokenizer, "alpha " * 14, "the old city " * 9, "city").starts) > 1
    with pytest.raises(
        DataError, match=r"at most 14 tokens at max_length=24 and stride=6, got 15 in row 0: .* at least 25, lower"
    ):
        _windows(tokenizer, "alpha " * 15, "the old city", "city")
    with pytest.raises(DataError, match="got 600 in row 1"):
        make_windows(tokenizer, ["who?", "alpha " * 600], ["city", "city"], [(0, 4), (0, 4)], max_length=24, stride=6)


def test_a_context_without_any_token_gives_an_unlabelled_window(tokenizer: Any) -> None:
    windows = make_windows(tokenizer, ["who?"], ["\u200b"], [(0, 1)], max_length=24, stride=6)
    assert (windows.starts.tolist(), windows.ends.tolist()) == ([0], [0])
    assert windows.context_begin[0] == windows.context_end[0]


def test_a_combining_accent_at_the_edge_of_the_context_is_inside(tokenizer: Any) -> None:
    context = "the cafe\u0301"
    windows = _windows(tokenizer, "where?", context, "cafe\u0301")
    assert windows.ends[0] > 0
    assert _text(windows, 0, context).startswith("cafe")
