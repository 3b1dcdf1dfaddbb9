"""A trainable under test: its smallest trials and how they are run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainables.config import QAConfig
from trainables.contract import Parent, Report, TrialContext
from trainables.data.spec import DataSpec
from trainables.registry import settings_of, train_function


class TrainableCase:
    """Name the trainable, and say how its model differs from the defaults and which values are out of range."""

    trainable: str
    model: dict[str, Any] = {}  # noqa: RUF012
    out_of_range: list[tuple[str, Any]] = []  # noqa: RUF012
    without_chance: dict[str, Any] = {}  # noqa: RUF012
    """Settings of the model that make training draw no random numbers and its auxiliary losses heavy."""

    @pytest.fixture
    def config(self) -> QAConfig:
        """Ten steps, reports after 3, 5, 8 and 10."""
        return self.configured(size=40, held_out=10, model=self.model)

    @pytest.fixture
    def tiny(self) -> QAConfig:
        """Six steps, reports after 2, 3, 5 and 6."""
        return self.configured(size=20, held_out=4, model=self.model)

    def configured(self, *, size: int, held_out: int, model: dict[str, Any]) -> QAConfig:
        return settings_of(self.trainable).config.model_validate(
            {
                "mixture": {"share": 60, "size": size},
                "model": model,
                "training": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "max_length": 128, "stride": 32},
                "evaluation": {"validation_examples": held_out, "test_examples": held_out},
            }
        )

    @pytest.fixture
    def parents(self) -> tuple[Parent, ...]:
        """The trials that one begins from."""
        return ()

    @pytest.fixture
    def context(self, data: DataSpec, prepared_dir: Path, tmp_path: Path, parents: tuple[Parent, ...]) -> TrialContext:
        return TrialContext(
            seed=3,
            data=data,
            device="cpu",
            num_threads=1,
            checkpoint_dir=tmp_path / "checkpoints",
            prepared_dir=prepared_dir,
            parents=parents,
            checkpoint_seconds=0,
        )

    def reports(self, config: QAConfig, context: TrialContext) -> Iterator[Report]:
        return train_function(self.trainable)(config, context)
