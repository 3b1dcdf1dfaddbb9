"""A search drives simulated workers: whatever happens to its driver, the ledger alone says how it goes on."""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.decisions import load_decisions
from orchestrator.errors import SweepError
from orchestrator.plan import Plan
from orchestrator.search import Search
from orchestrator.search_spec import SearchSpec
from orchestrator.trial import Trial
from results.parts import write_part
from search_spaces.space import Choice, Float, Space

VARIANTS = ("stopping", "promotion")

Plans = Callable[..., Plan]
Drivers = Callable[..., Any]
Decisions = Callable[..., list[dict[str, Any]]]


def two_diverge(trial: Trial, epoch: float) -> float:
    """Losses that cross, and NaN for the largest rates from the second epoch on."""
    if trial.config.training.learning_rate > 1e-3 and epoch > 1:
        return math.nan
    return trial.config.training.learning_rate * 100 + trial.config.model.num_experts / epoch


@pytest.mark.parametrize(("variant", "slots", "seed"), [("stopping", 2, 1), ("promotion", 3, 3)])
def test_at_every_moment_the_ledger_alone_gives_the_search_as_it_is(
    plan_of: Plans, driver: Drivers, state: Callable[[Search], Any], tmp_path: Path, variant: str, slots: int, seed: int
) -> None:
    plan = plan_of(variant=variant, trials=8)
    running = driver(plan, slots=slots, seed=seed, loss=two_diverge)
    moments = 0

    def compare() -> None:
        nonlocal moments
        moments += 1
        assert state(Search(plan, tmp_path)) == state(running.search)

    running.run(compare)
    assert moments > 20
    kinds = Counter(status for _, status in running.ended)
    assert kinds["completed"] and kinds["stopped"]
    assert running.search.num_left == 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_search_killed_after_every_few_steps_decides_as_one_left_alone(
    plan_of: Plans, driver: Drivers, decisions: Decisions, tmp_path: Path, variant: str
) -> None:
    plan = plan_of(variant=variant, trials=5)
    alone = driver(plan, storage=tmp_path / "alone").run()
    kills = 0
    while kills < 60:
        killed = driver(plan)
        killed.begin()
        left = kills % 3 + 2  # a kill takes the work of one step with it where the checkpoint is older
        while left and killed.step():
            left -= 1
        if left:
            break
        killed.kill(at_checkpoint=kills % 2 == 0)
        kills += 1
    assert kills > 5
    assert decisions(plan) == decisions(plan, storage=tmp_path / "alone")
    assert killed.search.num_done == alone.search.num_done == 5


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_report_that_no_driver_heard_is_judged_once_by_the_next(
    plan_of: Plans, driver: Drivers, decisions: Decisions, variant: str
) -> None:
    plan = plan_of(variant=variant)
    first = driver(plan)
    first.begin()
    trial = first.ask()
    first.report_unheard(trial.key)
    first.kill(at_checkpoint=False)
    assert decisions(plan, "judged") == []
    second = driver(plan)
    to_end = second.begin()
    [judged] = decisions(plan, "judged")
    assert (judged["trial_key"], judged["epoch"]) == (trial.key, 1)
    assert [key for key, _ in to_end] == ([trial.key] if variant == "promotion" else [])  # it was due to pause there
    while second.step():
        pass
    heard = Counter((row["trial_key"], row["epoch"]) for row in decisions(plan, "judged"))
    assert set(heard.values()) == {1}


def test_a_stop_that_its_driver_could_not_carry_out_is_carried_out_by_the_next(
    plan_of: Plans, driver: Drivers, decisions: Decisions
) -> None:
    plan = plan_of()
    first = driver(plan, loss=lambda trial, epoch: float(len(first.handed_out)))  # each worse than the one before
    first.begin()
    for _ in range(2):
        trial = first.ask()
        first.report_unheard(trial.key)
        stop = first.search.reported(trial.key, {"epoch": 1.0, "val_qa_loss": float(len(first.handed_out))})
    assert stop == "asha (rung 1)"
    first.kill()
    second = driver(plan)
    assert second.begin() == [(trial.key, "asha (rung 1)")]
    assert second.shown == [trial.key]
    third = driver(plan)
    assert third.begin() == []
    assert second.search.num_left == third.search.num_left


