"""What every trainable must survive: being stopped, killed, refused the disk, given torn files, and diverging."""

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file
from storage_faults import file_size_limit
from trainable_case import TrainableCase

from trainables.config import QAConfig
from trainables.contract import DivergedError, Interrupted, Report, TrialContext
from trainables.training.checkpoints import newest_step
from trainables.training.state_files import write_tensors
from trainables.training.task import open_task

NUM_STEPS = 6  # of the tiny trial


class RecoveryContract(TrainableCase):
    """However a trial is interrupted, its reports are bit for bit those of one that never was."""

    @pytest.fixture
    def whole(self, tiny: QAConfig, context: TrialContext, tmp_path: Path) -> list[Report]:
        """The reports of a tiny trial that nothing interrupts."""
        reports = list(self.reports(tiny, replace(context, checkpoint_dir=tmp_path / "whole")))
        assert [report.step for report in reports] == [2, 3, 5, NUM_STEPS]
        return reports

    def test_stopped_at_any_step_and_resumed_its_reports_are_those_of_a_trial_never_stopped(
        self, tiny: QAConfig, context: TrialContext, tmp_path: Path, whole: list[Report]
    ) -> None:
        for stop_at in range(NUM_STEPS):
            here = replace(context, checkpoint_dir=tmp_path / str(stop_at))
            before = self.until_interrupted(tiny, replace(here, stop_requested=at_request(stop_at)))
            assert newest_step(here.checkpoint_dir) == stop_at
            assert [report.step for report in before] == [report.step for report in whole if report.step <= stop_at]
            torch.rand(7)  # whatever ran before in the process
            assert before + list(self.reports(tiny, here)) == whole

    def test_stopped_before_every_step_in_turn_it_still_reports_the_same(
        self, tiny: QAConfig, context: TrialContext, whole: list[Report]
    ) -> None:
        got = []
        for first in [True] + [False] * (NUM_STEPS - 1):
            got += self.until_interrupted(tiny, replace(context, stop_requested=at_request(0 if first else 1)))
        assert newest_step(context.checkpoint_dir) == NUM_STEPS - 1
        assert got + list(self.reports(tiny, context)) == whole

    def test_asked_to_stop_again_at_the_same_step_it_writes_nothing(self, tiny: QAConfig, context: TrialContext) -> None:
        self.until_interrupted(tiny, replace(context, stop_requested=at_request(1)))
        written = {path: path.stat().st_mtime_ns for path in context.checkpoint_dir.iterdir()}
        assert self.until_interrupted(tiny, replace(context, stop_requested=lambda: True)) == []
        assert {path: path.stat().st_mtime_ns for path in context.checkpoint_dir.iterdir()} == written

    @pytest.mark.parametrize("closed_after", [1, 2, 3])
    def test_closed_at_a_report_it_repeats_what_its_newest_checkpoint_has_not(
        self, tiny: QAConfig, context: TrialContext, whole: list[Report], closed_after: int
    ) -> None:
        interrupted = self.reports(tiny, context)
        for _ in range(closed_after):
            next(interrupted)
        interrupted.close()
        resumed_step = newest_step(context.checkpoint_dir)
        assert resumed_step == (whole[closed_after - 2].step if closed_after > 1 else 0)
        assert list(self.reports(tiny, context)) == [report for report in whole if report.step > resumed_step]

    def test_a_report_is_handed_over_before_a_checkpoint_has_its_step(self, tiny: QAConfig, context: TrialContext) -> None:
        for report in self.reports(tiny, context):
            assert newest_step(context.checkpoint_dir) < report.step

    def test_a_finished_trial_keeps_its_checkpoints_until_told(
        self, tiny: QAConfig, context: TrialContext, whole: list[Report]
    ) -> None:
        list(self.reports(tiny, context))
        names = sorted(path.name for path in context.checkpoint_dir.iterdir())
        assert names == ["final.safetensors", "step-00000003.safetensors", "step-00000005.safetensors"]
        assert list(self.reports(tiny, context)) == whole[-1:]  # killed before it was recorded as complete

    def test_a_torn_newest_checkpoint_is_passed_over_with_one_warning(
        self, tiny: QAConfig, context: TrialContext, whole: list[Report]
    ) -> None:
        warnings: list[str] = []
        self.until_interrupted(tiny, replace(context, stop_requested=at_request(4)))
        torn = context.checkpoint_dir / "step-00000004.safetensors"
        torn.write_bytes(torn.read_bytes()[:-1000])
        resumed = list(self.reports(tiny, replace(context, warn=warnings.append)))
        assert resumed == [report for report in whole if report.step > 3]
        (warning,) = warnings
        assert "step-00000004.safetensors is torn" in warning
        assert "going on from step-00000003.safetensors" in warning

    def test_a_disk_full_twice_holds_the_trial_up_and_changes_nothing(
        self, tiny: QAConfig, context: TrialContext, whole: list[Report]
    ) -> None:
        refusals: list[OSError] = []

        def wait_for_room(write: Callable[[], Path]) -> Path:
            while len(refusals) < 2:
                try:
                    with file_size_limit(100_000):
                        return write()
                except OSError as error:
                    assert not list(context.checkpoint_dir.iterdir())
                    refusals.append(error)
            return write()

        assert list(self.reports(tiny, replace(context, persist=wait_for_room))) == whole
        assert len(refusals) == 2

    def test_a_disk_that_stays_full_fails_the_attempt_and_leaves_the_checkpoint_before(
        self, tiny: QAConfig, context: TrialContext, whole: list[Report]
    ) -> None:
        def only_once(write: Callable[[], Path]) -> Path:
            if newest_step(context.checkpoint_dir):
                raise OSError(errno.ENOSPC, "No space left on device")
            return write()

        with pytest.raises(OSError, match="No space left"):
            list(self.reports(tiny, replace(context, persist=only_once)))
        assert [path.name for path in context.checkpoint_dir.iterdir()] == ["step-00000002.safetensors"]
        assert list(self.reports(tiny, context)) == whole[1:]

    def test_a_loss_that_is_not_a_number_ends_the_trial_at_its_step_without_a_checkpoint_of_it(
        self, tiny: QAConfig, context: TrialContext, tmp_path: Path
    ) -> None:
        earlier, ours = self.token_sets(tiny, context, up_to=2)
        broken = with_encoder_lacking(min(ours - earlier), context, tmp_path)
        with pytest.raises(DivergedError, match=r"train_qa_loss must be finite, got nan at step 3 of 6; try a learning_rate"):
            list(self.reports(tiny, broken))
        assert newest_step(context.checkpoint_dir) == 2

    def test_a_validation_loss_that_is_not_a_number_ends_the_trial_too(
        self, tiny: QAConfig, context: TrialContext, tmp_path: Path
    ) -> None:
        trained, last = self.token_sets(tiny, context, up_to=NUM_STEPS - 1)
        task = open_task(tiny, context.data, context.prepared_dir)
        validated = {int(token) for part in task.of_split("val") for w in part.windows for token in task.pool.input_ids(int(w))}
        broken = with_encoder_lacking(min(validated - trained - last), context, tmp_path)
        with pytest.raises(DivergedError, match=r"val_qa_loss of (squad|bioasq) must be finite, got nan at step 3"):
            list(self.reports(tiny, broken))
        assert newest_step(context.checkpoint_dir) == 2

    def test_batches_in_parts_give_the_same_reports_but_for_rounding(self, context: TrialContext, tmp_path: Path) -> None:
        config = self.configured(size=20, held_out=4, model={**self.model, **self.without_chance})
        whole = list(self.reports(config, context))
        for num_parts in (2, 3):
            parts = replace(context, micro_batches=num_parts, checkpoint_dir=tmp_path / str(num_parts))
            for ours, theirs in zip(self.reports(config, parts), whole, strict=True):
                assert measured(ours) == pytest.approx(measured(theirs), rel=1e-5, abs=1e-5)

    def test_batches_in_parts_can_be_stopped_and_resumed_too(
        self, tiny: QAConfig, context: TrialContext, tmp_path: Path
    ) -> None:
        parts = replace(context, micro_batches=3)
        whole = list(self.reports(tiny, replace(parts, checkpoint_dir=tmp_path / "whole")))
        before = self.until_interrupted(tiny, replace(parts, stop_requested=at_request(4)))
        assert before + list(self.reports(tiny, parts)) == whole

    def until_interrupted(self, config: QAConfig, context: TrialContext) -> list[Report]:
        """What a trial reports before it obeys a request to stop."""
        got: list[Report] = []
        with pytest.raises(Interrupted, match="the checkpoint is complete"):
            for report in self.reports(config, context):
                got.append(report)
        return got

    def token_sets(self, config: QAConfig, context: TrialContext, up_to: int) -> tuple[set[int], set[int]]:
        """The tokens of the steps before step `up_to`, counted from 0, and those of that step."""
        task = open_task(config, context.data, context.prepared_dir)
        batches = [batch for epoch in range(config.training.epochs) for batch in task.batches(epoch=epoch, seed=context.seed)]
        assert len(batches) == NUM_STEPS
        tokens = [{int(token) for window in batch for token in task.pool.input_ids(int(window))} for batch in batches]
        return set().union(*tokens[:up_to]), tokens[up_to]


