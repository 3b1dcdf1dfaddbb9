"""The settings that decide a trial's result, shared by all trainables. Importing this is cheap: pydantic, no torch.

Each field states its range and, where it has one, its source. Everything here enters the trial key; nothing that leaves the
result alone (storage, concurrency, checkpoint interval) belongs here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

__all__ = [
    "ADDED_LATER",
    "EvaluationConfig",
    "MixtureConfig",
    "ModelSettings",
    "ParentPoint",
    "QAConfig",
    "Settings",
    "Share",
    "TrainingConfig",
    "mixed_parent",
]

ADDED_LATER: Mapping[str, Any] = {
    "evaluation.validate_at": "epoch",
    "training.warmup_share": 0.0,
    "model.dense_block": False,
    "model.expert_dropout": 0.0,
    "model.reinit_k": 0,
    "model.start_from": "base",
    "model.gate_data": "mixture",
    "model.expert_epochs": None,
    "mixture.examples": [],
    "training.select": "last",
}
"""Settings that the first recorded trials did not have yet, by dotted name, each with its default: what was done before.

At that value they stay out of `QAConfig.resolved`, so that those trials keep their keys.
"""


class Settings(BaseModel):
    """Frozen, validated settings; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True)
class ParentPoint:
    """Which trial another one begins from: of the same sweep's settings and seed, but with what is given here."""

    trainable: str
    share: int  # percent of the first domain, or of the first group of domains
    examples: tuple[int, ...] = ()  # of each domain, where there are more than two
    order: Literal["concatenated", "shuffled"] = "shuffled"
    model: Mapping[str, Any] = field(default_factory=dict)  # settings that win over the sweep's
    training: Mapping[str, Any] = field(default_factory=dict)  # and these


class ModelSettings(Settings):
    """Base of every trainable's own settings of its model."""

    @property
    def least_blocks(self) -> int:
        """Transformer blocks that there must be, where the settings leave their number to the encoder."""
        return 1


MIXED_SHARE = 60
"""Of the mixed-domain trial that `start_from: mixed` begins from: of the paper's mixtures the one nearest to even."""


def mixed_parent(trainable: str, model: ModelSettings) -> tuple[ParentPoint, ...]:
    """What a model with `start_from: mixed` begins from: itself, trained on the mixture (papers: document D, section 3.4)."""
    settings = model.model_dump()
    if settings["start_from"] == "base":
        return ()
    return (ParentPoint(trainable=trainable, share=MIXED_SHARE, model={**settings, "start_from": "base"}),)


def _no_ratio(value: Any) -> Any:
    if ratio := re.fullmatch(r"(\d+)[:/]\d+", str(value)):
        raise ValueError(f"shares are the percent of the first domain, or group of domains; for {value} write {ratio[1]}")
    return value


Share = Annotated[int, BeforeValidator(_no_ratio)]
"""Percent of the examples that come from the first domain, or first group of domains."""


class MixtureConfig(Settings):
    """Which examples a trial trains on, and in which order (papers: document A, section 2.2.2)."""

    share: Share = Field(
        80, ge=0, le=100, description="percent of the examples that come from the first domain, or first group of domains"
    )
    size: int = Field(4000, ge=1, description="examples in the mixture, counted before overflowing into windows")
    examples: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (), description="examples of each domain, `size` in all, where there are more than two domains; none: share decides"
    )
    order: Literal["concatenated", "shuffled"] = Field(
        "shuffled",
        description="concatenated: all of the first domain, then all of the next; shuffled: one permutation of all",
    )
    sampler: Literal["as_ordered", "paper"] = Field(
        "as_ordered",
        description="as_ordered: concatenated mixtures are read in sequence every epoch, shuffled ones reshuffled every epoch; "
        "paper: both are reshuffled every epoch, as the paper's Trainer did",
    )
    seed: int = Field(0, ge=0, description="decides splits and which examples are sampled; apart from the trial's own seed")
    validation_share: float = Field(0.1, gt=0, lt=0.5, description="share of a domain's groups held out for validation")
    test_share: float = Field(
        0.1, gt=0, lt=0.5, description="share of the groups held out for test where no test file is named"
    )

    @model_validator(mode="after")
    def _whole_examples(self) -> MixtureConfig:
        if self.examples:
            if sum(self.examples) != self.size:
                raise ValueError(f"examples must add up to size={self.size}, got {list(self.examples)}")
        elif self.size * self.share % 100:
            raise ValueError(
                f"size x share must give whole examples, got size={self.size} and share={self.share} %; "
                "take a size that is a multiple of 5 with shares in steps of 20"
            )
        return self

    @property
    def counts(self) -> tuple[int, ...]:
        """Examples of each domain, of two where `examples` does not say."""
        first = self.size * self.share // 100
        return self.examples or (first, self.size - first)

    @property
    def parts(self) -> tuple[int, ...]:
        """What the domains make up of the mixture, in proportion."""
        return self.examples or (self.share, 100 - self.share)


class TrainingConfig(Settings):
    """How the model is fine-tuned. Defaults: the guides that the paper follows, and its own rate (papers: section 1.2)."""

    epochs: int = Field(3, ge=1, le=100, description="passes over the mixture")
    batch_size: int = Field(16, ge=1, le=1024, description="windows per optimiser step")
    learning_rate: float = Field(2e-5, gt=0, le=0.1, description="peak rate; decays linearly to 0")
    select: Literal["last", "best"] = Field(
        "last",
        description="the weights that are tested and kept: those at the end, or those of the lowest validation loss so far",
    )
    warmup_share: float = Field(
        0.0, ge=0, le=1, description="share of the steps over which the rate first rises linearly from 0"
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW, all weights but biases and normalisation gains")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this global norm")
    max_length: int = Field(384, ge=16, le=512, description="tokens in a window, question and special tokens included")
    stride: int = Field(128, ge=0, description="context tokens that consecutive windows share")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 autocast on GPU, float32 on CPU"
    )

    @model_validator(mode="after")
    def _stride_fits(self) -> TrainingConfig:
        if self.stride >= self.max_length:
            raise ValueError(f"stride must be below max_length={self.max_length}, got {self.stride}; a quarter of it is usual")
        return self


class EvaluationConfig(Settings):
    """What is measured, and how answers are read off the logits (transformers' question-answering example: 20 and 30)."""

    validation_examples: int | None = Field(None, ge=1, description="per domain; null: all that are held out")
    test_examples: int | None = Field(None, ge=1, description="per domain; null: all")
    reports_per_epoch: int = Field(2, ge=1, le=100, description="training losses are reported this often")
    validate_at: Literal["epoch", "report"] = Field(
        "epoch",
        description="validation is measured at the end of each epoch, or at every report; training is the same",
    )
    n_best: int = Field(20, ge=1, le=100, description="start and end candidates considered per window")
    max_answer_tokens: int = Field(30, ge=1, description="longer answers are not considered")


class QAConfig(Settings):
    """Everything that decides a trial's result but its data and seed. A trainable narrows `model` to its own settings."""

    mixture: MixtureConfig = MixtureConfig()
    model: ModelSettings = ModelSettings()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    def resolved(self) -> dict[str, Any]:
        """The whole configuration as JSON-ready values, defaults filled in but for those of `ADDED_LATER`.

        The settings read it back as it was.
        """
        values = self.model_dump(mode="json")
        for name, default in ADDED_LATER.items():
            section, setting = name.split(".")
            if (setting, default) in values[section].items():
                del values[section][setting]
        return values
