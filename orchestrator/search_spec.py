"""What a search searches: a space or stages, around a base configuration, on one mixture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from orchestrator.errors import PlanError
from orchestrator.search_settings import SearchSettings
from orchestrator.trial import Trial, canonical_json
from search_spaces.config_fields import nested, reasons
from search_spaces.grid import point_text
from search_spaces.space import Space, Value
from search_spaces.stages import Narrowing
from trainables.registry import settings_of

__all__ = ["SearchSpec"]


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """`base` is the trial that every point changes some settings of; with it go data and seed."""

    settings: SearchSettings
    space: Space | Narrowing
    base: Trial

    @property
    def num_trials(self) -> int:
        """Trials that the search may try: all of a narrowing's, or as many as asked for, as far as there are points."""
        if isinstance(self.space, Narrowing):
            return self.space.size
        return min(self.settings.trials, self.space.size or self.settings.trials)

    @property
    def identity(self) -> str:
        """8 hex digits for all that decides which trials are tried; more of them are the same search."""
        aside = {"trials", "warm_start", "control", "space", "narrowing"}
        if isinstance(self.space, Narrowing):  # it asks no sampler and stops nothing
            aside |= {"sampler", "seed", "grace", "eta", "variant"}
        settings = self.settings.model_dump(mode="json", exclude=aside)
        parts = (settings, json.dumps(self.space.to_json()), self.base.key)  # in the order of its dimensions, which counts
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:8]

    def trial_at(self, values: Mapping[str, Value], number: int) -> Trial:
        """The trial of a point, given by dotted names.

        Raises:
            PlanError: the trainable refuses the point.
        """
        config = self.base.config.resolved()
        changes = self.space.overrides(values) if isinstance(self.space, Space) else nested(values)
        for section, given in changes.items():
            config[section] = {**config[section], **given}
        shown = point_text(values)
        try:
            made = settings_of(self.base.trainable).config.model_validate(config)
        except ValidationError as error:
            raise PlanError(f"space {self.space.name}: {self.base.trainable} refuses {shown}: {reasons(error)}") from error
        return replace(self.base, config=made, title=f"{self.base.trainable} #{number}", detail=shown)

    def corners(self) -> list[Trial]:
        """Trials at the ends of every range and with every listed value: what these can have, all can."""
        points = self.space.points() if isinstance(self.space, Narrowing) else self.space.corners()
        return [self.trial_at(values, number) for number, values in enumerate(points)]

    def to_json(self) -> dict[str, Any]:
        """Plain data from which `from_json` makes the same search."""
        return {"settings": self.settings.model_dump(mode="json"), "space": self.space.to_json(), "base": self.base.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SearchSpec:
        """What `to_json` described. Raises ValueError."""
        kind = Narrowing if "stages" in value["space"] else Space
        return cls(
            settings=SearchSettings.model_validate(value["settings"]),
            space=kind.from_json(value["space"]),
            base=Trial.from_json(value["base"]),
        )
