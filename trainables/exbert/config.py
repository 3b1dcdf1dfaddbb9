"""Settings of ExBERT: DistilBERT blocks and an ST-MoE layer. Importing this is cheap.

Sources: papers, document A, sections 2.1 and 3.4, with the readings of section 1.3 of the digest.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from trainables.config import ModelSettings, QAConfig

__all__ = ["METRICS", "VARIANTS", "VERSION", "Config", "ModelConfig"]

VERSION = 2
"""Bumped when the same configuration and seed would give other results."""

METRICS = ("train_qa_loss", "train_aux_loss", "balance_loss", "router_z_loss", "val_qa_loss", "learning_rate")

VARIANTS: dict[str, dict[str, Any]] = {
    "untuned": {"model": {"n_layers": 6, "num_experts": 16}},
    "tuned": {
        "model": {"n_layers": 4, "num_experts": 8, "dropout_placement": "before", "moe_dropout": 0.1},
        "training": {"learning_rate": 1e-4, "epochs": 2},
    },
}
"""The paper's configurations before and after its search (document A, sections 3.3 and 3.4)."""


class ModelConfig(ModelSettings):
    """Which blocks are kept, and the expert layer. The defaults are the untuned configuration."""

    n_layers: int | None = Field(
        None, ge=1, le=6, description="transformer blocks kept, from the first; null: all of the encoder's"
    )
    num_experts: int = Field(16, ge=2, le=64, description="experts per expert layer")
    dropout_placement: Literal["none", "before", "after", "both"] = Field("none", description="dropout beside the expert layer")
    moe_dropout: float = Field(0.1, ge=0, lt=1, description="rate of that dropout; read only where there is a placement")
    expert_dropout: float = Field(
        0.0, ge=0, lt=1, description="dropout within the experts, before their last projection (Fedus et al. 2022, section 2.4)"
    )
    moe_position: Literal["after_last", "after_block", "replace_ffn", "replace_all_ffn"] = Field(
        "after_last", description="where the expert layer sits; after_block and replace_ffn name the block in moe_block"
    )
    moe_block: int | None = Field(None, ge=1, le=6, description="block for after_block and replace_ffn, 1 = the first")
    moe_wiring: Literal["bare", "bare_residual", "block_after", "block_before", "block_both"] = Field(
        "block_after", description="bare MoE, MoE + residual, or SparseMoEBlock with a feed-forward after, before, or both"
    )
    moe_semantics: Literal["exact", "library"] = Field(
        "exact", description="exact: padding and chance never change a prediction; library: st-moe-pytorch to the letter"
    )
    threshold: float = Field(
        0.2, gt=0, le=1, description="the second expert is taken with probability min(1, share / threshold)"
    )
    capacity_factor: float = Field(1.25, gt=0, le=64, description="training: room per expert, relative to an even load")
    balance_loss_coef: float = Field(1e-2, ge=0, description="weight of the load-balancing loss")
    router_z_loss_coef: float = Field(1e-3, ge=0, description="weight of the router z-loss")

    @property
    def least_blocks(self) -> int:
        """See `ModelSettings.least_blocks`."""
        return self.moe_block or 1

    @model_validator(mode="after")
    def _block_named_where_needed(self) -> ModelConfig:
        needs = self.moe_position in ("after_block", "replace_ffn")
        if needs != (self.moe_block is not None):
            raise ValueError(
                f"moe_block must be {'given' if needs else 'null'} with moe_position={self.moe_position!r}, "
                f"got {self.moe_block}"
            )
        if self.moe_block is not None and self.n_layers is not None and self.moe_block > self.n_layers:
            raise ValueError(f"moe_block must be in [1, n_layers={self.n_layers}], got {self.moe_block}")
        return self


class Config(QAConfig):
    """An ExBERT trial."""

    model: ModelConfig = ModelConfig()