def at_request(number: int) -> Callable[[], bool]:
    """Asks to stop when asked for the `number`th time, counted from 0."""
    answers = iter([False] * number + [True])
    return lambda: next(answers)


def measured(report: Report) -> list[float]:
    """A report's metrics and losses, but for those not measured at it."""
    return [value for value in report.metrics.values() if value is not None] + [part.qa_loss for part in report.evaluations]


def with_encoder_lacking(token: int, context: TrialContext, folder: Path) -> TrialContext:
    """The context with an encoder, and parents, that make any window with `token` not a number."""
    encoder = Path(copytree(context.data.encoder, folder / "encoder"))
    spoil(encoder / "model.safetensors", token, encoder / "model.safetensors")
    parents = []
    for number, parent in enumerate(context.parents):
        spoil(parent.weights, token, folder / f"parent-{number}.safetensors")
        parents.append(replace(parent, weights=folder / f"parent-{number}.safetensors"))
    data = context.data.model_copy(update={"encoder": str(encoder)})
    return replace(context, data=data, parents=tuple(parents))


def spoil(weights: Path, token: int, target: Path) -> None:
    """Writes the weights with an embedding of `token` that is not a number."""
    tensors = load_file(weights)
    (name,) = [name for name in tensors if name.endswith("word_embeddings.weight")]
    tensors[name][token] = torch.nan
    write_tensors(target, tensors, {"format": "pt"})
