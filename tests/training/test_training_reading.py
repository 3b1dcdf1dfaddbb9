"""Losses that are read many steps at a time, as on a GPU, are those that are read at each step."""

from dataclasses import replace
from pathlib import Path

import pytest
from recovery_suite import at_request, with_encoder_lacking
from trainable_case import TrainableCase

from trainables.config import QAConfig
from trainables.contract import DivergedError, Interrupted, Report, TrialContext
from trainables.training import checkpoints, loop
from trainables.training.checkpoints import newest_step
from trainables.training.task import open_task


class TestReading(TrainableCase):
    trainable = "exbert"
    model = {"n_layers": 1, "num_experts": 2}  # noqa: RUF012

    @pytest.fixture(autouse=True)
    def as_on_a_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loop, "STEPS_UNREAD", {"cpu": 32})

    @pytest.fixture
    def at_each_step(self, tiny: QAConfig, context: TrialContext, tmp_path: Path) -> list[Report]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "STEPS_UNREAD", {"cpu": 1})
            return list(self.reports(tiny, replace(context, checkpoint_dir=tmp_path / "each")))

    @pytest.mark.parametrize("steps", [2, 4, 32])
    def test_reports_are_the_same(
        self, steps: int, tiny: QAConfig, context: TrialContext, at_each_step: list[Report], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(loop, "STEPS_UNREAD", {"cpu": steps})
        assert list(self.reports(tiny, context)) == at_each_step

    def test_a_checkpoint_holds_what_was_unread(
        self, tiny: QAConfig, context: TrialContext, at_each_step: list[Report]
    ) -> None:
        before: list[Report] = []
        with pytest.raises(Interrupted):
            for report in self.reports(tiny, replace(context, stop_requested=at_request(4))):
                before.append(report)
        state = checkpoints.load_newest(context.checkpoint_dir, "cpu", pytest.fail)
        assert state is not None
        assert state["steps_since_report"] == 1
        assert state["sums"]["train_qa_loss"] > 0
        assert before + list(self.reports(tiny, context)) == at_each_step

    def test_a_loss_that_is_not_a_number_is_told_with_its_step_and_reaches_no_checkpoint(
        self, tiny: QAConfig, context: TrialContext, tmp_path: Path
    ) -> None:
        task = open_task(tiny, context.data, context.prepared_dir)
        batches = task.batches(epoch=0, seed=context.seed)
        tokens = [{int(token) for w in batch for token in task.pool.input_ids(int(w))} for batch in batches]
        broken = with_encoder_lacking(min(tokens[1] - tokens[0]), context, tmp_path)  # read with step 2, at the report
        with pytest.raises(DivergedError, match="train_qa_loss must be finite, got nan at step 2 of 6"):
            list(self.reports(tiny, broken))
        assert newest_step(context.checkpoint_dir) == 0
