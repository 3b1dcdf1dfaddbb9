"""Finding trainables: a trainable is a folder here with its settings in `config.py` and its `train` in `train.py`.

`names` and `settings_of` are cheap; only `train_function` imports torch.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from trainables.config import ParentPoint, QAConfig
from trainables.contract import Train

__all__ = ["TrainableSettings", "names", "settings_of", "train_function"]


@dataclass(frozen=True)
class TrainableSettings:
    """What a trainable declares in its `config.py`."""

    name: str
    version: int
    config: type[QAConfig]
    metrics: tuple[str, ...]
    variants: dict[str, dict[str, Any]]
    parents_of: Callable[[QAConfig], tuple[ParentPoint, ...]]
    """The trials that one of this configuration begins from; ValueError: the configuration cannot be."""

    @property
    def model_keys(self) -> set[str]:
        """The settings of its model."""
        return set(type(self.config().model).model_fields)


def names() -> list[str]:
    """All trainables, sorted."""
    return list(_names())


@cache  # a plan asks for every one of its trials
def _names() -> tuple[str, ...]:
    return tuple(sorted(path.parent.name for path in Path(__file__).parent.glob("*/config.py")))


def settings_of(name: str) -> TrainableSettings:
    """The declarations of trainable `name`.

    Raises:
        ValueError: there is no such trainable.
    """
    known = _names()
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"trainable must be one of {', '.join(known)}, got {name!r}{hint}")
    module = importlib.import_module(f"trainables.{name}.config")
    parents_of = getattr(module, "parents_of", _no_parents)
    return TrainableSettings(name, module.VERSION, module.Config, module.METRICS, module.VARIANTS, parents_of)


def _no_parents(config: QAConfig) -> tuple[ParentPoint, ...]:
    return ()


def train_function(name: str) -> Train:
    """The `train` of trainable `name`. Imports torch."""
    settings_of(name)
    train: Train = importlib.import_module(f"trainables.{name}.train").train
    return train
