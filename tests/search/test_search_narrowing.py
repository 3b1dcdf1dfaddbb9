"""Narrowing: stage by stage, each around the winner of the last."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import SweepError
from orchestrator.plan import Plan
from orchestrator.search import Search
from orchestrator.trial import Trial
from search_spaces.space import Choice
from search_spaces.stages import Narrowing, Stage

Drivers = Callable[..., Any]
Decisions = Callable[..., list[dict[str, Any]]]

STAGES = Narrowing(
    name="three",
    trainable="exbert",
    start={"model.n_layers": 3, "model.num_experts": 8, "training.learning_rate": 5e-4, "model.dropout_placement": "none"},
    stages=(
        Stage(name="experts", dimensions={"model.num_experts": Choice([4, 6, 8])}),
        Stage(name="blocks", dimensions={"model.n_layers": Choice([1, 2, 3])}),
        Stage(name="rate", dimensions={"training.learning_rate": Choice([5e-4, 1e-3])}),
    ),
)


def best_in_the_middle(trial: Trial, epoch: float) -> float:
    """Best with 6 experts, then 2 blocks, then the higher rate."""
    model = trial.config.model
    return abs(model.num_experts - 6) + abs(model.n_layers - 2) - 100 * trial.config.training.learning_rate + 1 / epoch


@pytest.fixture
def plan(plan_of: Callable[..., Plan]) -> Plan:
    return plan_of(space=STAGES, max_epochs=2)


def tried(decisions: Decisions, plan: Plan) -> list[tuple[str, int, int, float]]:
    rows = [(row["stage"], json.loads(row["parameters"])) for row in decisions(plan, "suggested")]
    names = ("model.num_experts", "model.n_layers", "training.learning_rate")
    return [(stage, *(values[name] for name in names)) for stage, values in rows]


def test_each_stage_is_tried_around_the_winner_of_the_last(plan: Plan, driver: Drivers, decisions: Decisions) -> None:
    running = driver(plan, slots=2, loss=best_in_the_middle).run()
    assert tried(decisions, plan) == [
        *[("experts", experts, 3, 5e-4) for experts in (4, 6, 8)],
        *[("blocks", 6, blocks, 5e-4) for blocks in (1, 2, 3)],
        *[("rate", 6, 2, rate) for rate in (5e-4, 1e-3)],
    ]
    rows = decisions(plan, "suggested")
    keys = [row["trial_key"] for row in rows]
    assert [row["parent_key"] for row in rows] == [None] * 3 + [keys[1]] * 3 + [keys[4]] * 2
    assert (running.search.num_left, running.search.num_done, running.search.total) == (0, 8, 8)


def test_a_winner_met_again_in_the_next_stage_is_answered_from_the_ledger(
    plan: Plan, driver: Drivers, decisions: Decisions
) -> None:
    running = driver(plan, loss=best_in_the_middle).run()
    keys = [row["trial_key"] for row in decisions(plan, "suggested")]
    assert keys[5] == keys[1]  # 6 experts, 3 blocks
    assert keys[6] == keys[4]  # 2 blocks at the usual rate
    assert len(running.handed_out) == len(set(keys)) == 6
    ended = {row["number"]: (row["action"], row["value"]) for row in decisions(plan, "ended")}
    assert set(ended) == set(range(8))
    assert ended[5] == ended[1]
    assert ended[6] == ended[4]


def test_no_trial_of_a_narrowing_is_stopped_early(plan: Plan, driver: Drivers, decisions: Decisions) -> None:
    assert plan.search.settings.rungs == []
    driver(plan, loss=best_in_the_middle).run()
    assert {row["action"] for row in decisions(plan, "judged")} == {"go on", "finished"}
    assert all(row["rung"] is None for row in decisions(plan, "judged"))


def test_the_next_stage_waits_for_every_trial_of_the_last(plan: Plan, driver: Drivers) -> None:
    running = driver(plan, slots=4, loss=best_in_the_middle)
    running.begin()
    begun = [running.ask().key for _ in range(3)]
    for key in begun[:2]:
        while key in running.workers:
            running.advance(key)
        assert running.ask() is None
        assert running.search.num_left == 8 - 2 + (0 if key == begun[1] else 1)
    while begun[2] in running.workers:
        running.advance(begun[2])
    assert running.ask() is not None


def test_a_failed_or_diverged_trial_wins_no_stage(
    plan: Plan, driver: Drivers, decisions: Decisions, failed: Callable[[str], Exception]
) -> None:
    def loss(trial: Trial, epoch: float) -> float:
        if trial.config.model.num_experts == 6:
            raise failed("boom")
        if trial.config.model.num_experts == 4:
            return -5.0 if epoch < 2 else math.nan
        return best_in_the_middle(trial, epoch)

    running = driver(plan, loss=loss).run()
    assert {experts for stage, experts, _, _ in tried(decisions, plan) if stage != "experts"} == {8}
    assert running.search.num_left == 0
    assert running.search.num_done == 7  # the diverged one was stopped, the failed one is not done


def test_a_stage_without_a_winner_is_an_error_that_says_what_to_do(
    plan: Plan, driver: Drivers, decisions: Decisions, failed: Callable[[str], Exception]
) -> None:
    def loss(trial: Trial, epoch: float) -> float:
        if trial.config.model.n_layers == 3:
            raise failed("boom")
        return 1.0

    for _ in range(2):  # also when asked once more
        with pytest.raises(SweepError, match=r"no trial of stage experts completed, .*`retry --failed`"):
            driver(plan, loss=loss).run()
    keys = [row["trial_key"] for row in decisions(plan, "suggested")]
    assert len(keys) == 3
    mended = driver(plan, loss=best_in_the_middle, retry=keys).run()
    assert mended.handed_out[:3] == keys
    assert mended.search.num_done == 8


def test_a_narrowing_killed_again_and_again_decides_as_one_left_alone(
    plan: Plan, driver: Drivers, decisions: Decisions, tmp_path: Path
) -> None:
    driver(plan, storage=tmp_path / "alone", loss=best_in_the_middle).run()
    for kills in range(40):
        killed = driver(plan, loss=best_in_the_middle)
        killed.begin()
        if not all(killed.step() for _ in range(kills % 4 + 2)):
            break
        killed.kill()
    assert kills > 3
    assert decisions(plan) == decisions(plan, storage=tmp_path / "alone")


def test_a_limit_holds_within_a_stage_and_across_stages(
    plan: Plan, driver: Drivers, decisions: Decisions, tmp_path: Path
) -> None:
    for limit, suggested in ((2, 2), (2, 4), (9, 8)):
        limited = driver(plan, loss=best_in_the_middle)
        limited.search.limit(limit)
        limited.run()
        assert limited.search.num_left == 0
        assert len(decisions(plan, "suggested")) == suggested
    assert Search(plan, tmp_path).num_done == 8
