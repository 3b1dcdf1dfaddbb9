"""What a trainable and whoever drives it agree on: reports out, a context in, and nothing about scheduling.

A trainable is a generator `train(config, context) -> Iterator[Report]`. It never learns whether Ray or a `for` loop is
listening; the driver decides after each report whether to ask for the next one. Closing the generator early is normal.

What is handed over is the driver's to keep: the checkpoint that follows a report is written when the next one is asked for, so
that no report can be in a checkpoint's past and yet unrecorded. A trial killed at any instant repeats its last few reports.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from trainables.config import QAConfig
from trainables.data.spec import DataSpec

__all__ = [
    "DivergedError",
    "Evaluation",
    "ExpertLoad",
    "Interrupted",
    "Parent",
    "Prediction",
    "Report",
    "Train",
    "TrialContext",
    "never",
    "write_once",
]


class Interrupted(Exception):
    """Raised by a trainable that was asked to stop, once its checkpoint is complete."""


class DivergedError(ArithmeticError):
    """A loss or gradient is not finite. Says which, at which step, and what to try; no checkpoint has that state."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of one domain's split at one report.

    Shares and rates are percentages in [0, 100]; `qa_loss` is the mean over windows of (CE_start + CE_end) / 2, in nats.
    """

    split: Literal["val", "test"]
    domain: str
    examples: int
    qa_loss: float
    em: float  # exact match after SQuAD's normalisation, maximum over golds
    f1: float
    em_raw: float  # exact match of the bare strings (papers: document A, Table 1 counts "a torn ACL" as a difference)
    contains_gold: float  # the normalised prediction contains a normalised gold answer as whole words
    mean_answer_tokens: float  # whitespace tokens of the prediction


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the finished model answers for one test example; `em` and `f1` are in [0, 1]."""

    domain: str
    example_id: str
    group_id: str  # the same for examples that the split keeps together, such as questions about one context
    question: str
    gold: tuple[str, ...]
    prediction: str
    score: float  # sum of the start and end logits of the answer taken
    em: float
    f1: float
    gate_weights: tuple[float, ...] | None = None  # of an ensemble: each expert's, mean over the example's windows


@dataclass(frozen=True, kw_only=True)
class ExpertLoad:
    """How one expert of one mixture-of-experts layer was used over one domain's validation or test split.

    Over the experts of a layer `load_share` sums to 1 (assignments before any capacity limit), and `mean_gate` sums to 1.
    """

    split: Literal["val", "test"]
    domain: str
    layer: int  # 0-based, in the order of the forward pass
    expert: int
    load_share: float
    mean_gate: float  # mean softmax probability over real tokens
    dropped_share: float  # of the assignments to this expert, the share that found no room


@dataclass(frozen=True, kw_only=True)
class Report:
    """One measurement of a trial.

    `metrics` holds exactly the names that the trainable declares in `METRICS`; a value is None where it was not measured at
    this report (validation loss between two validations).
    """

    step: int  # optimiser steps done, strictly increasing
    epoch: float  # passes over the mixture, fractional between epoch ends
    samples_seen: int  # training windows, repeats counted
    metrics: Mapping[str, float | None]
    evaluations: tuple[Evaluation, ...] = ()
    expert_loads: tuple[ExpertLoad, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    params_total: int
    params_active: int  # that one token's pass uses: of expert layers the chosen experts alone
    params_trainable: int


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A completed trial that another one begins from."""

    key: str
    trainable: str
    config: QAConfig
    weights: Path  # its final weights, a safetensors file by the names of its model's state


def never() -> bool:
    """Nobody asks the trial to stop."""
    return False


def write_once(write: Callable[[], Path]) -> Path:
    """Performs a write; a failure is the trial's."""
    return write()


@dataclass(frozen=True, kw_only=True)
class TrialContext:
    """All that a trial may use of the world around it. What has a default changes no result but by float rounding."""

    seed: int
    data: DataSpec
    device: str  # "cpu" or "cuda[:n]"
    num_threads: int  # torch threads; fixed by the trial's CPUs, so that a result does not depend on the machine's load
    checkpoint_dir: Path  # the trial's own; the newest complete checkpoint in it is where a new attempt begins
    prepared_dir: Path  # root of the content-addressed prepared features
    parents: tuple[Parent, ...] = ()  # in the order in which the trainable's `parents_of` names them
    checkpoint_seconds: float = 30.0  # least time between two checkpoints, more where they take long; 0 = after every report
    resume_step: int | None = None  # begin from no later checkpoint than this step's; None: from the newest
    micro_batches: int = 1  # parts in which each batch goes through the model, gradients added up; at most its windows
    stop_requested: Callable[[], bool] = never  # asked before every step; true: write a checkpoint and raise Interrupted
    persist: Callable[[Callable[[], Path]], Path] = write_once
    """Performs a write of a checkpoint. A driver's may first see to it that all reports handed over are kept, and wait and call
    again after an OSError: the storage is full or away."""
    warn: Callable[[str], None] = logging.getLogger("trainables").warning  # told what went wrong and was got round

    def __post_init__(self) -> None:
        if self.micro_batches < 1:
            raise ValueError(f"micro_batches must be at least 1, got {self.micro_batches}")


class Train(Protocol):
    """The signature of every trainable's `train`."""

    def __call__(self, config: QAConfig, context: TrialContext) -> Iterator[Report]: ...
