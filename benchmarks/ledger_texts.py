"""Texts for the synthetic sweeps: errors, test examples and answers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

__all__ = ["ERROR", "EXAMPLES", "SIGNATURES", "answers", "example_columns"]

EXAMPLES = 12
"""Test examples of each domain."""

SIGNATURES = {f"{0xA1B2C300 + i:08x}": kind for i, kind in enumerate(["oom", "diverged", "data", "code", "timeout", "oom"])}
"""Error signature to failure class."""

ERROR = 'Traceback (most recent call last):\n  File "train.py", line 88, in train\nRuntimeError: signature {}'

_WRONG = 200
"""Different wrong answers to one example."""


def example_columns(domains: tuple[str, str]) -> dict[str, pa.Array]:
    """domain, example_id, question and gold, one row an example, the first domain's examples first."""
    numbers = [(domain, i) for domain in domains for i in range(EXAMPLES)]
    return {
        "domain": pa.array([domain for domain, _ in numbers]),
        "example_id": pa.array([f"{domain}-{i}" for domain, i in numbers]),
        "question": pa.array(
            [f"Which of the findings of study {i} in {domain} was confirmed by a later one?" for domain, i in numbers]
        ),
        "gold": pa.array([[f"finding {i}", f"the finding {i}"] for _, i in numbers]),
    }


def answers(example: np.ndarray, is_right: np.ndarray, rng: np.random.Generator) -> pa.Array:
    """The gold answer where it is right, else one of the wrong ones, of 1 to 6 words."""
    texts = [f"finding {i % EXAMPLES}" for i in range(2 * EXAMPLES)]
    wrong = [" ".join(f"word{(7 * i + j) % 97}" for j in range(1 + i % 6)) + f" {i}" for i in range(_WRONG)]
    chosen = np.where(is_right, example, 2 * EXAMPLES + rng.integers(0, _WRONG, len(example)))
    return pa.array([*texts, *wrong]).take(pa.array(chosen))
