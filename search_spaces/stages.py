"""The paper's narrowing as data: stages in order, each of which fixes the winner of the last (document A, section 3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from search_spaces.space import Choice, Condition, Dimension, Space, Value

__all__ = ["NARROWING", "NARROWING_START", "Stage"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A step of a narrowing: every value of its dimensions is tried, all else stays as decided so far.

    Raises:
        ValueError: when made, if a dimension is continuous or does not fit the trainable's settings.
    """

    name: str
    trainable: str
    dimensions: Mapping[str, Dimension]

    def __post_init__(self) -> None:
        object.__setattr__(self, "dimensions", dict(self.dimensions))  # its own: the caller's may change later
        self._space().grid()  # refuses a continuous dimension

    @property
    def size(self) -> int:
        """How many points the stage tries."""
        return self._space().size or 0

    def points(self, winner: Mapping[str, Value]) -> list[dict[str, Value]]:
        """What to try on top of `winner`, the values decided so far; its values for the stage's own dimensions are dropped."""
        kept = {name: value for name, value in winner.items() if name not in self.dimensions}
        return [{**kept, **point} for point in self._space().grid()]

    def _space(self) -> Space:
        return Space(name=f"stage {self.name}", trainable=self.trainable, dimensions=self.dimensions)


NARROWING_START: Mapping[str, Value] = {
    "model.n_layers": 6,
    "model.num_experts": 16,
    "training.learning_rate": 2e-5,
    "model.dropout_placement": "none",
}
"""The untuned ExBERT, from which the paper set out: sections 2.1 and 3.3; readings 1 and 2."""

NARROWING: tuple[Stage, ...] = (
    # "Different numbers of experts, but saw minimal difference"; reading 2
    Stage(name="experts", trainable="exbert", dimensions={"model.num_experts": Choice([8, 12, 16])}),
    # Fig 4; the paper went on with 4
    Stage(name="blocks", trainable="exbert", dimensions={"model.n_layers": Choice([3, 4, 5, 6])}),
    # Fig 5: half, once, twice and five times the rate of V-DB; the paper went on with 1e-4
    Stage(name="learning_rate", trainable="exbert", dimensions={"training.learning_rate": Choice([1e-5, 2e-5, 4e-5, 1e-4])}),
    # The paper ended with 0.1 before the expert layer; reading 4: 0.3 for every placement
    Stage(
        name="dropout",
        trainable="exbert",
        dimensions={
            "model.dropout_placement": Choice(["none", "before", "after", "both"]),
            "model.moe_dropout": Choice([0.1, 0.3], when=Condition("model.dropout_placement", ["before", "after", "both"])),
        },
    ),
)
"""Experts, blocks, learning rate, dropout. Each point of it, on top of the start, is a point of the space `exbert`."""
