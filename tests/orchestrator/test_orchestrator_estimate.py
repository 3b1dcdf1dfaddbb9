"""What past trials say about trials to come: their seconds, the order in which they start, and what that saves."""

import heapq
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.estimate import Expected, estimate, expected_seconds, local_slots, longest_first
from orchestrator.plan import Plan
from orchestrator.preset import Resources, load_preset
from orchestrator.record import record_plan
from orchestrator.trial import Trial
from orchestrator.work import FixedWork
from results.parts import attempt_part, write_part
from trainables.config import MixtureConfig
from trainables.data.spec import DataSpec, DomainSpec
from trainables.distilbert.config import Config

NOW = datetime(2026, 11, 22, tzinfo=UTC)
DATA = DataSpec(encoder="/encoder", domains={"squad": DomainSpec(train="/squad.json")})


def a_trial(seed: int, size: int = 100) -> Trial:
    config = Config(mixture=MixtureConfig(size=size))
    return Trial(trainable="distilbert", version=1, config=config, data=DATA, data_fingerprint="0" * 64, seed=seed)


def makespan(seconds: Sequence[float], slots: int) -> float:
    """When the last trial ends, each starting in its turn on the first free slot."""
    free_at = [0.0] * slots
    for each in seconds:
        heapq.heappush(free_at, heapq.heappop(free_at) + each)
    return max(free_at)


def test_the_longest_start_first_and_equals_keep_the_order_of_the_plan() -> None:
    trials = [a_trial(seed) for seed in range(5)]
    seconds = [1.0, 3.0, 2.0, 3.0, 1.0]
    expected = {trial.key: Expected(each, "cpu") for trial, each in zip(trials, seconds, strict=True)}
    assert [trial.seed for trial in longest_first(trials, expected)] == [1, 3, 2, 0, 4]


def test_what_nobody_knows_starts_before_all_else_and_without_a_past_the_plan_stays_as_it_is() -> None:
    trials = [a_trial(seed) for seed in range(4)]
    assert [trial.seed for trial in longest_first(trials, {trials[1].key: Expected(9.0, None)})] == [0, 2, 3, 1]
    assert longest_first(trials, {}) == trials


def test_the_order_shortens_the_tail() -> None:
    """Twelve short trials and then four long ones, as a grid has them whose second model is the larger one."""
    trials = [a_trial(seed) for seed in range(16)]
    seconds = {trial.key: 10.0 if trial.seed < 12 else 40.0 for trial in trials}
    order = longest_first(trials, {key: Expected(each, "cpu") for key, each in seconds.items()})
    assert makespan([seconds[trial.key] for trial in trials], slots=3) == 120.0
    assert makespan([seconds[trial.key] for trial in order], slots=3) == 100.0


@pytest.mark.parametrize("slots", [2, 3, 8])
def test_over_many_sweeps_the_order_never_ends_later_than_a_third_above_the_least_possible(slots: int) -> None:
    """Graham's bound, 4/3 - 1/(3 slots), here even against what no order can go below."""
    draw = random.Random(0)
    trials = [a_trial(seed) for seed in range(24)]
    for _ in range(200):
        expected = {trial.key: Expected(draw.expovariate(0.1), "cpu") for trial in trials}
        seconds = [expected[trial.key].seconds for trial in longest_first(trials, expected)]
        two_share = seconds[slots - 1] + seconds[slots]  # of the slots + 1 longest, two are on one slot
        least = max(sum(seconds) / slots, seconds[0], two_share)
        assert makespan(seconds, slots) <= (4 / 3 - 1 / (3 * slots)) * least + 1e-9


def test_seconds_follow_the_examples_to_go_and_only_the_kind_that_the_ledger_knows(tmp_path: Path) -> None:
    past = a_trial(seed=0, size=100)
    record_plan(tmp_path, Plan(kind="grid", preset=load_preset("embedded"), trials=(past,)), NOW)
    ended = {"trial_key": past.key, "attempt": 1, "status": "completed"}
    write_part(tmp_path, "events", "e", [{**ended, "happened_at": NOW}])
    spent = {"train_seconds": 90.0, "startup_seconds": 10.0, "device": "cpu", "started_at": NOW}
    write_part(tmp_path, "attempts", attempt_part(past.key, 1), [{**ended, **spent}])
    longer = a_trial(seed=1, size=250)
    shorter_windows = past.config.training.model_copy(update={"max_length": 128, "stride": 32})
    other = replace(past, config=past.config.model_copy(update={"training": shorter_windows}))
    found = expected_seconds([past, longer, other], tmp_path)
    assert found == {past.key: Expected(100.0, "cpu"), longer.key: Expected(250.0, "cpu")}
    known = estimate([past, longer, other], tmp_path, Resources(gpus_per_trial=0))
    assert (known.trial_seconds, known.unknown, known.devices) == (350.0, 1, ("cpu",))


def test_work_hands_out_the_longest_first_but_a_limit_takes_the_first_of_the_plan() -> None:
    trials = [a_trial(seed, size) for seed, size in enumerate([100, 300, 200])]
    expected = {trial.key: Expected(float(trial.config.mixture.size), "cpu") for trial in trials}
    work = FixedWork(trials, 0, 3, expected)
    assert [trial.seed for trial in work.known] == [1, 2, 0]
    first = work.next()
    assert first is not None
    assert first.seed == 1
    work.limit(2)
    assert [trial.seed for trial in work.known] == [1, 0]


def test_work_holds_children_back_until_all_their_parents_are_done_and_blocks_those_of_a_failed_one() -> None:
    first, second, lone = (a_trial(seed, 100) for seed in range(3))
    child = replace(a_trial(3, 100), parents=(first, second))
    grandchild = replace(a_trial(4, 100), parents=(child,))
    work = FixedWork([first, second, child, grandchild, lone], 0, 5, {child.key: Expected(1e6, "cpu")})
    assert work.waits
    handed = [work.next() for _ in range(4)]
    assert handed == [first, second, lone, None]
    work.ended(first.key, "completed", None, None)
    assert work.next() is None
    work.ended(second.key, "completed", None, None)
    assert work.next() == child
    assert work.next() is None
    work.hand_out_again()  # the backend could not begin it
    assert {trial.key for trial in (work.next(), work.next()) if trial} == {lone.key, child.key}
    work.ended(child.key, "failed", None, None)
    work.ended(lone.key, "completed", None, None)
    assert (work.next(), work.num_left, work.num_done, work.waits) == (None, 0, 3, False)


def test_a_trial_that_begins_from_several_blocked_ones_is_blocked_once() -> None:
    parent = a_trial(0, 100)
    first = replace(a_trial(1, 100), parents=(parent,))
    second = replace(a_trial(2, 100), parents=(parent, first))
    work = FixedWork([parent, first, second], 0, 3)
    assert work.next() == parent
    work.ended(parent.key, "failed", None, None)
    assert (work.next(), work.num_left) == (None, 0)


def test_trials_that_share_a_gpu_are_slots_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.estimate.num_cpus", lambda: 16)
    monkeypatch.setattr("orchestrator.estimate.num_gpus", lambda: 2)
    assert local_slots(Resources()) == 2
    assert local_slots(Resources(trials_per_gpu=4)) == 8
    assert local_slots(Resources(trials_per_gpu="auto")) == 2
    assert local_slots(Resources(gpus_per_trial=0)) == 16
    assert local_slots(Resources(trials_per_gpu=4, max_concurrent=3)) == 3
