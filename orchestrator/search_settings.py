"""How a search goes about it: its space, its strategy, and when trials are stopped early. Cheap to import."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from orchestrator.asha import Variant, rung_fidelities
from trainables.config import Settings, Share

__all__ = ["Objective", "SamplerName", "SearchSettings", "Strategy"]

SamplerName = Literal["tpe", "random", "gp", "qmc", "cmaes"]
Strategy = Literal["asha", "narrowing"]
Objective = Literal["val_qa_loss", "train_seconds", "params_active"]


class SearchSettings(Settings):
    """A preset's section `search`. `SearchSpec.identity` says what of it decides which search it is."""

    strategy: Strategy = Field("asha", description="asha: sampled points, stopped early; narrowing: stage by stage, in full")
    space: str = Field("exbert", description="a shipped space, or a file FILE.py that defines SPACE")
    narrowing: str = Field("paper", description="shipped stages, or a file FILE.py that defines NARROWING")
    control: str = Field("distilbert", description="space of the plain model that is tuned for comparison")
    trials: int = Field(20, ge=1, description="points to try; more of them go on with the same search")
    sampler: SamplerName = "tpe"
    seed: int = Field(0, ge=0, description="of the suggestions; trials have the preset's first seed")
    max_epochs: int = Field(5, ge=1, le=100, description="epochs of a trial that is never stopped (papers: section 3.4)")
    reports_per_epoch: int = Field(2, ge=1, le=100, description="validations an epoch")
    grace: float = Field(1.0, gt=0, description="epochs before a trial is first judged")
    eta: int = Field(2, ge=2, description="one in eta goes on at each rung: grace, grace x eta, grace x eta^2, ...")
    variant: Variant = Field(  # of lower regret at equal epochs: docs/log.md, searches against their alternatives
        "promotion", description="promotion: paused at rungs, the best taken up again; stopping: judged once, at once"
    )
    share: Share = Field(80, ge=0, le=100, description="percent of the first domain in the mixture (papers: section 3.4)")
    objectives: tuple[Objective, ...] = Field(
        ("val_qa_loss",), description="what is minimised; early stopping looks at val_qa_loss alone"
    )
    warm_start: bool = Field(False, description="tell the sampler of fitting trials that the ledger has completed")

    @model_validator(mode="after")
    def _fits(self) -> SearchSettings:
        if self.grace > self.max_epochs:
            raise ValueError(f"grace must be at most max_epochs={self.max_epochs}, got {self.grace:g}")
        if self.strategy == "narrowing" and (self.warm_start or len(self.objectives) > 1):
            raise ValueError("a narrowing asks no sampler: leave out warm_start and the second objective, or take asha")
        if (
            self.objectives[:1] != ("val_qa_loss",)
            or len(self.objectives) > 2
            or len(set(self.objectives)) < len(self.objectives)
        ):
            raise ValueError(
                f"objectives must be val_qa_loss, alone or with train_seconds or params_active, got {list(self.objectives)}"
            )
        return self

    @property
    def rungs(self) -> list[float]:
        """Epochs at which trials are judged; none in a narrowing, whose curves are wanted whole."""
        return [] if self.strategy == "narrowing" else rung_fidelities(self.grace, self.eta, float(self.max_epochs))
