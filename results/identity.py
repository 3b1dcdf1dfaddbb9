"""What makes a trial that trial: its key, from everything that decides its result and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["canonical_json", "trial_key"]


def canonical_json(value: Any) -> str:
    """`value` as JSON with one spelling: sorted keys, no spaces, no NaN.

    Raises:
        TypeError: something in it is not plain data; a lenient fallback would fork keys silently.
        ValueError: a number is not finite.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def trial_key(
    trainable: str, version: int, config: Mapping[str, Any], data_fingerprint: str, seed: int, parents: Iterable[str]
) -> str:
    """First 16 hex digits of the SHA-256 over the canonical JSON of all six; the order of the parents does not count.

    `config` is fully resolved plain data, so that the key is the same on every machine and can be checked from the ledger.
    """
    identity = {
        "trainable": trainable,
        "version": version,
        "config": config,
        "data": data_fingerprint,
        "seed": seed,
        "parents": sorted(parents),
    }
    return hashlib.sha256(canonical_json(identity).encode()).hexdigest()[:16]
