"""Where a trial's encoder and rows come from. Plain data: importing this is cheap."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainables.config import Settings

__all__ = ["DataSpec", "DomainSpec", "Format"]

Format = Literal["auto", "squad", "mrqa", "flat", "parquet", "csv", "answer_context"]


class DomainSpec(Settings):
    """One domain's rows.

    `train` and `test` are a local file or folder, or a hub dataset as `owner/name[@revision][:split]` (split: `train` for
    `train`, `validation` for `test`, unless given; `train+validation` joins two).
    """

    train: str
    test: str | None = Field(None, description="null: a share of the training groups is held out")
    format: Format = "auto"
    group_by: Literal["auto", "group", "question", "context"] = Field(
        "auto",
        description="rows that share it stay in one split; auto: the rows' own `group`, else the coarser of the two others",
    )
    overlap: Literal["refuse", "drop"] = Field(
        "refuse", description="training rows whose group is in the test rows: refuse the data, or drop those training rows"
    )
    max_dropped_share: float = Field(0.05, ge=0, le=1, description="refuse the data when more rows than this are no spans")


class DataSpec(Settings):
    """The encoder and the domains, in the order in which mixtures name them. Paths are absolute or hub ids."""

    encoder: str = Field(description="hub id[@revision], or a local folder in Hugging Face layout")
    domains: dict[str, DomainSpec]
