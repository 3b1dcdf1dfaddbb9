"""What every trainable must do (design: the trainable contract). A new trainable inherits it and writes no such tests."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from recovery_suite import RecoveryContract
from trainable_case import TrainableCase

from orchestrator.trial import Trial
from trainables.config import QAConfig
from trainables.contract import Report, TrialContext
from trainables.data.spec import DataSpec
from trainables.registry import settings_of
from trainables.training.checkpoints import FINAL_WEIGHTS

VALID_TOGETHER = {"moe_block", "method", "examples"}
"""Settings that change only together with another one."""


class BehaviourContract(TrainableCase):
    """What comes out of a trial, and that all of its settings count."""

    def test_the_same_seed_gives_identical_reports(self, config: QAConfig, context: TrialContext, tmp_path: Path) -> None:
        first = list(self.reports(config, context))
        torch.rand(7)  # whatever ran before in the process
        again = replace(context, checkpoint_dir=tmp_path / "again")
        assert list(self.reports(config, again)) == first

    def test_another_seed_gives_other_reports(self, config: QAConfig, context: TrialContext, tmp_path: Path) -> None:
        first = next(self.reports(config, context))
        other = next(self.reports(config, replace(context, seed=4, checkpoint_dir=tmp_path / "other")))
        assert first.metrics["train_qa_loss"] != other.metrics["train_qa_loss"]

    def test_steps_increase_and_metrics_are_those_declared(self, config: QAConfig, context: TrialContext) -> None:
        reports = list(self.reports(config, context))
        assert all(earlier.step < later.step for earlier, later in pairwise(reports))
        assert reports[-1].epoch == config.training.epochs
        assert len(reports) == config.training.epochs * config.evaluation.reports_per_epoch
        for report in reports:
            assert tuple(report.metrics) == settings_of(self.trainable).metrics
            assert all(value is None or math.isfinite(value) for value in report.metrics.values())
            assert (report.metrics["val_qa_loss"] is not None) == (report.epoch % 1 == 0)
            assert 0 < report.params_trainable <= report.params_total
            assert 0 < report.params_active <= report.params_total

    def test_the_test_split_is_evaluated_once_at_the_end_with_every_prediction(
        self, config: QAConfig, context: TrialContext
    ) -> None:
        *earlier, last = self.reports(config, context)
        assert not any(report.predictions for report in earlier)
        assert {evaluation.split for report in earlier for evaluation in report.evaluations} == {"val"}
        assert [evaluation.domain for evaluation in last.evaluations if evaluation.split == "test"] == ["squad", "bioasq"]
        assert sorted(prediction.domain for prediction in last.predictions) == ["bioasq"] * 10 + ["squad"] * 10

    def test_validating_at_every_report_leaves_training_as_it_is(
        self, config: QAConfig, context: TrialContext, tmp_path: Path
    ) -> None:
        often = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"validate_at": "report"})})
        beside = replace(context, checkpoint_dir=tmp_path / "often")
        usual, validated = list(self.reports(config, context)), list(self.reports(often, beside))
        assert all(report.metrics["val_qa_loss"] is not None for report in validated)
        assert [len(report.evaluations) for report in validated] == [2, 2, 2, 4]
        assert [b if a.evaluations else without_validation(b) for a, b in zip(usual, validated, strict=True)] == usual
        usual_weights, weights = (torch.load(each.checkpoint_dir / FINAL_WEIGHTS) for each in (context, beside))
        torch.testing.assert_close(weights, usual_weights, rtol=0, atol=0)

    def test_a_recorded_configuration_is_read_back_as_it_was(self, config: QAConfig) -> None:
        for each in (config, *with_one_field_changed(config)):
            assert type(config).model_validate(json.loads(json.dumps(each.resolved()))) == each

    def test_every_setting_enters_the_key(self, config: QAConfig, data: DataSpec) -> None:
        def key(changed: QAConfig) -> str:
            version = settings_of(self.trainable).version
            return Trial(trainable=self.trainable, version=version, config=changed, data=data, data_fingerprint="f", seed=0).key

        keys = {key(config)}
        changed = list(with_one_field_changed(config))
        keys |= {key(each) for each in changed}
        assert len(keys) == 1 + len(changed)

    def test_every_setting_of_the_model_reaches_it(self, config: QAConfig, context: TrialContext, tmp_path: Path) -> None:
        short = config.model_copy(update={"training": config.training.model_copy(update={"epochs": 1})})
        shorter = short.model_copy(update={"evaluation": short.evaluation.model_copy(update={"reports_per_epoch": 1})})
        usual = outcome(self.reports(shorter, context))
        parents_of = settings_of(self.trainable).parents_of

        def has_the_same_parents(each: QAConfig) -> bool:
            try:
                return parents_of(each) == parents_of(shorter)
            except ValueError:
                return False

        every = with_one_field_changed(shorter, sections=("model",))
        changes = [each for each in every if has_the_same_parents(each)]  # else it reaches the parents
        for number, changed in enumerate(changes):
            other = outcome(self.reports(changed, replace(context, checkpoint_dir=tmp_path / str(number))))
            assert other != usual, f"{changed.model} trains as {shorter.model}"

    def test_values_out_of_range_are_refused_with_the_range(self, config: QAConfig) -> None:
        assert self.out_of_range
        for dotted, value in self.out_of_range:
            section, name = dotted.split(".")
            values = config.resolved()
            values[section][name] = value
            with pytest.raises(ValidationError, match=r"should be|must be"):
                type(config).model_validate(values)


class TrainableContract(BehaviourContract, RecoveryContract):
    """Inherit it, and fill in what `TrainableCase` asks for."""


def without_validation(report: Report) -> Report:
    """The same report as if nothing had been validated."""
    return replace(report, metrics={**report.metrics, "val_qa_loss": None}, evaluations=(), expert_loads=())


def outcome(reports: Iterator[Report]) -> tuple[Any, ...]:
    """What a model's training came to: its losses, size and scores."""
    last = list(reports)[-1]
    return last.metrics, last.params_total, last.evaluations


def with_one_field_changed(config: QAConfig, sections: tuple[str, ...] | None = None) -> Iterator[QAConfig]:
    """One valid configuration for each setting, with that setting alone changed."""
    for section in sections or tuple(type(config).model_fields):
        for name, info in type(getattr(config, section)).model_fields.items():
            for value in other_values(getattr(getattr(config, section), name), info):
                values = config.resolved()
                values[section][name] = value
                try:
                    yield type(config).model_validate(values)
                except ValidationError:
                    continue
                break
            else:
                if name not in VALID_TOGETHER:
                    pytest.fail(f"found no other valid value for {section}.{name}")


def other_values(value: Any, info: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    choices = [arg for arg in getattr(info.annotation, "__args__", ()) if isinstance(arg, str) and arg != value]
    numbers = [] if isinstance(value, str) else [(value or 0) + 1, 1, 2, (value or 0) / 2, 0.5, 20]
    return [*choices, *(number for number in numbers if number != value)]
