"""What a compaction reads: the rows of parts and compacted files in the order in which they are written, a part at a time."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from results.checksum import Checksum
from results.compacted import PART_COLUMN, UNREADABLE, compacted_path, compacted_schema, means_damage
from results.scan import conform, decode
from results.storage import PartInfo, Storage

__all__ = ["OwnParts", "Piece", "Stamp", "file_pieces", "merge", "stamp_of"]

Stamp = tuple[int, int, int]
"""Inode, modification time in nanoseconds, size: another one after a part was replaced."""

_BLOCK_BYTES = 64 * 1024**2
_BLOCK_PARTS = 1000
_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Piece:
    """Rows of one part, which may go on in the next piece."""

    order: tuple[str, str]
    """Sweep and part: a sweep's parts lie together, within it a trial's."""
    rows: pa.Table


def merge(sources: Iterable[Iterator[Piece]]) -> Iterator[Piece]:
    """All pieces in order, each source read as it is needed."""
    return heapq.merge(*sources, key=lambda piece: piece.order)


@dataclass
class OwnParts:
    """Reads parts that are files of their own, and remembers what it read and what it could not."""

    table: str
    checksum: Checksum
    stamps: dict[str, Stamp] = field(default_factory=dict)
    """Path to stamp of each part that was read."""
    left: dict[str, str] = field(default_factory=dict)
    """Path to reason of each part that cannot be read, and so stays as it is."""

    def pieces(self, parts: Iterable[PartInfo], sweep_of: Mapping[str, str]) -> Iterator[Piece]:
        """The parts' rows in order. Raises NewerSchemaError."""
        ordered = sorted(parts, key=lambda part: (sweep_of.get(part.name, ""), part.name))
        block: list[Piece] = []
        num_bytes = 0
        for part in ordered:
            rows = self._read(part)
            if rows is None:
                continue
            block.append(Piece((sweep_of.get(part.name, ""), part.name), rows))
            num_bytes += rows.nbytes
            if len(block) == _BLOCK_PARTS or num_bytes > _BLOCK_BYTES:
                yield from self._counted(block)
                block, num_bytes = [], 0
        yield from self._counted(block)

    def unreadable(self, parts: Iterable[PartInfo]) -> set[str]:
        """The names of those that cannot be read; from then on they are in `left`."""
        return {part.name for part in parts if self._read(part) is None}

    def _counted(self, block: list[Piece]) -> list[Piece]:
        if block:
            self.checksum.add_rows(pa.concat_tables([piece.rows for piece in block]))
        return block

    def _read(self, part: PartInfo) -> pa.Table | None:
        try:
            with Path(part.path).open("rb") as file:
                stamp, content = stamp_of(os.fstat(file.fileno())), file.read()
            rows = decode(part, pa.py_buffer(content))
        except UNREADABLE as error:
            if not means_damage(error):
                raise
            self.left[part.path] = " ".join(str(error).split())
            return None
        self.stamps[part.path] = stamp
        return rows.append_column(PART_COLUMN, pa.repeat(pa.scalar(part.name), rows.num_rows))


def file_pieces(
    place: Storage, table: str, file: str, *, sweep_of: Mapping[str, str], counts: Callable[[str], bool]
) -> Iterator[Piece]:
    """The rows of a compacted file, of those parts that `counts` is true for."""
    with pq.ParquetFile(compacted_path(place, table, file), page_checksum_verification=True) as source:
        for batch in source.iter_batches(_BATCH_ROWS, use_threads=False):
            rows = conform(pa.Table.from_batches([batch]), compacted_schema(table))
            for part, first, end in _runs(rows[PART_COLUMN]):
                if counts(part):
                    yield Piece((sweep_of.get(part, ""), part), rows.slice(first, end - first))


def _runs(parts: pa.ChunkedArray) -> Iterator[tuple[str, int, int]]:
    """Each stretch of equal values: the value, its first row, the row after its last."""
    runs = pc.run_end_encode(parts.combine_chunks())
    ends = runs.run_ends.to_pylist()
    yield from zip(runs.values.to_pylist(), [0, *ends], ends, strict=False)


def stamp_of(found: os.stat_result) -> Stamp:
    """The stamp of a file."""
    return found.st_ino, found.st_mtime_ns, found.st_size
