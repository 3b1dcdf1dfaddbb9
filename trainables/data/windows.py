"""Questions and contexts cut into overlapping windows of tokens, with the answer's place and what decoding needs.

Shapes: W windows, N tokens of all windows together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from trainables.data.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["WindowArrays", "check_questions", "make_windows"]

_EXAMPLES_AT_ONCE = 512


@dataclass(frozen=True, kw_only=True)
class WindowArrays:
    """All windows of a file, flat and without padding; window w holds tokens bounds[w]:bounds[w + 1].

    The windows of an example are consecutive, in the order of the context, and examples in the order of the file. Positions
    count tokens from the window's start. Where the answer is not (wholly) in a window, start = end = 0, which is [CLS].
    """

    input_ids: np.ndarray  # (N,) int32
    char_starts: np.ndarray  # (N,) int32, of context tokens: characters of the context, end exclusive; else 0
    char_ends: np.ndarray  # (N,) int32
    bounds: np.ndarray  # (W + 1,) int64
    starts: np.ndarray  # (W,) int32, first token of the answer
    ends: np.ndarray  # (W,) int32, last token of the answer, inclusive
    context_begin: np.ndarray  # (W,) int32, first token of the context
    context_end: np.ndarray  # (W,) int32, exclusive
    example_index: np.ndarray  # (W,) int32


def make_windows(
    tokenizer: PreTrainedTokenizerFast,
    questions: Sequence[str],
    contexts: Sequence[str],
    answer_chars: Sequence[tuple[int, int]],
    *,
    max_length: int,
    stride: int,
) -> WindowArrays:
    """Windows of every example: the whole question and, piece by piece, all of the context; nothing is lost.

    `answer_chars` are (start, end) in characters of the context, end exclusive. `max_length` counts question and special
    tokens; consecutive windows share `stride` context tokens, so an answer of up to `stride` tokens is whole in some window.
    Raises: DataError as `check_questions`.
    """
    check_questions(tokenizer, questions, max_length=max_length, stride=stride)
    parts = []
    for begin in range(0, len(questions), _EXAMPLES_AT_ONCE):
        these = slice(begin, begin + _EXAMPLES_AT_ONCE)
        encoded = tokenizer(
            list(questions[these]),
            list(contexts[these]),
            truncation="only_second",
            max_length=max_length,
            stride=stride,
            padding=False,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        parts.append(_flat(_windows_of(encoded, answer_chars, begin)))
    return _joined(parts)


def check_questions(tokenizer: PreTrainedTokenizerFast, questions: Sequence[str], *, max_length: int, stride: int) -> None:
    """Raises: DataError when a question leaves no room for `stride` + 1 context tokens: windows could not move on.

    Cutting the question would answer another question, so that is left to the user.
    """
    num_special = tokenizer.num_special_tokens_to_add(pair=True)
    allowed = max_length - num_special - stride - 1
    for begin in range(0, len(questions), _EXAMPLES_AT_ONCE):
        these = list(questions[begin : begin + _EXAMPLES_AT_ONCE])
        num_tokens = [len(ids) for ids in tokenizer(these, add_special_tokens=False, verbose=False)["input_ids"]]
        worst = int(np.argmax(num_tokens))
        if num_tokens[worst] > allowed:
            needed = num_tokens[worst] + num_special + stride + 1
            raise DataError(
                f"a question may have at most {allowed} tokens at max_length={max_length} and stride={stride}, got "
                f"{num_tokens[worst]} in row {begin + worst}: {these[worst][:80]!r}; "
                f"set max_length to at least {needed}, lower stride, or shorten the question"
            )


@dataclass(frozen=True, kw_only=True)
class _Window:
    input_ids: np.ndarray
    char_starts: np.ndarray
    char_ends: np.ndarray
    answer: tuple[int, int]
    context: tuple[int, int]
    example: int


def _windows_of(encoded: Any, answer_chars: Sequence[tuple[int, int]], first_example: int) -> list[_Window]:
    owners = encoded["overflow_to_sample_mapping"]
    windows = []
    for w, owner in enumerate(owners):
        context = _context_range(encoded.sequence_ids(w))
        chars = np.zeros((len(encoded["input_ids"][w]), 2), dtype=np.int32)
        chars[slice(*context)] = np.reshape(encoded["offset_mapping"][w][slice(*context)], (-1, 2))
        is_first = w == 0 or owners[w - 1] != owner
        is_last = w + 1 == len(owners) or owners[w + 1] != owner
        example = first_example + owner
        windows.append(
            _Window(
                input_ids=np.array(encoded["input_ids"][w], dtype=np.int32),
                char_starts=chars[:, 0],
                char_ends=chars[:, 1],
                answer=_answer_tokens(chars, context, answer_chars[example], is_first=is_first, is_last=is_last),
                context=context,
                example=example,
            )
        )
    return windows


def _context_range(sequence_ids: Sequence[int | None]) -> tuple[int, int]:
    if 1 not in sequence_ids:  # a context of which the tokenizer makes no token
        return len(sequence_ids), len(sequence_ids)
    begin = sequence_ids.index(1)
    return begin, begin + sequence_ids.count(1)


def _answer_tokens(
    chars: np.ndarray, context: tuple[int, int], answer: tuple[int, int], *, is_first: bool, is_last: bool
) -> tuple[int, int]:
    """First and last token that overlap the answer, or (0, 0) when the window does not hold all of them.

    Characters that a normaliser removes (a combining accent at either end of the text) belong to no token, hence the exemption
    of an example's outer edges.
    """
    begin, end = context
    if begin == end:
        return 0, 0
    starts, ends = chars[begin:end, 0], chars[begin:end, 1]
    if (starts[0] > answer[0] and not is_first) or (ends[-1] < answer[1] and not is_last):
        return 0, 0
    first = begin + int(np.searchsorted(ends, answer[0], side="right"))
    last = begin + int(np.searchsorted(starts, answer[1], side="left")) - 1
    return (first, last) if begin <= first <= last < end else (0, 0)


def _flat(windows: list[_Window]) -> WindowArrays:
    lengths = [len(window.input_ids) for window in windows]
    return WindowArrays(
        input_ids=np.concatenate([window.input_ids for window in windows]),
        char_starts=np.concatenate([window.char_starts for window in windows]),
        char_ends=np.concatenate([window.char_ends for window in windows]),
        bounds=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        starts=np.array([window.answer[0] for window in windows], dtype=np.int32),
        ends=np.array([window.answer[1] for window in windows], dtype=np.int32),
        context_begin=np.array([window.context[0] for window in windows], dtype=np.int32),
        context_end=np.array([window.context[1] for window in windows], dtype=np.int32),
        example_index=np.array([window.example for window in windows], dtype=np.int32),
    )


def _joined(parts: list[WindowArrays]) -> WindowArrays:
    arrays = {item.name: [getattr(part, item.name) for part in parts] for item in fields(WindowArrays)}
    lengths = [np.diff(bounds) for bounds in arrays.pop("bounds")]
    bounds = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    return WindowArrays(bounds=bounds, **{name: np.concatenate(pieces) for name, pieces in arrays.items()})
