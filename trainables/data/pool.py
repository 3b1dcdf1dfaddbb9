"""The examples and windows of several prepared files under one numbering, and batches made of them.

A trial reads two domains of up to two files each; with global indices neither training nor evaluation needs to know.
Shapes: E examples and W windows of all files, B windows in a batch, T tokens of its longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from trainables.data.store import PreparedFile

__all__ = ["Example", "WindowPool"]


@dataclass(frozen=True, kw_only=True)
class Example:
    """One question; `answer` is the span trained on, `gold` all accepted answers, that one first."""

    id: str
    question: str
    context: str
    answer: str
    answer_start: int
    gold: tuple[str, ...]
    group: str


class WindowPool:
    """Prepared files one after another: example and window indices count through all of them.

    Per-window arrays (W,) int64, also for reading: `lengths` in tokens, `starts` and `ends` of the answer (both 0: not in the
    window), `context_begin` and `context_end` (exclusive), and `example_index`.
    """

    def __init__(self, files: Sequence[PreparedFile]) -> None:
        self._files = list(files)
        self._example_offsets = _offsets([file.examples.num_rows for file in files])
        self._window_offsets = _offsets([len(file.windows.starts) for file in files])
        self.lengths = np.concatenate([np.diff(file.windows.bounds) for file in files])
        self.starts = self._joined("starts")
        self.ends = self._joined("ends")
        self.context_begin = self._joined("context_begin")
        self.context_end = self._joined("context_end")
        shifts = np.repeat(self._example_offsets[:-1], np.diff(self._window_offsets))
        self.example_index = self._joined("example_index") + shifts
        self._first_window = np.searchsorted(self.example_index, np.arange(self.num_examples + 1))
        self._file_of_window = np.repeat(np.arange(len(files)), np.diff(self._window_offsets)).tolist()
        self._token_begin = np.concatenate([file.windows.bounds[:-1] for file in files])

    def _joined(self, name: str) -> np.ndarray:
        return np.concatenate([getattr(file.windows, name) for file in self._files]).astype(np.int64)

    @property
    def num_examples(self) -> int:
        """E."""
        return int(self._example_offsets[-1])

    @property
    def num_windows(self) -> int:
        """W."""
        return int(self._window_offsets[-1])

    def examples_of_file(self, index: int) -> np.ndarray:
        """Global indices (int64) of the examples of the file that was given at `index`."""
        return np.arange(self._example_offsets[index], self._example_offsets[index + 1], dtype=np.int64)

    def windows_of(self, examples: np.ndarray) -> np.ndarray:
        """The windows (int64) of `examples`, example after example in the order given."""
        first = self._first_window[examples]
        counts = self._first_window[np.asarray(examples) + 1] - first
        ends = np.cumsum(counts)
        windows: np.ndarray = np.arange(int(counts.sum()), dtype=np.int64) + np.repeat(first - ends + counts, counts)
        return windows

    def example(self, index: int) -> Example:
        """One example's text and answers."""
        file, row = self._locate_example(int(index))
        values: dict[str, Any] = file.examples.slice(row, 1).to_pylist()[0]
        gold = tuple(values["gold"])
        return Example(gold=gold, **{name: values[name] for name in Example.__dataclass_fields__ if name != "gold"})

    def column(self, name: str, examples: Sequence[int] | np.ndarray) -> list[Any]:
        """One column of the examples' table ("id", "question", "context", "gold", "group", ...) for `examples`."""
        indices = np.asarray(examples, dtype=np.int64)
        values: list[Any] = [None] * len(indices)
        for number, file in enumerate(self._files):
            begin, end = self._example_offsets[number : number + 2]
            here = np.flatnonzero((indices >= begin) & (indices < end))
            found = file.examples.column(name).take(_arrow(indices[here] - begin)).to_pylist()
            for place, value in zip(here.tolist(), found, strict=True):
                values[place] = value
        return values

    def input_ids(self, window: int) -> np.ndarray:
        """One window's tokens (length,) int32, from the mapped pages."""
        begin = self._token_begin[window]
        ids: np.ndarray = self._files[self._file_of_window[window]].windows.input_ids[begin : begin + self.lengths[window]]
        return ids

    def collate(self, windows: np.ndarray, *, pad_id: int) -> dict[str, np.ndarray]:
        """A batch padded on the right to its longest window: int64 input_ids and attention_mask (B, T), the latter 1 on tokens,
        and start_positions and end_positions (B,).
        """
        lengths = self.lengths[windows]
        input_ids = np.full((len(windows), int(lengths.max())), pad_id, dtype=np.int64)
        for row, window in zip(input_ids, windows.tolist(), strict=True):
            ids = self.input_ids(window)
            row[: len(ids)] = ids
        return {
            "input_ids": input_ids,
            "attention_mask": (np.arange(input_ids.shape[1]) < lengths[:, None]).astype(np.int64),
            "start_positions": self.starts[windows],
            "end_positions": self.ends[windows],
        }

    def span_chars(self, windows: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Characters of the context, (len(windows), 2) int64, end exclusive, of tokens `starts` to `ends` of each window."""
        chars = np.zeros((len(windows), 2), dtype=np.int64)
        for row, (window, start, end) in enumerate(zip(windows.tolist(), starts.tolist(), ends.tolist(), strict=True)):
            arrays = self._files[self._file_of_window[window]].windows
            begin = self._token_begin[window]
            chars[row] = arrays.char_starts[begin + start], arrays.char_ends[begin + end]
        return chars

    def _locate_example(self, index: int) -> tuple[PreparedFile, int]:
        file = int(np.searchsorted(self._example_offsets, index, side="right")) - 1
        return self._files[file], index - int(self._example_offsets[file])


def _offsets(sizes: Sequence[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _arrow(indices: np.ndarray) -> pa.Array:
    """int64 indices for Arrow. `pa.array` would import pandas, which takes as long as opening all the rest."""
    return pa.Array.from_buffers(pa.int64(), len(indices), [None, pa.py_buffer(np.ascontiguousarray(indices))])
