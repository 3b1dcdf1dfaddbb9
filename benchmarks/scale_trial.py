"""A training of a given length that does nothing but wait and report, the same for both sides of the scale benchmark.

As in Ray's own scalability tests (release/tune_tests/scalability_tests): the reports of a trial are equally far apart.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainables.contract import Report

__all__ = ["REPORTS", "SECONDS", "STAMPS", "train", "waits"]

SECONDS, REPORTS, STAMPS = "SCALE_SECONDS", "SCALE_REPORTS", "SCALE_STAMPS"
"""Environment variables: how long a trial takes, how many reports it makes, a file that gets a line with the time of each."""


def waits() -> Iterator[float]:
    """The share of the trial that is over at each of its reports."""
    seconds, reports = float(os.environ[SECONDS]), int(os.environ[REPORTS])
    for number in range(1, reports + 1):
        time.sleep(seconds / reports)
        with Path(os.environ[STAMPS]).open("a", encoding="ascii") as stamps:
            stamps.write(f"{time.time()}\n")
        yield number / reports


def train(config: Any, context: Any) -> Iterator[Report]:
    """The trial as a trainable of ours."""
    from trainables.contract import Report
    from trainables.distilbert.config import METRICS

    for step, share in enumerate(waits(), 1):
        metrics = {name: 1.0 - share / 2 if name == "train_qa_loss" else None for name in METRICS}
        yield Report(
            step=step, epoch=share, samples_seen=step, metrics=metrics, params_total=1, params_active=1, params_trainable=1
        )
