"""The weights that are tested and kept: those at the end, or those of the best validation."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file

from trainables.config import QAConfig
from trainables.contract import Interrupted, Report, TrialContext
from trainables.data.spec import DataSpec
from trainables.models.block_linear import use_blocks
from trainables.models.encoder import load_encoder
from trainables.registry import settings_of, train_function
from trainables.training.checkpoints import FINAL_WEIGHTS
from trainables.training.evaluation import evaluate, mixture_loss
from trainables.training.steps import autocast
from trainables.training.task import open_task

CONFIG = {
    "mixture": {"share": 60, "size": 40},
    "model": {"n_layers": 1},
    # At this rate the first epoch is better than the last
    "training": {"epochs": 3, "batch_size": 8, "learning_rate": 3e-2, "max_length": 128, "stride": 32},
    "evaluation": {"validation_examples": 10, "test_examples": 10},
}


def configured(select: str) -> QAConfig:
    values = {**CONFIG, "training": {**CONFIG["training"], "select": select}}
    return settings_of("distilbert").config.model_validate(values)


@pytest.fixture
def context(data: DataSpec, prepared_dir: Path, tmp_path: Path) -> TrialContext:
    return TrialContext(
        seed=3,
        data=data,
        device="cpu",
        num_threads=1,
        checkpoint_dir=tmp_path / "checkpoints",
        prepared_dir=prepared_dir,
        checkpoint_seconds=0,
    )


def train(select: str, context: TrialContext) -> Iterator[Report]:
    return train_function("distilbert")(configured(select), context)


def validation_losses(reports: list[Report]) -> list[float]:
    return [loss for report in reports if (loss := report.metrics["val_qa_loss"]) is not None]


def test_the_best_weights_are_tested_and_kept_and_training_is_the_same(context: TrialContext, tmp_path: Path) -> None:
    last = list(train("last", replace(context, checkpoint_dir=tmp_path / "last")))
    best = list(train("best", context))
    losses = validation_losses(best)
    assert losses == validation_losses(last)
    assert min(losses) < losses[-1]
    assert best[-1].evaluations != last[-1].evaluations
    assert measured(context, "val") == min(losses)
    tested = [part for part in best[-1].evaluations if part.split == "test"]
    assert measured(context, "test") == mixture_loss(tested, (60, 40))


def measured(context: TrialContext, split: str) -> float:
    """The loss of the final weights that the trial left."""
    from transformers import DistilBertForQuestionAnswering

    config = configured("best")
    model = use_blocks(load_encoder(context.data.encoder, 1, DistilBertForQuestionAnswering), "cpu")
    model.load_state_dict(load_file(context.checkpoint_dir / FINAL_WEIGHTS))
    task = open_task(config, context.data, context.prepared_dir)
    precision = partial(autocast, config.training, "cpu")
    found = [evaluate(model, task, part, "cpu", precision).evaluation for part in task.of_split(split)]
    return mixture_loss(found, config.mixture.parts)


def test_stopped_after_the_best_epoch_a_trial_still_knows_it(context: TrialContext, tmp_path: Path) -> None:
    whole = list(train("best", replace(context, checkpoint_dir=tmp_path / "whole")))
    steps = [report.step for report in whole]
    got: list[Report] = []
    for stop_at in (*steps[:-1], None):
        got += until(stop_at, context)
    assert got == whole


def until(step: int | None, context: TrialContext) -> list[Report]:
    """Reports from where the trial is up to a step, where it is interrupted; None: to the end."""
    got: list[Report] = []

    def asked() -> bool:
        return step is not None and bool(got) and got[-1].step >= step

    try:
        for report in train("best", replace(context, stop_requested=asked)):
            got.append(report)
    except Interrupted:
        assert step is not None
    return got
