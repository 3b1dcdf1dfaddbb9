"""One prepared file on disk: flat arrays of windows and a table of examples, memory-mapped by every trial that reads it.

`<folder>/<array>.npy` for each array of WindowArrays, `examples.arrow`, and `counts.json` last.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from trainables.data.counts import RowCounts
from trainables.data.splits import RowKeys
from trainables.data.windows import WindowArrays

__all__ = ["EXAMPLES_SCHEMA", "PreparedFile", "open_file", "write_file"]

EXAMPLES_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "question": pa.string(),
        "context": pa.string(),
        "answer": pa.string(),  # the answer trained on: context[answer_start : answer_start + len(answer)]
        "answer_start": pa.int32(),
        "gold": pa.list_(pa.string()),
        "group": pa.string(),
        "question_key": pa.string(),
        "context_key": pa.string(),
    }
)
_EXAMPLES, _COUNTS = "examples.arrow", "counts.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedFile:
    """An opened prepared file; arrays and table read from the mapped pages, nothing is copied. Equal is only the same one."""

    windows: WindowArrays
    examples: pa.Table
    counts: RowCounts
    pad_id: int

    @cached_property
    def keys(self) -> RowKeys:
        """What splitting looks at."""
        return RowKeys(group=self._column("group"), question=self._column("question_key"), context=self._column("context_key"))

    def _column(self, name: str) -> list[str]:
        values: list[str] = self.examples.column(name).to_pylist()
        return values


def write_file(folder: Path, windows: WindowArrays, examples: pa.Table, counts: RowCounts, pad_id: int) -> None:
    """Writes a prepared file into an existing, empty folder; the caller renames it into place."""
    for item in fields(WindowArrays):
        np.save(folder / f"{item.name}.npy", getattr(windows, item.name), allow_pickle=False)
    with pa.OSFile(str(folder / _EXAMPLES), "wb") as sink, pa.ipc.new_file(sink, EXAMPLES_SCHEMA) as writer:
        writer.write_table(examples)
    summary = {"rows": counts.to_json(), "windows": len(windows.starts), "pad_id": pad_id}
    (folder / _COUNTS).write_text(json.dumps(summary, indent=1, ensure_ascii=False), encoding="utf-8")


@cache
def open_file(folder: Path) -> PreparedFile:
    """The prepared file in `folder`, mapped once per process: later trials of a warm worker find its pages and keys ready."""
    summary = json.loads((folder / _COUNTS).read_text(encoding="utf-8"))
    return PreparedFile(
        windows=WindowArrays(**{item.name: _mapped(folder / f"{item.name}.npy") for item in fields(WindowArrays)}),
        examples=pa.ipc.open_file(pa.memory_map(str(folder / _EXAMPLES))).read_all(),
        counts=RowCounts(**summary["rows"]),
        pad_id=summary["pad_id"],
    )


def _mapped(path: Path) -> np.ndarray:
    # The plain ndarray view reads the same pages; slicing an np.memmap costs several times as much.
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    return array
