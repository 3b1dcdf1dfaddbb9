"""Settings of the mixture-of-experts variants. Importing this is cheap.

Sources: papers, document D, sections 3.2 and 3.4 of the digest.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from trainables.config import ModelSettings, ParentPoint, QAConfig, mixed_parent

__all__ = ["METRICS", "VARIANTS", "VERSION", "Config", "ModelConfig", "parents_of"]

VERSION = 2
"""Bumped when the same configuration and seed would give other results."""

METRICS = ("train_qa_loss", "train_aux_loss", "balance_loss", "router_z_loss", "val_qa_loss", "learning_rate")

VARIANTS: dict[str, dict[str, Any]] = {}

_SUM_TO_ONE = ("gshard_top2", "st_top2", "soft", "random")
"""Routers that give a token's experts weights with a sum of 1 by themselves."""


class ModelConfig(ModelSettings):
    """Which blocks are kept, and the layers of experts in them. Experts have the size of the encoder's feed-forward."""

    n_layers: int | None = Field(
        None, ge=1, le=6, description="transformer blocks kept, from the first; null: all of the encoder's"
    )
    router: Literal["switch_top1", "gshard_top2", "expert_choice", "st_top2", "soft", "random"] = Field(
        "st_top2", description="which experts take a token; random is the control that learns no routing"
    )
    num_experts: int = Field(8, ge=2, le=64, description="experts per expert layer")
    capacity_factor: float | None = Field(
        None,
        gt=0,
        le=64,
        description="room per expert, relative to an even load of one expert a token; null: the router's own, 1.25 in training "
        "and none in evaluation, or 2 in both for expert_choice; soft and random have none",
    )
    normalized_gates: bool = Field(
        False, description="the weights of a token's experts sum to 1; for switch_top1 and expert_choice, which else do not"
    )
    balance_loss_coef: float = Field(1e-2, ge=0, description="weight of the load-balancing loss")
    router_z_loss_coef: float = Field(1e-3, ge=0, description="weight of the router z-loss")
    freeze: Literal["none", "gate", "expert", "moe"] = Field("none", description="what of the expert layers does not learn")
    expert_init: Literal["random", "upcycled", "upcycled_noise"] = Field(
        "upcycled", description="upcycled: experts begin as copies of the feed-forward whose place they take"
    )
    expert_noise: float = Field(
        0.01, gt=0, le=1, description="upcycled_noise: standard deviation of the noise, relative to each weight matrix's own"
    )
    placement: Literal["last_blocks", "all", "every_second", "after_last"] = Field(
        "last_blocks",
        description="which blocks' feed-forwards are replaced (every_second: the second, fourth, ...); after_last: none, and "
        "an expert layer with a residual and a normalisation follows the last block",
    )
    num_blocks: int = Field(1, ge=1, le=6, description="last_blocks: how many")
    start_from: Literal["base", "mixed"] = Field(
        "base",
        description="base: the pre-trained encoder; mixed: this very model trained on 60:40 shuffled, a trial of its own",
    )
    expert_dropout: float = Field(
        0.0, ge=0, lt=1, description="dropout within the experts, before their last projection (Fedus et al. 2022, section 2.4)"
    )

    @property
    def least_blocks(self) -> int:
        """See `ModelSettings.least_blocks`."""
        return {"last_blocks": self.num_blocks, "every_second": 2}.get(self.placement, 1)

    @model_validator(mode="after")
    def _settings_agree(self) -> ModelConfig:
        if self.placement == "after_last" and self.expert_init != "random":
            raise ValueError(
                f"expert_init must be 'random' with placement='after_last', where there is no feed-forward to copy, "
                f"got {self.expert_init!r}; or choose a placement that replaces feed-forwards"
            )
        if self.normalized_gates and self.router in _SUM_TO_ONE:
            raise ValueError(f"normalized_gates must be false with router={self.router!r}, whose weights sum to 1 anyway")
        if self.capacity_factor is not None and self.router in ("soft", "random"):
            raise ValueError(f"capacity_factor must be null with router={self.router!r}, which has no capacity")
        if self.router == "random" and self.freeze in ("gate", "moe"):
            raise ValueError(f"freeze must be 'none' or 'expert' with router='random', which has no gate, got {self.freeze!r}")
        if self.placement == "last_blocks" and self.n_layers is not None and self.num_blocks > self.n_layers:
            raise ValueError(f"num_blocks must be in [1, n_layers={self.n_layers}], got {self.num_blocks}")
        if self.placement == "every_second" and self.n_layers == 1:
            raise ValueError("placement must not be 'every_second' with n_layers=1, which has no second block")
        return self


class Config(QAConfig):
    """A trial of a mixture-of-experts variant."""

    model: ModelConfig = ModelConfig()


def parents_of(config: QAConfig) -> tuple[ParentPoint, ...]:
    """See `mixed_parent`."""
    return mixed_parent("moe_variants", config.model)
