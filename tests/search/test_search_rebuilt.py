"""Whatever happens to a search's driver, the ledger alone says how the search goes on."""

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.decisions import load_decisions
from orchestrator.errors import SweepError
from orchestrator.plan import Plan
from orchestrator.search import Search
from orchestrator.trial import Trial
from results.parts import write_part

VARIANTS = ("stopping", "promotion")

Plans = Callable[..., Plan]
Drivers = Callable[..., Any]
Decisions = Callable[..., list[dict[str, Any]]]


def some_diverge(failed: Callable[[str], Exception]) -> Callable[[Trial, float], float]:
    """Losses that cross; for larger rates NaN from the second epoch on, or a worker that raises because of it."""

    def loss(trial: Trial, epoch: float) -> float:
        if trial.config.training.learning_rate > 1e-3 and epoch > 1:
            if trial.config.model.n_layers > 1:
                raise failed("diverged")
            return math.nan
        return trial.config.training.learning_rate * 100 + trial.config.model.num_experts / epoch

    return loss


@pytest.mark.parametrize(("variant", "slots"), [pytest.param("stopping", 2, marks=pytest.mark.slow), ("promotion", 3)])
def test_at_every_moment_the_ledger_alone_gives_the_search_as_it_is(
    plan_of: Plans,
    driver: Drivers,
    state: Callable[[Search], Any],
    failed: Callable[[str], Exception],
    tmp_path: Path,
    variant: str,
    slots: int,
) -> None:
    plan = plan_of(variant=variant, trials=7)
    running = driver(plan, slots=slots, seed=slots, loss=some_diverge(failed))
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
    num_left, num_done = second.search.num_left, second.search.num_done
    assert second.begin() == [(trial.key, "asha (rung 1)")]
    assert second.shown == [trial.key]
    assert (second.search.num_left, second.search.num_done) == (num_left - 1, num_done + 1)
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