def test_a_suggestion_is_handed_out_again_when_its_driver_died_at_once(
    plan_of: Plans, driver: Drivers, decisions: Decisions
) -> None:
    plan = plan_of()
    first = driver(plan)
    first.begin()
    trial = first.search.next()
    second = driver(plan)
    second.begin()
    assert second.search.next().key == trial.key
    assert len(decisions(plan, "suggested")) == 1


def test_what_a_backend_could_not_begin_is_handed_out_once_more(plan_of: Plans, driver: Drivers) -> None:
    running = driver(plan_of())
    running.begin()
    trials = [running.search.next() for _ in range(2)]
    left = running.search.num_left
    running.search.hand_out_again()
    assert running.search.num_left == left == 6
    assert [running.search.next().key for _ in range(2)] == [trial.key for trial in trials]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_suggestion_that_the_ledger_has_completed_is_answered_from_it(
    plan_of: Plans, driver: Drivers, decisions: Decisions, recorded: Callable[..., None], tmp_path: Path, variant: str
) -> None:
    plan = plan_of(variant=variant, trials=4)
    elsewhere = driver(plan, storage=tmp_path / "elsewhere")
    elsewhere.begin()
    known = elsewhere.search.next()
    recorded(plan, known, [0.4, 0.3, 0.2, 0.1])
    running = driver(plan).run()
    assert known.key not in running.handed_out
    assert len(set(running.handed_out)) == 3
    rows = [row for row in decisions(plan) if row["trial_key"] == known.key]
    kinds = [(row["kind"], row["epoch"], row["value"], row["action"]) for row in rows if row["kind"] != "suggested"]
    actions = {"stopping": ["go on", "go on"], "promotion": ["pause", "pause"]}[variant]
    assert [kind for kind in kinds if kind[0] != "promoted"] == [
        ("judged", 1, 0.4, actions[0]),
        ("judged", 2, 0.3, actions[1]),
        ("judged", 3, 0.2, "go on"),
        ("judged", 4, 0.1, "finished"),
        ("ended", None, 0.1, "completed"),
    ]
    assert sum(kind[0] == "promoted" for kind in kinds) == (2 if variant == "promotion" else 0)
    assert running.search.num_done == running.search.total == 4
    told = {told.number: told for told in running.search._history}[0]
    assert (told.state, told.value, told.intermediate) == ("completed", 0.1, {1: 0.4, 2: 0.3, 3: 0.2, 4: 0.1})


def test_a_bad_suggestion_that_the_ledger_has_completed_counts_as_stopped_where_it_would_have_been(
    plan_of: Plans, driver: Drivers, decisions: Decisions, recorded: Callable[..., None], tmp_path: Path
) -> None:
    plan = plan_of(trials=3, sampler="random")
    elsewhere = driver(plan, storage=tmp_path / "elsewhere", slots=2)
    elsewhere.begin()
    elsewhere.search.next()
    known = elsewhere.search.next()
    recorded(plan, known, [90.0, 0.3, 0.2, 0.1])
    running = driver(plan).run()
    assert known.key not in running.handed_out
    rows = [(row["kind"], row["epoch"], row["action"]) for row in decisions(plan) if row["trial_key"] == known.key]
    assert rows == [("suggested", None, None), ("judged", 1, "stop")]
    assert {told.number: told.state for told in running.search._history}[1] == "stopped"


