"""Settings of a trial that trains nothing."""

from __future__ import annotations

from typing import Any

from trainables.config import QAConfig

VERSION = 1

METRICS = ("train_qa_loss",)

VARIANTS: dict[str, dict[str, Any]] = {}

Config = QAConfig
