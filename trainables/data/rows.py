"""The one form that every format is read into, before and after alignment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import datasets

from trainables.data.errors import DataError

__all__ = ["FEATURES", "UNKNOWN_START", "dataset_of", "field", "pair_answers", "quiet_progress", "raw_row"]

# SQuAD's features (https://huggingface.co/datasets/rajpurkar/squad), and two of ours: `gold`, every accepted answer for
# scoring, and `group`, what the source says belongs together ("" where it says nothing).
FEATURES = datasets.Features(
    {
        "id": datasets.Value("string"),
        "title": datasets.Value("string"),
        "context": datasets.Value("string"),
        "question": datasets.Value("string"),
        "answers": {"text": datasets.List(datasets.Value("string")), "answer_start": datasets.List(datasets.Value("int32"))},
        "gold": datasets.List(datasets.Value("string")),
        "group": datasets.Value("string"),
    }
)
UNKNOWN_START = -1  # in raw rows: the source gives no offset, alignment looks for the answer


def raw_row(
    *,
    question: Any,
    context: Any,
    answers: Iterable[tuple[Any, Any]],
    row_id: Any = "",
    title: Any = "",
    gold: Sequence[str] = (),
    group: Any = "",
) -> dict[str, Any]:
    """A row of `FEATURES` as a format states it, from (text, start) pairs; what is unknown is "" or `UNKNOWN_START`."""
    pairs = list(answers)
    return {
        "id": _text(row_id),
        "title": _text(title),
        "context": _text(context),
        "question": _text(question),
        "answers": {"text": [_text(text) for text, _ in pairs], "answer_start": [_start(start) for _, start in pairs]},
        "gold": [_text(text) for text in gold],
        "group": _text(group),
    }


def _text(value: Any) -> str:
    # A lone surrogate, legal in a JSON escape, has no UTF-8 form: one "?" for it leaves all offsets in place.
    return "" if value is None else str(value).encode("utf-8", "replace").decode("utf-8")


def _start(value: Any) -> int:
    try:
        start = int(float(value))  # "12" and 12.0 are what CSV readers make of 12
    except (TypeError, ValueError, OverflowError):
        return UNKNOWN_START
    return start if 0 <= start < 2**31 else UNKNOWN_START


def dataset_of(rows: Iterable[dict[str, Any]]) -> datasets.Dataset:
    """An in-memory dataset of raw rows."""
    return datasets.Dataset.from_list(list(rows), features=FEATURES)


def field(record: Any, name: str, where: str) -> Any:
    """`record[name]`. Raises: DataError naming the field, the place and the fields that are there."""
    if not isinstance(record, Mapping) or name not in record:
        there = sorted(map(str, record)) if isinstance(record, Mapping) else f"a {type(record).__name__}"
        raise DataError(f"{where}: no field {name!r}, got {there}; check that `format` is the file's, or add the field")
    return record[name]


def pair_answers(texts: Sequence[Any], starts: Sequence[Any] | None, where: str) -> list[tuple[Any, Any]]:
    """(text, start) pairs of SQuAD's parallel lists, or of texts alone. Raises: DataError when their lengths differ."""
    if not starts:
        return [(text, UNKNOWN_START) for text in texts]
    if len(starts) != len(texts):
        raise DataError(f"{where}: one answer_start per text is needed, got {len(starts)} for {len(texts)}; repair the row")
    return list(zip(texts, starts, strict=True))


@contextmanager
def quiet_progress() -> Iterator[None]:
    """Switches off the progress bars of `datasets`, which would write over the sweep's own display."""
    shown = not datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