def test_a_suggestion_that_another_sweep_has_begun_is_judged_so_far_and_gone_on_with(
    plan_of: Plans, driver: Drivers, decisions: Decisions, recorded: Callable[..., None], tmp_path: Path
) -> None:
    plan = plan_of(trials=2)
    elsewhere = driver(plan, storage=tmp_path / "elsewhere")
    elsewhere.begin()
    known = elsewhere.search.next()
    recorded(plan, known, [0.4, 0.3], "stopped")
    running = driver(plan)
    running.begin()
    assert running.ask().key == known.key
    assert [row["epoch"] for row in decisions(plan, "judged")] == [1, 2]
    running.advance(known.key)
    assert [row["epoch"] for row in decisions(plan, "judged")] == [1, 2, 3]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_trial_that_another_sweep_completes_while_its_worker_waits_is_answered_from_the_ledger(
    plan_of: Plans, driver: Drivers, decisions: Decisions, recorded: Callable[..., None], tmp_path: Path, variant: str
) -> None:
    plan = plan_of(trials=4, variant=variant)
    running = driver(plan)
    running.begin()
    trial = running.search.next()
    recorded(plan, trial, [0.4, 0.3, 0.2, 0.1])
    running.search.ended(trial.key, "completed", None)  # its worker found nothing left to do
    while running.step():
        pass
    rows = [row for row in decisions(plan) if row["trial_key"] == trial.key]
    assert [row["epoch"] for row in rows if row["kind"] == "judged"] == [1, 2, 3, 4]
    assert [(row["action"], row["value"]) for row in rows if row["kind"] == "ended"] == [("completed", 0.1)]
    assert trial.key not in running.handed_out
    assert Search(plan, tmp_path).num_done == 4


def fails_once(failed: Callable[[str], Exception]) -> Callable[[Trial, float], float]:
    """The second trial that is begun fails at its second epoch."""
    begun: list[str] = []

    def loss(trial: Trial, epoch: float) -> float:
        if trial.key not in begun:
            begun.append(trial.key)
        if begun.index(trial.key) == 1 and epoch == 2:
            raise failed("boom")
        return -float(begun.index(trial.key)) if epoch == 1 else 1.0  # ever better, so all are promoted

    return loss


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_failed_trial_is_told_as_failed_and_only_retry_hands_it_out_again(
    plan_of: Plans, driver: Drivers, decisions: Decisions, failed: Callable[[str], Exception], tmp_path: Path, variant: str
) -> None:
    plan = plan_of(trials=4, variant=variant)
    running = driver(plan, loss=fails_once(failed)).run()
    [row] = [row for row in decisions(plan, "ended") if row["action"] == "failed"]
    key, number = row["trial_key"], row["number"]
    assert row["value"] is None
    assert {told.number: told for told in running.search._history}[number].state == "failed"
    assert running.search.num_left == 0
    assert running.search.num_done == 3
    assert driver(plan).run().handed_out == []
    again = driver(plan, retry=[key])
    assert again.search.num_left == 1
    again.run()
    assert again.handed_out[0] == key
    ended = [row["action"] for row in decisions(plan, "ended") if row["trial_key"] == key]
    assert ended in (["failed", "completed"], ["failed"])
    heard = Counter((row["trial_key"], row["epoch"]) for row in decisions(plan, "judged"))
    assert set(heard.values()) == {1}
    assert again.search.num_done == Search(plan, tmp_path).num_done == 4


def test_a_retry_that_is_killed_is_gone_on_with(
    plan_of: Plans, driver: Drivers, decisions: Decisions, failed: Callable[[str], Exception], tmp_path: Path
) -> None:
    plan = plan_of(trials=3)
    driver(plan, loss=fails_once(failed)).run()
    [row] = [row for row in decisions(plan, "ended") if row["action"] == "failed"]
    key = row["trial_key"]
    retried = driver(plan, retry=[key])
    # As a run says when it tries a failed trial again: standing.RETRY
    event = {"trial_key": key, "status": "planned", "reason": "retry", "happened_at": retried.now().replace(year=2027)}
    write_part(tmp_path, "events", "retry", [event])
    retried.begin()
    retried.ask()
    retried.kill()
    resumed = driver(plan)
    assert resumed.search.num_left == 1
    assert resumed.run().handed_out == [key]
    assert resumed.search.num_done == 3


