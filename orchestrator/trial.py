"""A trial and its key: the same configuration, data and seed have the same key on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from results.identity import canonical_json, trial_key
from trainables.config import QAConfig
from trainables.data.spec import DataSpec
from trainables.registry import settings_of

__all__ = ["Trial", "canonical_json"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One configuration with one seed. `data` says where the rows are; only their fingerprint enters the key."""

    trainable: str
    variant: str = ""  # named variant that the configuration came from; the key looks at the configuration alone
    version: int
    config: QAConfig
    data: DataSpec
    data_fingerprint: str
    seed: int
    parents: tuple[Trial, ...] = ()  # whose final weights it begins from; their keys enter its own
    title: str = ""  # what a person calls the trial, where its sweep knows better than `summary`
    detail: str = ""  # what sets the trial apart from the others of its sweep, where the title does not say

    @cached_property
    def key(self) -> str:
        """First 16 hex digits of the SHA-256 of everything that decides the result."""
        return trial_key(
            self.trainable, self.version, self.config.resolved(), self.data_fingerprint, self.seed, self.parent_keys
        )

    @property
    def parent_keys(self) -> tuple[str, ...]:
        """The keys of the trials that it begins from."""
        return tuple(parent.key for parent in self.parents)

    @property
    def stage(self) -> int:
        """1 without parents, else one more than the latest of theirs."""
        return 1 + max((parent.stage for parent in self.parents), default=0)

    @property
    def label(self) -> str:
        """The trainable's name with its variant, as presets spell it."""
        return f"{self.trainable}:{self.variant}" if self.variant else self.trainable

    @property
    def summary(self) -> str:
        """What a person calls the trial: `exbert 60:40 shuffled`, with the seed where it is not 0."""
        if self.title:
            return self.title
        share = self.config.mixture.share
        seed = f" seed {self.seed}" if self.seed else ""
        return f"{self.label} {share}:{100 - share} {self.config.mixture.order}{seed}"

    @property
    def lineage(self) -> Iterator[Trial]:
        """The trials that must be complete before this one, each before its children, and itself; some may come twice."""
        for parent in self.parents:
            yield from parent.lineage
        yield self

    def with_seed(self, seed: int) -> Trial:
        """The same with another seed, what it begins from too."""
        return replace(self, seed=seed, parents=tuple(parent.with_seed(seed) for parent in self.parents))

    def to_json(self) -> dict[str, Any]:
        """Plain data from which `from_json` makes the same trial."""
        return {
            "key": self.key,
            "trainable": self.trainable,
            "variant": self.variant,
            "version": self.version,
            "config": self.config.resolved(),
            "data": self.data.model_dump(mode="json"),
            "data_fingerprint": self.data_fingerprint,
            "seed": self.seed,
            "parents": list(self.parent_keys),
            "parent_trials": [parent.to_json() for parent in self.parents],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Trial:
        """The trial that `to_json` described.

        Raises:
            ValueError: the description does not give the key that it states.
        """
        trial = cls(
            trainable=value["trainable"],
            variant=value["variant"],
            version=value["version"],
            config=settings_of(value["trainable"]).config.model_validate(value["config"]),
            data=DataSpec.model_validate(value["data"]),
            data_fingerprint=value["data_fingerprint"],
            seed=value["seed"],
            parents=tuple(cls.from_json(parent) for parent in value.get("parent_trials", ())),
        )
        if trial.key != value["key"]:
            raise ValueError(
                f"trial {value['key']} was written by another version of the program: its settings now give {trial.key}"
            )
        return trial
