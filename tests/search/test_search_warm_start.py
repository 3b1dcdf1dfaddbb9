"""A new search learns from completed trials of the ledger that are points of its space."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.plan import Plan
from orchestrator.search import Search
from orchestrator.trial import Trial
from orchestrator.warm_start import fitting_trials

Plans = Callable[..., Plan]
Drivers = Callable[..., Any]
Decisions = Callable[..., list[dict[str, Any]]]
Recorded = Callable[..., None]

POINT = {
    "model.n_layers": 2,
    "model.num_experts": 5,
    "training.learning_rate": 4e-4,
    "model.dropout_placement": "before",
    "model.moe_dropout": 0.1,
}


def with_config(trial: Trial, section: str, **changes: Any) -> Trial:
    config = trial.config.resolved()
    config[section] = {**config[section], **changes}
    return replace(trial, config=type(trial.config).model_validate(config))


CHANGES: dict[str, Callable[[Trial], Trial]] = {
    "nothing": lambda trial: trial,
    "fewer epochs": lambda trial: with_config(trial, "training", epochs=2),
    "more epochs": lambda trial: with_config(trial, "training", epochs=9),
    "more validations": lambda trial: with_config(trial, "evaluation", reports_per_epoch=4),
    "another batch size": lambda trial: with_config(trial, "training", batch_size=32),
    "another mixture": lambda trial: with_config(trial, "mixture", share=60),
    "another seed": lambda trial: replace(trial, seed=1),
    "other data": lambda trial: replace(trial, data_fingerprint="other"),
    "another version": lambda trial: replace(trial, version=trial.version + 1),
    "a rate outside the space": lambda trial: with_config(trial, "training", learning_rate=5e-3),
    "a placement outside the space": lambda trial: with_config(trial, "model", moe_dropout=0.2),
}
FITTING = {"nothing": "completed", "more validations": "completed", "fewer epochs": "stopped"}
"""As what the sampler is told of it: of fewer epochs, it is as good as stopped then."""


@pytest.fixture
def plan(plan_of: Plans) -> Plan:
    return plan_of(warm_start=True)


@pytest.mark.parametrize("change", CHANGES)
def test_a_trial_fits_where_it_is_a_point_of_the_space_and_all_else_is_alike(
    plan: Plan, recorded: Recorded, tmp_path: Path, change: str
) -> None:
    trial = CHANGES[change](plan.search.trial_at(POINT, 0))
    recorded(plan, trial, [3.0, 2.0, 1.0])
    found = [(key, told.values, told.state, told.value) for key, told in fitting_trials(plan.search, tmp_path)]
    assert found == ([(trial.key, POINT, FITTING[change], 1.0)] if change in FITTING else [])


def test_a_point_where_a_condition_does_not_hold_has_no_value_for_it(plan: Plan, recorded: Recorded, tmp_path: Path) -> None:
    values = {name: value for name, value in POINT.items() if name != "model.moe_dropout"} | {"model.dropout_placement": "none"}
    recorded(plan, plan.search.trial_at(values, 0), [1.0])
    [(_, told)] = fitting_trials(plan.search, tmp_path)
    assert told.values == values


def test_only_completed_trials_count(plan: Plan, recorded: Recorded, tmp_path: Path) -> None:
    recorded(plan, plan.search.trial_at(POINT, 0), [3.0, 2.0], "stopped")
    assert fitting_trials(plan.search, tmp_path) == []


def test_a_second_objective_comes_with_the_first(plan_of: Plans, recorded: Recorded, tmp_path: Path) -> None:
    plan = plan_of(warm_start=True, objectives=["val_qa_loss", "params_active"])
    recorded(plan, plan.search.trial_at(POINT, 0), [3.0, 2.0])
    [(_, told)] = fitting_trials(plan.search, tmp_path)
    assert (told.value, told.second) == (2.0, 1000.0)


def record_points(plan: Plan, recorded: Recorded, number: int = 12) -> list[str]:
    """Trials whose loss falls with the rate; keys in the order in which they are told."""
    trials = [plan.search.trial_at({**POINT, "training.learning_rate": 1.1e-4 * (n + 1)}, n) for n in range(number)]
    for n, trial in enumerate(trials):
        recorded(plan, trial, [20.0 - n])
    return sorted(trial.key for trial in trials)


def test_what_warms_a_search_up_is_recorded_once_and_changes_its_first_suggestion(
    plan_of: Plans,
    plan: Plan,
    driver: Drivers,
    decisions: Decisions,
    recorded: Recorded,
    state: Callable[..., Any],
    tmp_path: Path,
) -> None:
    keys = record_points(plan, recorded)
    cold = driver(plan_of(), storage=tmp_path / "cold")
    cold.begin()
    warm = driver(plan, slots=2)
    warm.begin()
    assert state(warm.search)["next"] != state(cold.search)["next"]
    while warm.step():
        pass
    rows = decisions(plan)[: len(keys)]
    assert [(row["kind"], row["number"], row["trial_key"]) for row in rows] == [
        ("warm", -number, key) for number, key in enumerate(keys, 1)
    ]
    assert json.loads(rows[0]["parameters"]).keys() == POINT.keys()
    assert state(Search(plan, tmp_path)) == state(warm.search)
    driver(plan).run()
    assert len(decisions(plan, "warm")) == len(keys)
    assert {row["number"] for row in decisions(plan, "suggested")} == set(range(6))


def test_a_search_that_has_begun_is_not_warmed_up(
    plan_of: Plans, plan: Plan, driver: Drivers, decisions: Decisions, recorded: Recorded
) -> None:
    cold = plan_of(trials=2)
    assert cold.sweep_id == plan.sweep_id
    driver(cold).run()
    record_points(plan, recorded)
    driver(plan).run()
    assert decisions(plan, "warm") == []
    assert len(decisions(plan, "suggested")) == 6


def test_a_search_killed_while_it_warms_up_is_warmed_up_whole_by_the_next(
    plan: Plan, driver: Drivers, decisions: Decisions, recorded: Recorded
) -> None:
    keys = record_points(plan, recorded)
    first = driver(plan)
    write, written = first.writer.write, []

    def dies(table: str, part: str, rows: list[dict[str, Any]]) -> None:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(part)
        write(table, part, rows)

    first.writer.write = dies
    with pytest.raises(KeyboardInterrupt):
        first.begin()
    driver(plan).begin()
    assert [(row["number"], row["trial_key"]) for row in decisions(plan, "warm")] == [
        (-number, key) for number, key in enumerate(keys, 1)
    ]