@dataclass(frozen=True, kw_only=True)
class Coarse(SearchSpec):
    """Whatever the number of blocks, the trial has one of them."""

    def trial_at(self, values: Mapping[str, Any], number: int) -> Trial:
        return super().trial_at({**values, "model.n_layers": 3}, number)


def test_a_point_whose_trial_runs_under_another_number_is_not_run_twice(
    plan_of: Plans, driver: Drivers, decisions: Decisions, small: Space, state: Callable[[Search], Any], tmp_path: Path
) -> None:
    plan = plan_of(space=small, trials=12)
    plan = replace(plan, search=Coarse(settings=plan.search.settings, space=small, base=plan.search.base))
    running = driver(plan, slots=3)
    running.run()
    assert state(Search(plan, tmp_path)) == state(running.search)
    assert len(set(running.handed_out)) == 3
    assert running.search.num_left == 0
    assert {row["trial_key"] for row in decisions(plan, "suggested")} == set(running.handed_out)
    again = driver(plan, retry=running.handed_out)
    assert again.search.num_left == 0
    assert again.run().handed_out == []


def test_a_trial_that_fails_at_its_pause_is_not_taken_up_again(
    plan_of: Plans, driver: Drivers, state: Callable[[Search], Any], tmp_path: Path
) -> None:
    plan = plan_of(trials=4, variant="promotion")
    running = driver(plan, loss=lambda trial, epoch: -10.0 if len(running.handed_out) == 1 else 1.0)
    running.begin()
    best = running.ask()
    running.advance(best.key)
    running.fail(best.key, "its checkpoint could not be written")
    while running.step():
        pass
    assert running.handed_out.count(best.key) == 1
    assert running.search.num_left == 0
    assert state(Search(plan, tmp_path)) == state(running.search)


@pytest.mark.parametrize("variant", VARIANTS)
def test_counts_of_what_is_left_and_done(plan_of: Plans, driver: Drivers, variant: str) -> None:
    plan = plan_of(trials=4, variant=variant)
    running = driver(plan)
    assert (running.search.num_left, running.search.num_done, running.search.total) == (4, 0, 4)
    assert running.search.known is None
    running.run()
    assert (running.search.num_left, running.search.num_done, running.search.total) == (0, 4, 4)
    again = driver(plan)
    assert (again.search.num_left, again.search.num_done, again.search.total) == (0, 4, 4)
    assert again.run().handed_out == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_limit_bounds_what_one_run_begins_and_what_was_begun_comes_first(
    plan_of: Plans, driver: Drivers, decisions: Decisions, variant: str
) -> None:
    plan = plan_of(trials=6, variant=variant, sampler="random")
    first = driver(plan, slots=2)
    first.begin()
    begun = [first.ask().key, first.ask().key]
    first.kill()
    second = driver(plan)
    second.search.limit(1)
    assert second.search.num_left == 1
    assert set(second.run().handed_out) == {begun[0]}
    third = driver(plan)
    third.search.limit(2)
    assert third.search.total == 6
    assert third.search.num_left == 2
    third.run()
    assert third.handed_out[0] == begun[1]
    assert len(decisions(plan, "suggested")) == 3
    assert third.search.num_left == 0


def test_a_limit_of_none_suggests_nothing_but_brings_what_was_tried_to_its_end(
    plan_of: Plans, driver: Drivers, decisions: Decisions
) -> None:
    plan = plan_of(trials=4, variant="promotion")
    first = driver(plan)
    first.begin()
    while first.search._asha.promotable() is None:  # until two have paused, and the better of them is to go on
        assert first.step()
    promotable = first.search._tried[int(first.search._asha.promotable())].trial.key
    second = driver(plan)
    second.search.limit(0)
    assert second.search.num_left == 1
    assert set(second.run().handed_out) == {promotable}
    assert len(decisions(plan, "suggested")) == 2
    assert second.search.num_left == 0


