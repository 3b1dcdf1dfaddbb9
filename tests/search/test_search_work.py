"""What a search hands out, what it answers from the ledger, and when it ends."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.plan import Plan
from orchestrator.search import Search
from results.parts import attempt_part, write_part
from search_spaces.space import Choice, Float, Space

VARIANTS = ("stopping", "promotion")

Plans = Callable[..., Plan]
Drivers = Callable[..., Any]
Decisions = Callable[..., list[dict[str, Any]]]


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


def test_what_another_sweep_reports_while_a_worker_waits_is_judged_before_the_workers_own_reports(
    plan_of: Plans, driver: Drivers, decisions: Decisions, recorded: Callable[..., None], tmp_path: Path
) -> None:
    running = driver(plan := plan_of(trials=2))
    running.begin()
    trial = running.search.next()
    recorded(plan, trial, [0.4, 0.3], "stopped")
    write_part(tmp_path, "attempts", attempt_part(trial.key, 2), [{"trial_key": trial.key, "attempt": 2, "resumed_step": 2}])
    report = {"trial_key": trial.key, "attempt": 2, "step": 3, "epoch": 3.0, "val_qa_loss": 0.2}
    write_part(tmp_path, "reports", attempt_part(trial.key, 2), [report])
    assert running.search.reported(trial.key, {"epoch": 3.0, "val_qa_loss": 0.2}) is None
    assert [(row["epoch"], row["value"]) for row in decisions(plan, "judged")] == [(1, 0.4), (2, 0.3), (3, 0.2)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_trial_that_another_sweep_completes_while_its_worker_waits_is_answered_from_the_ledger(
    plan_of: Plans, driver: Drivers, decisions: Decisions, recorded: Callable[..., None], tmp_path: Path, variant: str
) -> None:
    plan = plan_of(trials=4, variant=variant)
    running = driver(plan)
    running.begin()
    trial = running.search.next()
    recorded(plan, trial, [0.4, 0.3, 0.2, 0.1])
    running.search.ended(trial.key, "completed", None, None)  # its worker found nothing left to do
    while running.step():
        pass
    rows = [row for row in decisions(plan) if row["trial_key"] == trial.key]
    assert [row["epoch"] for row in rows if row["kind"] == "judged"] == [1, 2, 3, 4]
    assert [(row["action"], row["value"]) for row in rows if row["kind"] == "ended"] == [("completed", 0.1)]
    assert trial.key not in running.handed_out
    assert Search(plan, tmp_path).num_done == 4


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
    again = driver(plan)
    assert (again.search.num_left, again.search.total) == (0, 3)  # nothing is started only to find that out


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


def test_trials_that_the_ledger_answers_are_promoted_among_each_other(
    plan_of: Plans, driver: Drivers, decisions: Decisions, tmp_path: Path
) -> None:
    """Nobody runs while the last of them is heard, so no later report asks for a promotion."""
    whole = plan_of(trials=4, variant="stopping", grace=float(plan_of().search.settings.max_epochs))
    driver(whole).run()  # trains every trial to its end
    again = plan_of(trials=4, variant="promotion")
    assert again.sweep_id != whole.sweep_id
    running = driver(again).run()
    assert running.handed_out == []
    assert decisions(again, "promoted")
    assert [row["action"] for row in decisions(again, "ended")].count("completed") >= 1
    assert running.search._asha.promotable() is None
