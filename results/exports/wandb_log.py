"""The file format of an offline W&B run: LevelDB's record log behind a header of W&B's own.

Sources: https://github.com/google/leveldb/blob/main/doc/log_format.md; header and checksum as wandb 0.31 writes and reads
them (a plain CRC-32 over type and content, where LevelDB has a masked CRC-32C).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator

__all__ = ["encode_log"]

_FILE_HEADER = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
_BLOCK = 32 * 1024
_RECORD_HEADER = struct.Struct("<IHB")
"""Checksum, number of bytes, type."""
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def encode_log(records: Iterable[bytes]) -> bytes:
    """The file that holds these records."""
    log = bytearray(_FILE_HEADER)
    for record in records:
        for kind, content in _chunks(record, len(log)):
            room = _BLOCK - len(log) % _BLOCK
            if room < _RECORD_HEADER.size:
                log += bytes(room)
            log += _RECORD_HEADER.pack(zlib.crc32(content, zlib.crc32(bytes([kind]))), len(content), kind) + content
    return bytes(log)


def _chunks(record: bytes, position: int) -> Iterator[tuple[int, bytes]]:
    """The record in pieces that each lie in one block, and each one's type; `position` is where the first begins."""
    room = _BLOCK - position % _BLOCK
    if room < _RECORD_HEADER.size:
        room = _BLOCK  # the rest of the block is filled with zeros
    first = record[: room - _RECORD_HEADER.size]
    pieces = [first]
    whole = _BLOCK - _RECORD_HEADER.size
    pieces += [record[start : start + whole] for start in range(len(first), len(record), whole)]
    if len(pieces) == 1:
        yield _FULL, first
        return
    for index, piece in enumerate(pieces):
        yield (_FIRST if index == 0 else _LAST if index == len(pieces) - 1 else _MIDDLE), piece