def test_more_trials_go_on_with_the_same_search(plan_of: Plans, driver: Drivers, decisions: Decisions, tmp_path: Path) -> None:
    few, many = plan_of(trials=3), plan_of(trials=6)
    assert few.sweep_id == many.sweep_id
    driver(few).run()
    before = decisions(few)
    more = driver(many)
    assert (more.search.num_left, more.search.num_done, more.search.total) == (3, 3, 6)
    more.run()
    assert decisions(many)[: len(before)] == before
    assert len(more.handed_out) == 3
    at_once = driver(many, storage=tmp_path / "at once").run()
    assert decisions(many) == decisions(many, storage=tmp_path / "at once")
    assert at_once.search.num_done == 6
    fewer = driver(few)
    assert (fewer.search.num_left, fewer.search.total) == (0, 6)


def test_a_finite_space_ends_the_search_with_all_its_points(
    plan_of: Plans, driver: Drivers, decisions: Decisions, small: Space
) -> None:
    plan = plan_of(space=small, trials=50)
    running = driver(plan, slots=2).run()
    assert running.search.total == running.search.num_done == 12
    points = {row["parameters"] for row in decisions(plan, "suggested")}
    assert len(points) == 12
    assert driver(plan).run().handed_out == []


def test_a_space_exhausted_by_what_warmed_it_up_ends_the_search_with_fewer_trials(
    plan_of: Plans, driver: Drivers, recorded: Callable[..., None], small: Space
) -> None:
    plan = plan_of(space=small, trials=12, warm_start=True)
    for point in list(small.grid())[:9]:
        recorded(plan, plan.search.trial_at(point, 0), [3.0, 2.0, 1.5, 1.0])
    running = driver(plan, slots=2).run()
    assert len(running.handed_out) == 3
    assert (running.search.num_left, running.search.num_done, running.search.total) == (0, 3, 3)
    assert driver(plan).run().handed_out == []


def test_a_decision_that_this_version_would_not_make_is_refused(
    plan_of: Plans, driver: Drivers, tmp_path: Path, decisions: Decisions
) -> None:
    plan = plan_of(trials=3)
    driver(plan).run()
    [part] = (tmp_path / "ledger" / "decisions").glob("*.parquet")
    rows = load_decisions(tmp_path, plan.sweep_id)
    changed = next(row for row in rows if row["action"] == "go on")
    changed["action"] = "stop"
    write_part(tmp_path, "decisions", part.stem, rows)
    with pytest.raises(
        SweepError,
        match=rf"decides on trial {changed['number']} of {plan.sweep_id} at epoch 1 to go on, where stop is recorded; "
        "start the search anew with another --seed",
    ):
        Search(plan, tmp_path)


def test_two_objectives_both_reach_the_sampler_and_stopped_trials_do_not_break_it(
    plan_of: Plans, driver: Drivers, state: Callable[[Search], Any], tmp_path: Path
) -> None:
    plan = plan_of(trials=7, objectives=["val_qa_loss", "train_seconds"])
    running = driver(plan, slots=2).run()
    assert state(running.search) == state(Search(plan, tmp_path))
    latest = {told.number: told for told in running.search._history}
    assert Counter(told.state for told in latest.values()).keys() == {"completed", "stopped"}
    seconds = {told.second for told in latest.values() if told.state == "completed"}
    assert seconds == {40.0}
    values = running.search._proposer._study._study.best_trials
    assert values
    assert all(trial.values[1] == 40.0 for trial in values)


def test_points_are_recorded_as_they_were_suggested(plan_of: Plans, driver: Drivers, decisions: Decisions) -> None:
    space = Space(
        name="two",
        trainable="exbert",
        dimensions={"training.learning_rate": Float(1e-4, 1e-3), "model.n_layers": Choice([1, 2])},
    )
    plan = plan_of(space=space, trials=2, sampler="random")
    running = driver(plan).run()
    for row in decisions(plan, "suggested"):
        values = json.loads(row["parameters"])
        assert list(values) == ["training.learning_rate", "model.n_layers"]
        assert plan.search.trial_at(values, row["number"]).key == row["trial_key"]
        assert (row["stage"], row["parent_key"]) == (None, None)
    assert running.shown == running.handed_out
