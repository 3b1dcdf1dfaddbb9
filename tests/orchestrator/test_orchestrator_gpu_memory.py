"""How many trials share a GPU: the arithmetic, what is measured, and that it is measured once."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch

from orchestrator.gpu_memory import GpuUse, hungriest, measure, measured_before, shortened, train_some
from orchestrator.plan import plan_grid
from orchestrator.preset import load_preset
from orchestrator.trial import Trial
from results.parts import write_part

GIB = 2**30
NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def trials(tmp_path: Path, preset_file: Callable[..., Path]) -> list[Trial]:
    """A grid of both models, with test examples that would take long."""
    preset = load_preset(str(preset_file(shares=[60], orders=["shuffled"], evaluation={})))
    return list(plan_grid(preset, tmp_path / "storage").trials)


@pytest.mark.parametrize(
    ("peak_gib", "total_gib", "trials"),
    [(4.0, 24.0, 5), (3.99, 24.0, 5), (5.0, 24.0, 4), (20.0, 24.0, 1), (23.9, 24.0, 1), (90.0, 139.0, 1), (10.0, 139.0, 11)],
)
def test_as_many_trials_share_a_gpu_as_fit_with_headroom_and_never_none(peak_gib: float, total_gib: float, trials: int) -> None:
    use = GpuUse("a GPU", int(peak_gib * GIB), int(total_gib * GIB))
    assert use.trials == trials
    assert trials == 1 or trials * peak_gib * 1.2 <= total_gib


def test_one_trial_of_each_trainable_is_measured_the_one_with_the_largest_batches(trials: list[Trial]) -> None:
    [dense, experts] = trials
    training = dense.config.training.model_copy(update={"batch_size": 64})
    larger = replace(dense, config=dense.config.model_copy(update={"training": training}))
    assert hungriest([dense, larger, experts, dense]) == [larger, experts]
    more = replace(
        experts, config=experts.config.model_copy(update={"model": experts.config.model.model_copy(update={"num_experts": 8})})
    )
    assert hungriest([experts, more]) == [more]


def test_what_is_measured_is_a_real_training_that_ends_before_any_evaluation(trials: list[Trial], tmp_path: Path) -> None:
    trial = trials[0]
    short = shortened(trial).config
    assert short.model == trial.config.model
    assert short.training.batch_size == trial.config.training.batch_size
    assert short.mixture.size <= trial.config.mixture.size
    report = train_some(trial, tmp_path / "storage", "cpu", num_threads=1)
    assert report.step >= 1
    assert report.metrics["train_qa_loss"] is not None
    assert report.evaluations == ()


def test_what_begins_from_others_is_measured_with_parents_of_their_size(
    tmp_path: Path, preset_file: Callable[..., Path]
) -> None:
    preset = load_preset(str(preset_file(shares=[60], orders=["shuffled"], trainables=["gated_ensemble:logits"])))
    ensemble = plan_grid(preset, tmp_path / "storage").trials[-1]
    assert ensemble.stage == 2
    report = train_some(ensemble, tmp_path / "storage", "cpu", num_threads=1)
    experts = 2 * train_some(ensemble.parents[0], tmp_path / "storage", "cpu", num_threads=1).params_total
    assert report.params_total > experts + report.params_trainable
    assert not (tmp_path / "storage" / "checkpoints").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_trial_takes_some_of_the_gpu_and_not_all(trials: list[Trial], tmp_path: Path) -> None:
    use = measure(trials, tmp_path / "storage", num_threads=1)
    assert 0 < use.peak_bytes < use.total_bytes


def test_the_newest_measurement_of_the_sweep_is_found_again(tmp_path: Path) -> None:
    old, new = GpuUse("old", 1 * GIB, 24 * GIB), GpuUse("new", 2 * GIB, 24 * GIB)
    assert measured_before(tmp_path, "grid-1") is None
    runs = [("r1", "grid-1", old.columns), ("r2", "grid-1", new.columns), ("r3", "grid-1", {}), ("r4", "grid-2", old.columns)]
    for minutes, (run_id, sweep_id, columns) in enumerate(runs):
        row = {"run_id": run_id, "sweep_id": sweep_id, "started_at": NOW + timedelta(minutes=minutes), **columns}
        write_part(tmp_path, "runs", run_id, [row])
    assert measured_before(tmp_path, "grid-1") == new
