"""Efficiency: hours set against scores, the Pareto set, what a trial and a point cost; and the figures of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_ledger import START, plan_row, trial_key
from typer.testing import CliRunner

from results.__main__ import app
from results.charts import encode_chart
from results.efficiency import efficiency_table, pareto_set
from results.errors import QueryError
from results.figures import LEDGER_FIGURES, draw_figure
from results.ledger import Ledger
from results.parts import attempt_part, write_part
from results.readable import significant_text

MODELS = ("distilbert", "exbert")


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6))))
@settings(deadline=None)
def test_pareto_set_is_what_no_other_point_dominates(points: list[tuple[int, int]]) -> None:
    """By the definition, over all pairs; few values, so that ties abound."""

    def dominates(one: tuple[int, int], other: tuple[int, int]) -> bool:
        return one[0] <= other[0] and one[1] <= other[1] and one != other

    assert pareto_set(points) == [not any(dominates(other, point) for other in points) for point in points]


def test_equal_points_are_both_in_the_pareto_set_and_equal_in_one_is_not() -> None:
    assert pareto_set([(1.0, 5.0), (1.0, 5.0), (1.0, 6.0), (2.0, 5.0), (3.0, 4.0)]) == [True, True, False, False, True]


def _trial(storage: Path, model: str, share: int, hours: float, em: float | None, **columns: Any) -> str:
    """A trial of one attempt, tested with `em` on SQuAD and `em` + 10 on BioASQ, or not completed where that is None."""
    key = trial_key(model, share, "shuffled", 0)
    ids = {"trial_key": key, "attempt": columns.pop("attempt", 1)}
    status = "completed" if em is not None else "running"
    sizes = {"params_total": 200 if model == "exbert" else 100, "params_active": 150 if model == "exbert" else 100}
    times = {"train_seconds": 3600 * hours, "startup_seconds": 360.0, "resumed_step": 0}
    row = {**ids, "sweep_id": "s1", "run_id": "run-1", "status": status, **sizes, **times, **columns}
    write_part(storage, "attempts", attempt_part(key, ids["attempt"]), [row])
    if em is not None:
        test = {**ids, "step": 10, "split": "test"}
        rows = [{**test, "domain": "squad", "em": em}, {**test, "domain": "bioasq", "em": em + 10}]
        write_part(storage, "evaluations", attempt_part(key, 1), rows)
    return key


def _sweep(storage: Path, *, gpus: float, slot_hours: float, kind: str = "grid") -> None:
    plans = [plan_row(model, share, "shuffled", 0, "s1") for model in MODELS for share in (0, 20, 40)]
    write_part(storage, "plans", "s1", [{**plan, "sweep_kind": kind} for plan in plans])
    run = {"run_id": "run-1", "sweep_id": "s1", "wall_seconds": 3600 * slot_hours, "slots": 1, "gpus_per_trial": gpus}
    write_part(storage, "runs", "run-1", [run])


@pytest.fixture
def spent(tmp_path: Path) -> Path:
    """Four completed trials and one lost attempt on half a GPU each; two trials were never begun."""
    storage = tmp_path / "grid"
    _sweep(storage, gpus=0.5, slot_hours=20.0)
    _trial(storage, "distilbert", 0, 1.0, 30.0)
    _trial(storage, "distilbert", 20, 2.0, 30.0)
    _trial(storage, "exbert", 0, 3.0, 50.0)
    _trial(storage, "exbert", 20, 4.0, None, status="lost")
    _trial(storage, "exbert", 20, 4.0, 40.0, attempt=2)
    return storage


def _by_trial(rows: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["trainable"], row["share"]): row for row in rows}


def test_trials_are_set_against_their_scores_by_useful_gpu_hours(spent: Path) -> None:
    table, _ = efficiency_table(Ledger(spent))
    rows = table.to_pylist()
    assert [row["useful_gpu_hours"] for row in rows] == [0.5, 1.0, 1.5, 2.0, 0.0, 0.0]
    assert [row["em"] for row in rows] == [35.0, 35.0, 55.0, 45.0, None, None]
    assert [row["pareto"] for row in rows] == ["yes", "", "yes", "", "", ""]
    retried = _by_trial(rows)["exbert", 20]
    # The lost attempt and both start-ups are paid for; the result does not rest on them.
    assert retried["gpu_hours"] == pytest.approx(0.5 * (4.0 + 4.0 + 0.2))
    assert (retried["attempts"], retried["params_total"], retried["params_active"]) == (2, 200, 150)


def test_points_are_paid_for_above_the_cheapest_trial(spent: Path) -> None:
    rows = _by_trial(efficiency_table(Ledger(spent), price=4.0)[0].to_pylist())
    assert [rows[key]["gpu_hours_per_em_point"] for key in rows] == [None, None, 0.05, 0.15, None, None]
    assert rows["exbert", 0]["cost_per_em_point"] == pytest.approx(0.2)
    assert rows["exbert", 0]["cost"] == pytest.approx(4.0 * 0.5 * 3.1)


def test_models_are_compared_by_their_means_and_pay_for_all_their_trials(spent: Path) -> None:
    rows = efficiency_table(Ledger(spent), by="model")[0].to_pylist()
    assert [(row["trainable"], row["trials"], row["completed"]) for row in rows] == [("distilbert", 3, 2), ("exbert", 3, 2)]
    assert [(row["em"], row["em bioasq"], row["mean_useful_gpu_hours"]) for row in rows] == [(35, 40, 0.75), (50, 55, 1.75)]
    assert rows[1]["gpu_hours_per_em_point"] == pytest.approx(1 / 15)
    assert rows[1]["total_gpu_hours"] == pytest.approx(0.5 * (3.1 + 8.2))
    assert [row["pareto"] for row in rows] == ["yes", "yes"]


def test_bill_has_the_idle_slots_and_divides_by_what_was_completed(spent: Path) -> None:
    notes = efficiency_table(Ledger(spent), price=2.0)[1]
    assert notes[0].startswith("GPU-hours are wall hours x GPUs held")
    assert notes[1].startswith(
        "gpu_hours_per_em_point: useful hours above those of the cheapest completed trial, for each point"
    )
    assert notes[2] == (
        "s1: 10 GPU-hours at 2 cost 20 (start-up 2.5%, useful 50.0%, lost 20.0%, idle 27.5%); "
        "per completed trial (4): 2.5 GPU-hours, 5"
    )


def test_bill_of_a_sweep_that_ran_nothing_itself_says_so(spent: Path) -> None:
    write_part(spent, "plans", "s2", [plan_row("distilbert", 0, "shuffled", 0, "s2", planned_at=START)])
    table, notes = efficiency_table(Ledger(spent), "s2")
    assert table.column("useful_gpu_hours").to_pylist() == [0.5]
    assert notes[1].endswith("; empty, since none scores better than the cheapest")
    assert notes[2] == "s2: its runs took no GPU-hours of their own"


def test_hours_are_of_slots_where_not_every_attempt_held_gpus(spent: Path) -> None:
    _trial(spent, "exbert", 40, 1.0, 20.0, run_id=None)
    table, notes = efficiency_table(Ledger(spent))
    assert table.column("useful_slot_hours").to_pylist()[:3] == [1.0, 1.0, 2.0]
    assert notes[0].startswith("slot-hours are wall hours of an attempt (not every attempt held GPUs)")


def test_trial_without_recorded_times_is_not_the_cheapest(spent: Path) -> None:
    _trial(spent, "exbert", 40, 0.0, 90.0)
    rows = efficiency_table(Ledger(spent))[0].to_pylist()
    assert [row["pareto"] for row in rows] == ["yes", "", "yes", "", "", ""]
    assert _by_trial(rows)["exbert", 40]["gpu_hours_per_em_point"] is None


@pytest.fixture
def searched_hours(tmp_path: Path) -> Path:
    """A search on CPUs: two trials completed, one stopped early at a good loss, one with a loss that is not finite."""
    storage = tmp_path / "search"
    _sweep(storage, gpus=0.0, slot_hours=10.0, kind="search")
    losses = {("distilbert", 0): 1.5, ("distilbert", 20): 1.2, ("exbert", 0): 0.5, ("exbert", 20): float("nan")}
    for (model, share), loss in losses.items():
        key = trial_key(model, share, "shuffled", 0)
        report = {"trial_key": key, "attempt": 1, "epoch": 1.0, "wall_seconds": 1.0}
        rows = [{**report, "step": 5, "val_qa_loss": 9.0}, {**report, "step": 10, "val_qa_loss": loss}]
        write_part(storage, "reports", attempt_part(key, 1), rows)
    _trial(storage, "distilbert", 0, 2.0, 70.0)
    _trial(storage, "distilbert", 20, 3.0, 60.0)
    stopped = _trial(storage, "exbert", 0, 1.0, None, status="stopped", stop_reason="asha: rung 1")
    _trial(storage, "exbert", 20, 1.0, 10.0)
    event = {"trial_key": stopped, "status": "stopped", "reason": "asha: rung 1", "happened_at": START, "attempt": 1}
    write_part(storage, "events", "driver", [event])
    write_part(storage, "searches", "s1", [{"sweep_id": "s1", "created_at": START}])
    return storage


def test_search_is_judged_by_validation_loss_and_only_completed_trials_compete(searched_hours: Path) -> None:
    rows = _by_trial(efficiency_table(Ledger(searched_hours))[0].to_pylist())
    assert {key: row["pareto"] for key, row in rows.items() if row["pareto"]} == {
        ("distilbert", 0): "yes", ("distilbert", 20): "yes",
    }  # fmt: skip
    assert rows["distilbert", 20]["slot_hours_per_nat"] == pytest.approx(1 / 0.3)
    stopped = rows["exbert", 0]
    assert (stopped["useful_slot_hours"], stopped["val_qa_loss"], stopped["em"]) == (1.0, 0.5, None)
    assert rows["exbert", 20]["val_qa_loss"] is None


def test_figure_draws_the_front_through_completed_trials_alone(searched_hours: Path) -> None:
    spec = draw_figure(Ledger(searched_hours), "efficiency")[0].to_dict()
    assert spec["title"]["subtitle"] == "s1 · 2 completed trials, open: 1 not completed · line: Pareto front"
    [panel] = spec["hconcat"]
    line, points = (spec["datasets"][layer["data"]["name"]] for layer in panel["layer"])
    assert [(row["hours"], row["score"]) for row in line] == [(2.0, 1.5), (3.0, 1.2), (3.0, 1.2)]
    assert [row["is_done"] for row in points] == [False, True, True]


def test_figure_of_a_grid_has_a_panel_for_the_mean_and_for_each_domain(spent: Path) -> None:
    spec = draw_figure(Ledger(spent), "efficiency")[0].to_dict()
    assert [panel["title"]["text"] for panel in spec["hconcat"]] == ["Mean of the domains", "SQuAD", "BioASQ"]
    encoding = spec["hconcat"][1]["layer"][1]["encoding"]
    assert (encoding["x"]["title"], encoding["y"]["title"]) == ("Useful GPU-hours", "Exact match on the test set (%)")


def test_parameters_are_drawn_active_and_total(spent: Path) -> None:
    spec = draw_figure(Ledger(spent), "parameters")[0].to_dict()
    rows = {(row["model"], row["active"], row["total"]) for row in next(iter(spec["datasets"].values()))}
    assert rows == {("V-DB (DistilBERT)", 1e-4, 1e-4), ("ExBERT", 1.5e-4, 2e-4)}


def test_bars_of_spending_are_the_hours_of_the_runs(spent: Path) -> None:
    spec = draw_figure(Ledger(spent), "spending")[0].to_dict()
    rows = next(iter(spec["datasets"].values()))
    assert {row["kind"]: round(row["hours"], 6) for row in rows} == {"useful": 5.0, "start-up": 0.25, "lost": 2.0, "idle": 2.75}
    assert spec["hconcat"][0]["encoding"]["x"]["title"] == "GPU-hours"
    # A bar's number stands in the middle of its part.
    assert [round(row["middle"], 6) for row in rows] == [0.25, 0.5125, 0.625, 0.8625]


def test_bars_say_where_idle_time_is_unknown(spent: Path) -> None:
    run = {"run_id": "run-1", "sweep_id": "s1", "wall_seconds": None, "slots": 1, "gpus_per_trial": 0.0}
    write_part(spent, "runs", "run-1", [run])
    subtitle = draw_figure(Ledger(spent), "spending")[0].to_dict()["title"]["subtitle"]
    assert subtitle == "wall hours x slots · idle time unknown for 1 of 1 sweeps"


@pytest.mark.parametrize("name", ["efficiency", "parameters", "spending"])
def test_figures_render(spent: Path, searched_hours: Path, name: str) -> None:
    for storage in (spent, searched_hours):
        assert encode_chart(draw_figure(Ledger(storage), name)[0], "svg").startswith(b"<svg")


@pytest.mark.parametrize("name", LEDGER_FIGURES)
def test_ledger_without_trials_is_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(QueryError, match=r"^no (trial|completed trial|run) "):
        draw_figure(Ledger(tmp_path, must_exist=False), name)


def test_ledger_without_trials_gives_an_empty_table_and_says_what_to_run(tmp_path: Path) -> None:
    table, notes = efficiency_table(Ledger(tmp_path, must_exist=False))
    assert table.num_rows == 0
    assert notes == ["no sweep was planned in this ledger: run `python -m orchestrator.run grid`"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--price", "0"], "price must be a number above 0 for each GPU-hour or slot-hour, got 0"),
        (["--price", "nan"], "price must be a number above 0 for each GPU-hour or slot-hour, got nan"),
        (["--by", "seed"], "by must be trial or model, got 'seed'"),
        (["--sweep", "s9"], "no sweep 's9' in the ledger, the nearest is 's1'; it has s1"),
    ],
)
def test_mistake_is_one_line_and_exit_2(spent: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["table", "efficiency", *arguments, "--storage", str(spent)])
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert message in result.stderr


def test_command_prints_the_table_and_the_bill(spent: Path) -> None:
    result = CliRunner().invoke(app, ["table", "efficiency", "--format", "json", "--storage", str(spent)])
    assert [row["pareto"] for row in json.loads(result.stdout)][:3] == ["yes", "", "yes"]
    assert "per completed trial (4): 2.5 GPU-hours" in result.stderr
    assert result.stderr.splitlines()[-1] == "s1: 6 trials"


def test_people_read_three_digits_and_files_keep_all(spent: Path) -> None:
    _trial(spent, "exbert", 40, 0.000333669, 20.0)
    shown, kept = (
        CliRunner().invoke(app, ["table", "efficiency", "--format", form, "--storage", str(spent)]).stdout
        for form in ("markdown", "csv")
    )
    assert "| 0.000167 |" in shown
    assert "| 35.0 |" in shown
    assert "0.0001668345" in kept


def test_numbers_have_three_digits_and_no_exponent() -> None:
    values = (5.78882e-05, 0.000333669, 0.0, 12.345, 1234.5, -0.5, None)
    assert [significant_text(value) for value in values] == ["0.0000579", "0.000334", "0", "12.3", "1,234", "-0.500", ""]
