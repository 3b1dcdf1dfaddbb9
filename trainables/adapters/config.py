"""Settings of adapters and their mixtures. Importing this is cheap.

Sources: papers, document D, sections 3.3 and 3.4 of the digest.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from trainables.config import ModelSettings, QAConfig

__all__ = ["METRICS", "VARIANTS", "VERSION", "Config", "ModelConfig"]

VERSION = 2
"""Bumped when the same configuration and seed would give other results."""

METRICS = ("train_qa_loss", "train_aux_loss", "balance_loss", "val_qa_loss", "learning_rate")

VARIANTS: dict[str, dict[str, Any]] = {
    "ia3": {"model": {"method": "ia3", "num_experts": 1, "rank": None}},
    "lora": {"model": {"method": "lora", "num_experts": 1, "rank": 4}},
    "mov": {"model": {"method": "mov", "num_experts": 10, "rank": None}},
    "molora": {"model": {"method": "molora", "num_experts": 10, "rank": 4}},
}
"""The four families at the papers' sizes (document D, section 3.3)."""


class ModelConfig(ModelSettings):
    """Which blocks are kept, and their adapters. The encoder is frozen; adapters, routers and the head learn."""

    n_layers: int | None = Field(
        None, ge=1, le=6, description="transformer blocks kept, from the first; null: all of the encoder's"
    )
    method: Literal["molora", "mov", "lora", "ia3"] = Field(
        "molora",
        description="ia3 scales keys, values and the feed-forward's inner activations by vectors, lora adds low-rank products "
        "to all six projections of a block; mov and molora are mixtures of them",
    )
    num_experts: int = Field(10, ge=1, le=60, description="adapters of each mixture; 1 for ia3 and lora")
    rank: int | None = Field(4, ge=1, le=64, description="of lora and molora; null for ia3 and mov")
    routing_input: Literal["token", "sentence"] = Field(
        "token",
        description="token: each token's own state; sentence: the mean of the frozen encoder's last states of the window",
    )
    merging: Literal["soft", "top1", "top2"] = Field("soft", description="all adapters weighted, or only the likeliest")
    balance_loss_coef: float = Field(0.0, ge=0, description="weight of the load-balancing loss; the paper's is 0.01")

    @model_validator(mode="after")
    def _settings_agree(self) -> ModelConfig:
        if self.method in ("ia3", "lora") and self.num_experts != 1:
            mixture = {"ia3": "mov", "lora": "molora"}[self.method]
            raise ValueError(
                f"num_experts must be 1 with method={self.method!r}, got {self.num_experts}; its mixture is {mixture!r}"
            )
        if (self.rank is None) != (self.method in ("ia3", "mov")):
            raise ValueError(
                f"rank must be {'null' if self.rank is not None else 'given'} with method={self.method!r}, got {self.rank}"
            )
        routed = {"routing_input": "token", "merging": "soft", "balance_loss_coef": 0.0}
        for name, unrouted in routed.items():
            if self.num_experts == 1 and getattr(self, name) != unrouted:
                raise ValueError(
                    f"{name} must be {unrouted!r} with num_experts=1, where nothing is routed, got {getattr(self, name)!r}"
                )
        return self


class Config(QAConfig):
    """A trial of adapters."""

    model: ModelConfig = ModelConfig()
