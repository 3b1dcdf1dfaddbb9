"""A search read from the ledger: how its trials stand, its rungs, the epochs it saved, its best and its Pareto set."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from synthetic_ledger import START
from synthetic_search import (
    DIVERGED,
    FAILED,
    MAX_EPOCHS,
    NARROWING_ID,
    NUM_TRIALS,
    RUNGS,
    RUNNING,
    SEARCH_ID,
    synthetic_search,
    val_loss,
)

from results.checks import Finding
from results.errors import LedgerWarning, QueryError
from results.ledger import Ledger
from results.parts import write_part
from results.search import Search, SearchTrial, load_search
from results.search_space import Dimension, read_space
from results.search_tables import search_summary, search_table
from results.verify import verify

SPACE = {
    "name": "s",
    "trainable": "exbert",
    "fixed": {},
    "dimensions": {"a": {"kind": "int", "low": 1, "high": 9, "log": False}},
}


@pytest.fixture(scope="module")
def search(searched: Path) -> Search:
    return load_search(Ledger(searched), SEARCH_ID)


def _decided(storage: Path, rows: list[dict[str, Any]], **columns: Any) -> SearchTrial:
    """The one trial of a search with these decisions."""
    shared = {"sweep_id": "s1", "number": 0, "trial_key": "0" * 16}
    numbered = [{**shared, "sequence": index, **row} for index, row in enumerate(rows)]
    write_part(storage, "decisions", "s1-0", numbered)
    write_part(storage, "searches", "s1", [{"sweep_id": "s1", "space": json.dumps(SPACE), "max_epochs": 9, **columns}])
    [trial] = load_search(Ledger(storage)).trials
    return trial


def _judged(epoch: float, action: str, value: float | None = 1.0, rung: float | None = None) -> dict[str, Any]:
    return {"kind": "judged", "epoch": epoch, "value": value, "action": action, "rung": rung}


SUGGESTED = {"kind": "suggested", "parameters": '{"a": 4}'}


@pytest.mark.parametrize(
    ("rows", "state", "epochs", "rung"),
    [
        ([], "running", 0, None),
        ([_judged(1, "go on", rung=1)], "running", 1, None),
        ([_judged(1, "go on"), _judged(3, "stop", rung=3)], "stopped", 3, 3),
        ([_judged(2, "stop", value=None)], "stopped", 2, None),
        ([_judged(1, "pause", rung=1)], "paused", 1, 1),
        ([_judged(1, "pause", rung=1), {"kind": "promoted"}], "running", 1, None),
        ([_judged(1, "pause", rung=1), {"kind": "promoted"}, _judged(3, "pause", rung=3)], "paused", 3, 3),
        ([_judged(9, "finished")], "running", 9, None),
        ([_judged(9, "finished"), {"kind": "ended", "action": "completed", "value": 1.0}], "completed", 9, None),
        ([_judged(1, "go on"), {"kind": "ended", "action": "failed"}], "failed", 1, None),
    ],
)
def test_state_follows_from_the_last_decision(
    tmp_path: Path, rows: list[dict[str, Any]], state: str, epochs: float, rung: float | None
) -> None:
    trial = _decided(tmp_path, [SUGGESTED, *rows])
    assert (trial.state, trial.epochs, trial.rung, trial.parameters) == (state, epochs, rung, {"a": 4})


def test_repeated_reports_count_once(tmp_path: Path) -> None:
    rows = [_judged(1, "go on", 2.0), _judged(2, "go on", 1.5), _judged(1, "go on", 2.0), _judged(2, "stop", 1.5)]
    assert _decided(tmp_path, [SUGGESTED, *rows]).curve == ((1, 2.0), (2, 1.5))


def test_value_of_a_diverged_trial_is_none(tmp_path: Path) -> None:
    trial = _decided(tmp_path, [SUGGESTED, _judged(1, "go on", 2.0), {**_judged(2, "stop", None), "reason": "diverged"}])
    assert (trial.value, trial.reason, trial.curve) == (None, "diverged", ((1, 2.0), (2, None)))


def test_curve_of_a_trial_that_nobody_judged_is_what_it_reported(tmp_path: Path) -> None:
    key = {"trial_key": "0" * 16, "attempt": 1}
    losses = [(0.5, None), (1.0, 1.8), (2.0, 1.6)]
    rows = [{**key, "step": index, "epoch": epoch, "val_qa_loss": loss} for index, (epoch, loss) in enumerate(losses, 1)]
    write_part(tmp_path, "reports", f"{'0' * 16}-1", rows)
    assert _decided(tmp_path, [SUGGESTED]).curve == ((1.0, 1.8), (2.0, 1.6))


def test_search_has_every_trial_with_its_curve(search: Search) -> None:
    assert (search.strategy, search.trainable, search.rungs, search.max_epochs) == ("asha", "exbert", RUNGS, MAX_EPOCHS)
    assert [trial.number for trial in search.trials] == list(range(NUM_TRIALS))
    assert [trial.number for trial in search.warm] == [-1]
    odd = {FAILED: "failed", DIVERGED: "stopped", RUNNING: "running"}
    assert {number: search.trials[number].state for number in odd} == odd
    for trial in search.trials:
        expected = [val_loss(dict(trial.parameters), epoch) for epoch in range(1, int(trial.epochs) + 1)]
        assert [value for _, value in trial.curve] == [*expected[:-1], None] if trial.number == DIVERGED else expected
        assert (trial.n_layers, trial.learning_rate) == tuple(trial.parameters[n] for n in list(search.space.dimensions)[:2])


def test_best_is_the_completed_trial_of_the_lowest_loss(search: Search) -> None:
    completed = [trial for trial in search.trials if trial.state == "completed"]
    assert search.best == min(completed, key=lambda trial: trial.value or 0)
    states = [trial.state for trial in search.ranking]
    assert states[: len(completed)] == ["completed"] * len(completed)
    assert states[-1] == "failed"


def test_rungs_count_who_came_and_who_went_on(search: Search) -> None:
    first, last = search.rung_counts
    assert first.arrived == NUM_TRIALS
    assert first.arrived - first.went_on == sum(trial.rung == 1 for trial in search.trials)
    # The running trial has not been held, the failed one ended on its own.
    assert first.arrived == NUM_TRIALS > first.went_on >= last.arrived > last.went_on


def test_epochs_are_set_against_those_without_stopping(search: Search) -> None:
    assert search.epochs_trained == sum(trial.epochs for trial in search.trials)
    assert search.epochs_without_stopping == MAX_EPOCHS * (NUM_TRIALS - 2) + 2
    assert f"{search.epochs_trained:g} epochs trained of 172 without stopping" in search_summary(search)


def test_no_trial_beats_one_of_the_pareto_set_in_both_objectives(search: Search) -> None:
    points = {t.number: (t.value or 0, t.train_seconds or 0) for t in search.trials if t.state == "completed"}
    for number, (loss, seconds) in points.items():
        is_beaten = any(other[0] < loss and other[1] <= seconds for other in points.values())
        assert (number in search.pareto) == (not is_beaten)
    assert 0 < len(search.pareto) < len(points)
    marked = [row["number"] for row in search_table(search).to_pylist() if row["pareto"]]
    assert set(marked) == search.pareto


def test_newest_search_is_taken(searched: Path) -> None:
    assert load_search(Ledger(searched)).sweep_id == NARROWING_ID


def test_narrowing_has_its_stages_and_the_values_of_all_of_them(searched: Path) -> None:
    search = load_search(Ledger(searched))
    assert [trial.stage for trial in search.trials] == ["blocks"] * 4 + ["learning_rate"] * 4
    assert search.space.dimensions["training.learning_rate"].values == (1e-5, 2e-5, 4e-5, 1e-4)
    assert search.space.fixed == {"model.num_experts": 8}
    assert search.epochs_trained == search.epochs_without_stopping == 8 * MAX_EPOCHS
    assert search.pareto == frozenset()


def test_value_that_only_the_start_has_is_a_choice_too() -> None:
    stage = {"name": "experts", "dimensions": {"e": {"kind": "choice", "values": [8, 12]}}}
    assert read_space({"name": "n", "start": {"e": 16, "x": "kept"}, "stages": [stage]}).dimensions["e"].values == (8, 12, 16)


def test_position_is_by_size_in_a_range_and_by_place_among_choices() -> None:
    rates = Dimension(kind="float", low=1e-5, high=1e-3, log=True)
    choice = Dimension(kind="choice", values=("none", "before", True, 1))
    assert [rates.position(value) for value in (1e-5, 1e-4, 1e-3)] == pytest.approx([0, 0.5, 1])
    assert [choice.position(value) for value in choice.values] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert Dimension(kind="int", low=3, high=9, step=3).options == (3, 6, 9)
    assert (rates.is_numeric, choice.is_numeric) == (True, False)


@pytest.mark.parametrize(
    ("sweep_id", "message"),
    [
        ("search-9", "no search 'search-9' in the ledger, the nearest is 'search-1'; it has narrowing-1, search-1"),
        ("x", "no search 'x' in the ledger; it has narrowing-1, search-1"),
    ],
)
def test_unknown_search_is_refused_with_those_there_are(searched: Path, sweep_id: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        load_search(Ledger(searched), sweep_id)


def test_ledger_without_a_search_says_what_to_do(complete: Path) -> None:
    with pytest.raises(QueryError, match=r"no search in this ledger: run `python -m orchestrator.run search`"):
        load_search(Ledger(complete))


def test_unknown_objective_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="objectives of s1 must be of val_qa_loss, train_seconds, params_active, got 'beauty'"):
        _decided(tmp_path, [SUGGESTED], objectives=["val_qa_loss", "beauty"])


def test_search_that_has_not_tried_anything_is_an_empty_table(tmp_path: Path) -> None:
    write_part(tmp_path, "searches", "s1", [{"sweep_id": "s1", "space": json.dumps(SPACE), "rungs": [1.0]}])
    search = load_search(Ledger(tmp_path))
    assert search_table(search).num_rows == 0
    assert search_summary(search).startswith("s1: no trial has a loss yet; 0 epochs trained of 0 without stopping")


# --- verify


def _findings(storage: Path) -> list[Finding]:
    return list(verify(Ledger(storage), START + timedelta(days=1)).findings)


def test_search_with_stopped_trials_is_whole(tmp_path: Path) -> None:
    storage = synthetic_search(tmp_path, num_trials=4)
    assert _findings(storage) == []
    stopped = Ledger(storage).sql("SELECT stop_reason FROM trials WHERE status = 'stopped'").column(0).to_pylist()
    assert stopped == ["asha (rung 1)"] * 3


def test_frozen_plan_of_a_search_needs_no_trials(tmp_path: Path) -> None:
    storage = synthetic_search(tmp_path, num_trials=4)
    path = storage / f"sweeps/{SEARCH_ID}/sweep.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"search": {}}', encoding="utf-8")
    assert _findings(storage) == []


def test_decision_on_a_trial_in_no_plan_is_told(tmp_path: Path) -> None:
    _decided(tmp_path, [SUGGESTED, _judged(1, "go on")])
    [finding] = _findings(tmp_path)
    assert (finding.kind, finding.where) == ("decision without plan", f"search s1, trial {'0' * 16}")
    assert finding.what == "2 decisions on it, and no plan has the trial"


def test_decisions_without_their_search_are_told(tmp_path: Path) -> None:
    storage = synthetic_search(tmp_path, num_trials=4)
    (storage / f"ledger/searches/{SEARCH_ID}.parquet").unlink()
    assert [finding.kind for finding in _findings(storage)] == ["search missing"]


@pytest.mark.filterwarnings(f"ignore::{LedgerWarning.__module__}.{LedgerWarning.__name__}")
def test_torn_part_of_the_decisions_takes_nothing_with_it(tmp_path: Path) -> None:
    storage = synthetic_search(tmp_path, num_trials=4)
    part = storage / f"ledger/decisions/{SEARCH_ID}-0.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    [finding] = _findings(storage)
    assert (finding.kind, finding.moves) == ("unreadable part", (f"ledger/decisions/{SEARCH_ID}-0.parquet",))
    assert "goes on from the decisions that are left" in finding.todo
