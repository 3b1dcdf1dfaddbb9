"""A nested state as one safetensors file: tensors as they are, all else as JSON in its header. Reading it runs no code of its.

`__metadata__` of the header holds `state`, the structure with a reference for each tensor, and `sha256`, the digest of the
whole file with zeros in the place of the digest. safetensors itself has no checksum: a flipped byte is another tensor.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

__all__ = ["fault_of", "read_state", "write_state", "write_tensors"]

_DIGEST = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_NO_DIGEST = "0" * 64
_LENGTH_BYTES = 8  # of the header, little endian: the format's first field
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_ERROR_NUMBER = re.compile(r"os error (\d+)")


def write_state(path: Path, state: Any) -> None:
    """Writes `state`: dicts, lists and tuples of tensors, arrays, numbers, texts, truth values and None.

    Raises:
        OSError: the file could not be written.
        TypeError: there is something else in it.
    """
    tensors: dict[str, torch.Tensor] = {}
    structure = json.dumps(_taken_apart(state, "", tensors), separators=(",", ":"))
    write_tensors(path, tensors, {"state": structure})


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Writes tensors by name, as any reader of safetensors takes them. Raises OSError."""
    try:
        save_file(_apart(tensors), path, metadata={**metadata, "sha256": _NO_DIGEST})
    except SafetensorError as error:  # the library's word for a failed write; a driver waits on the storage's own
        number = _ERROR_NUMBER.search(str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    with path.open("r+b") as file:
        place, digest, _ = _digests(file)
        file.seek(place)
        file.write(digest.encode())
        file.flush()
        os.fsync(file.fileno())


def read_state(path: Path, device: str) -> Any:
    """What `write_state` wrote, its tensors on `device`."""
    with safe_open(path, framework="pt") as file:
        structure = json.loads(file.metadata()["state"])
    return _put_together(structure, load_file(path, device=device))


def fault_of(path: Path) -> str | None:
    """What is wrong with a file, or None. Reads it once, at about 1 GB/s (SHA-256)."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= _LENGTH_BYTES:
                return f"has only {size} bytes"
            _, digest, written = _digests(file)
            return None if digest == written else "is torn or was changed: its checksum does not match"
    except OSError as error:
        return f"cannot be read: {error}"


def _digests(file: BinaryIO) -> tuple[int, str, str]:
    """Where the digest stands in a file, the file's own, and the one that stands there; the first is -1 where none does."""
    length = file.read(_LENGTH_BYTES)
    header = file.read(min(int.from_bytes(length, "little"), _MAX_HEADER_BYTES))
    found = _DIGEST.search(header)
    if found is None:
        return -1, "", "none"
    begin, end = found.span(1)
    digest = hashlib.sha256(length + header[:begin] + _NO_DIGEST.encode() + header[end:])
    while block := file.read(1 << 20):
        digest.update(block)
    return _LENGTH_BYTES + begin, digest.hexdigest(), found[1].decode()


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors with memory of their own each, which the format asks for: tied weights share theirs."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().contiguous()
        memory = plain.untyped_storage().data_ptr()
        apart[name] = plain.clone() if memory in seen else plain
        seen.add(memory)
    return apart


def _taken_apart(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """`value` as JSON; its tensors go to `tensors`, under names that say where they were."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, np.ndarray):  # the integers of a generator, of a type that torch lacks
        tensors[name] = torch.from_numpy(value.astype(np.int64))
        return {"array": name, "type": value.dtype.name}
    if isinstance(value, dict):
        return {
            "items": [[key, _taken_apart(each, f"{name}.{key}" if name else str(key), tensors)] for key, each in value.items()]
        }
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_taken_apart(each, f"{name}.{place}", tensors) for place, each in enumerate(value)]}
    raise TypeError(
        f"a checkpoint holds tensors, numbers, texts, and dicts and lists of them, got a {type(value).__name__} in {name}"
    )


def _put_together(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "array" in value:
        return tensors[value["array"]].cpu().numpy().astype(value["type"])
    if "items" in value:
        return {key: _put_together(each, tensors) for key, each in value["items"]}
    parts = [_put_together(each, tensors) for each in value.get("list", value.get("tuple"))]
    return parts if "list" in value else tuple(parts)
