"""What a search is, before anything runs: its identity, its base, its space from a file, its forecast and its comparison."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.comparison import plan_comparison, winner_of
from orchestrator.decisions import with_suggested
from orchestrator.errors import PlanError, SweepError
from orchestrator.forecast import forecast
from orchestrator.frozen import load_plan, write_plan
from orchestrator.plan import Plan
from orchestrator.preset import load_preset
from orchestrator.search import Search
from orchestrator.search_plan import plan_search
from orchestrator.search_spec import SearchSpec
from search_spaces.registry import SHIPPED
from search_spaces.space import Float, Space
from search_spaces.stages import Narrowing

Plans = Callable[..., Plan]
Drivers = Callable[..., Any]

POINT = {
    "model.n_layers": 2,
    "model.num_experts": 5,
    "training.learning_rate": 4e-4,
    "model.dropout_placement": "before",
    "model.moe_dropout": 0.3,
}

FILE = """
from search_spaces.space import Choice, Float, Space

SPACE = Space(
    name="mine",
    trainable="distilbert",
    dimensions={"training.learning_rate": Float(1e-4, 1e-3, log=True), "model.n_layers": Choice([2, 1])},
    fixed={"training.batch_size": 8},
)
"""

STAGES = """
from search_spaces.space import Choice
from search_spaces.stages import Narrowing, Stage

NARROWING = Narrowing(
    name="mine",
    trainable="distilbert",
    start={"training.learning_rate": 5e-4, "training.batch_size": 8},
    stages=(Stage(name="blocks", dimensions={"model.n_layers": Choice([1, 2])}),),
)
"""


def test_the_trial_of_a_point_has_its_settings_and_else_those_of_the_base(plan_of: Plans) -> None:
    spec = plan_of(max_epochs=4, reports_per_epoch=2, share=60, set_=["training.batch_size=32", "seeds=[7]"]).search
    trial = spec.trial_at(POINT, 3)
    model, training, evaluation = trial.config.model, trial.config.training, trial.config.evaluation
    assert (model.n_layers, model.num_experts, model.dropout_placement, model.moe_dropout) == (2, 5, "before", 0.3)
    assert (training.learning_rate, training.batch_size, training.epochs) == (4e-4, 32, 4)
    assert (evaluation.reports_per_epoch, evaluation.validate_at) == (2, "report")
    assert (trial.config.mixture.share, trial.config.mixture.order, trial.seed) == (60, "shuffled", 7)
    assert (trial.trainable, trial.summary) == ("exbert", "exbert #3")
    assert trial.detail == "n_layers=2 num_experts=5 learning_rate=0.0004 dropout_placement=before moe_dropout=0.3"


def test_a_trials_key_does_not_depend_on_its_number(plan_of: Plans) -> None:
    spec = plan_of().search
    assert spec.trial_at(POINT, 1).key == spec.trial_at(dict(reversed(POINT.items())), 2).key
    assert spec.trial_at(POINT, 1).key != spec.trial_at({**POINT, "model.num_experts": 6}, 1).key


def test_fixed_settings_of_a_space_hold_for_its_trials(plan_of: Plans, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    spec = plan_of(space=str(tmp_path / "mine.py")).search
    trial = spec.trial_at({"training.learning_rate": 2e-4, "model.n_layers": 2}, 0)
    assert (trial.trainable, trial.config.training.batch_size) == ("distilbert", 8)
    assert spec.base.config.training.batch_size == 8


def test_a_point_that_the_trainable_refuses_is_named(plan_of: Plans) -> None:
    with pytest.raises(
        PlanError, match=r"space exbert_embedded: exbert refuses n_layers=0: model.n_layers: Input should be .* 1$"
    ):
        narrowing = plan_of(strategy="narrowing").search
        replace(narrowing, space=replace(narrowing.space, name="exbert_embedded")).trial_at({"model.n_layers": 0}, 0)


@pytest.mark.parametrize(
    "same",
    [{"trials": 60}, {"warm_start": True}, {"control": "distilbert"}, {"set_": ["seeds=[0, 1]"]}, {"set_": ["shares=[0]"]}],
)
def test_more_trials_of_a_search_are_the_same_search(plan_of: Plans, same: dict[str, Any]) -> None:
    assert plan_of(**same).sweep_id == plan_of().sweep_id


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"space": "distilbert_embedded"},
        {"sampler": "random"},
        {"max_epochs": 3},
        {"reports_per_epoch": 2},
        {"grace": 2},
        {"eta": 3},
        {"variant": "promotion"},
        {"share": 60},
        {"objectives": ["val_qa_loss", "train_seconds"]},
        {"set_": ["training.batch_size=8"]},
        {"set_": ["mixture_size=400"]},
        {"set_": ["seeds=[1]"]},
        {"set_": ["data_seed=1"]},
    ],
)
def test_whatever_decides_what_is_tried_makes_another_search(plan_of: Plans, other: dict[str, Any]) -> None:
    assert plan_of(**other).sweep_id != plan_of().sweep_id


@pytest.mark.parametrize(
    "unread", [{"sampler": "random"}, {"seed": 1}, {"eta": 3}, {"variant": "promotion"}, {"space": "exbert"}]
)
def test_what_a_narrowing_does_not_read_makes_no_other_search(plan_of: Plans, unread: dict[str, Any]) -> None:
    assert plan_of(strategy="narrowing", **unread).sweep_id == plan_of(strategy="narrowing").sweep_id


def test_the_order_of_dimensions_makes_another_search(plan_of: Plans) -> None:
    shipped = SHIPPED["exbert_embedded"]
    turned = replace(
        shipped, dimensions={"training.learning_rate": shipped.dimensions["training.learning_rate"], **shipped.dimensions}
    )
    assert plan_of(space=turned).sweep_id != plan_of(space=shipped).sweep_id


def test_a_spaces_file_is_known_by_what_it_says_and_not_by_where_it_is(plan_of: Plans, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(FILE)
    a, b = (plan_of(space=str(tmp_path / folder / "mine.py")) for folder in ("a", "b"))
    assert a.sweep_id == b.sweep_id


@pytest.mark.parametrize("what", ["exbert_embedded", "small", "narrowing"])
def test_a_search_is_the_same_after_json(plan_of: Plans, small: Space, what: str) -> None:
    spec = plan_of(**{"strategy": "narrowing"} if what == "narrowing" else {"space": small if what == "small" else what}).search
    back = SearchSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert (back.settings, back.space, back.base.key, back.identity) == (
        spec.settings,
        spec.space,
        spec.base.key,
        spec.identity,
    )
    if isinstance(spec.space, Space):
        assert list(back.space.dimensions) == list(spec.space.dimensions)
    else:
        assert [list(stage.dimensions) for stage in back.space.stages] == [list(s.dimensions) for s in spec.space.stages]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"set_": ["training.learning_rate=1e-3"]}, "training.learning_rate fixes what exbert_embedded varies"),
        ({"set_": ["model.moe_dropout=0.2"]}, "model.moe_dropout fixes what exbert_embedded varies"),
        ({"set_": ["model.n_layers=2"], "strategy": "narrowing"}, "model.n_layers fixes what embedded varies"),
    ],
)
def test_set_cannot_fix_what_varies(plan_of: Plans, arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(PlanError, match=f"--set {name}; leave it out, or give a space of your own"):
        plan_of(**arguments)


@pytest.mark.parametrize(
    "given", ["training.epochs=1", "evaluation.reports_per_epoch=4", "evaluation.validate_at=end", "training.batch_size=16"]
)
def test_set_is_never_overruled_in_silence(plan_of: Plans, tmp_path: Path, given: str) -> None:
    (tmp_path / "mine.py").write_text(FILE)  # fixes the batch size
    with pytest.raises(PlanError, match=f"--set {given.partition('=')[0]}"):
        plan_of(space=str(tmp_path / "mine.py"), set_=[given])


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"space": "exbert_embeded"}, r"space must be one of .*, got 'exbert_embeded'; did you mean exbert_embedded\?"),
        ({"space": "gone.py"}, "gone.py"),
        ({"strategy": "narrowing", "narrowing": "papr"}, r"narrowing must be one of embedded, paper .* did you mean paper\?"),
    ],
)
def test_an_unknown_space_is_refused(plan_of: Plans, settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(PlanError, match=complaint):
        plan_of(**settings)


@pytest.mark.parametrize("change", ["rewritten", "gone"])
@pytest.mark.parametrize("kind", ["space", "narrowing"])
def test_a_spaces_file_is_frozen_when_its_search_begins(
    plan_of: Plans, driver: Drivers, tmp_path: Path, kind: str, change: str
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(FILE if kind == "space" else STAGES)
    asked = {"space": str(file)} if kind == "space" else {"strategy": "narrowing", "narrowing": str(file)}
    plan = plan_of(trials=2, **asked)
    first = driver(plan)
    first.begin()
    trial = first.ask()
    first.kill()
    write_plan(tmp_path, plan, datetime(2026, 1, 2, tzinfo=UTC))
    if change == "gone":
        file.unlink()
    else:
        file.write_text(file.read_text().replace("[2, 1]", "[2, 3]").replace("[1, 2]", "[1, 3]"))
        assert plan_of(trials=2, **asked).sweep_id != plan.sweep_id
    resumed = load_plan(tmp_path, plan.sweep_id)
    assert resumed.search.space == plan.search.space
    assert [each.key for each in resumed.trials] == [trial.key]
    running = driver(resumed).run()
    assert running.handed_out[0] == trial.key
    assert running.search.num_done == 2


def test_more_trials_renew_the_frozen_plan_and_fewer_do_not(plan_of: Plans, tmp_path: Path) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    for trials, frozen in ((3, 3), (8, 8), (5, 8)):
        plan = plan_of(trials=trials)
        write_plan(tmp_path, plan, now)
        assert load_plan(tmp_path, plan.sweep_id).num_trials == frozen


def test_the_corners_of_a_space_have_its_ends_and_those_of_a_narrowing_all_its_points(plan_of: Plans) -> None:
    corners = [trial.config for trial in plan_of().search.corners()]
    assert {config.model.n_layers for config in corners} == {1, 3}
    assert {config.training.learning_rate for config in corners} == {1e-4, 2e-3}
    assert {config.model.dropout_placement for config in corners} == {"none", "before", "after", "both"}
    assert {config.model.moe_dropout for config in corners} == {0.1, 0.3}
    narrowing = plan_of(strategy="narrowing").search
    assert len(narrowing.corners()) == narrowing.num_trials == 17


def test_trials_are_no_more_than_the_space_has_points(plan_of: Plans, small: Space) -> None:
    assert plan_of(space=small, trials=100).num_trials == 12
    assert plan_of(space=small, trials=5).num_trials == 5


# --- the comparison


def falls(trial: Any, epoch: float) -> float:
    return trial.config.training.learning_rate * 1000 + 1 / epoch


def test_the_comparison_has_the_winners_at_every_share_and_takes_over_the_cell_that_they_won(
    plan_of: Plans, driver: Drivers, tmp_path: Path
) -> None:
    tuned, control = plan_of(trials=3), plan_of(trials=2, space="distilbert_embedded")
    for plan in (tuned, control):
        driver(plan, loss=falls).run()
    winners = [winner_of(with_suggested(plan, tmp_path), tmp_path) for plan in (tuned, control)]
    rates = [trial.config.training.learning_rate for trial in with_suggested(tuned, tmp_path).trials]
    assert winners[0].config.training.learning_rate == min(rates)
    preset = load_preset("embedded", ["shares=[0, 80]"], 2)
    comparison = plan_comparison(preset, winners)
    cells = [(trial.label, trial.config.mixture.share, trial.seed) for trial in comparison.trials]
    assert sorted(cells) == sorted(
        (label, share, seed)
        for label in ("distilbert", "distilbert:searched", "exbert:searched")
        for share in (0, 80)
        for seed in (0, 1)
    )
    by_cell = dict(zip(cells, comparison.trials, strict=True))
    assert by_cell["exbert:searched", 80, 0].key == winners[0].key
    assert by_cell["distilbert:searched", 80, 0].key == winners[1].key
    assert {trial.config.training.epochs for trial in comparison.trials} == {3, 4}
    assert comparison.kind == "grid"
    assert all(trial.summary.startswith(trial.label) for trial in comparison.trials)


def test_a_search_without_a_completed_trial_has_no_winner(plan_of: Plans, tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"no trial of search-.* has completed, so there is no winner to compare"):
        winner_of(plan_of(), tmp_path)


# --- the forecast


@pytest.mark.parametrize("variant", ["stopping", "promotion"])
def test_a_forecast_follows_the_trials_from_rung_to_rung(plan_of: Plans, tmp_path: Path, variant: str) -> None:
    plan = plan_of(trials=16, max_epochs=8, variant=variant)
    expected = forecast(plan.search, tmp_path, plan.preset.resources)
    assert [rung.epoch for rung in expected.rungs] == [1, 2, 4]
    assert expected.rungs[0].arrive == expected.trials == 16
    for rung, following in zip(expected.rungs, expected.rungs[1:], strict=False):
        assert rung.go_on == pytest.approx(following.arrive)
        assert 0 < rung.go_on < rung.arrive
    ends = [0, *(rung.epoch for rung in expected.rungs), 8]
    alive = [16, *(rung.go_on for rung in expected.rungs)]
    epochs = sum(count * (end - begin) for count, begin, end in zip(alive, ends, ends[1:], strict=False))
    assert expected.epochs == pytest.approx(epochs)
    assert expected.full_epochs == 128
    assert "no recorded curves of that length" in expected.by
    assert (expected.trial_seconds, expected.wall_seconds, expected.gpu_hours) == (None, None, None)


def record_grid(plan: Plan, recorded: Callable[..., None], epochs: int = 4) -> None:
    """A completed trial of every number of blocks and experts, whose losses never cross: 100 s each for 10 epochs' worth."""
    for rank, (blocks, experts) in enumerate((b, e) for b in (1, 2, 3) for e in range(4, 9)):
        values = {**POINT, "model.n_layers": blocks, "model.num_experts": experts}
        recorded(plan, plan.search.trial_at(values, 0), [rank + 1 / epoch for epoch in range(1, epochs + 1)])


def test_recorded_curves_are_used_where_there_are_enough(plan_of: Plans, recorded: Callable[..., None], tmp_path: Path) -> None:
    record_grid(plan_of(), recorded)
    for trials, settings, by in (
        (15, {}, "15 recorded curves"),
        (16, {}, "order from the start"),
        (5, {"max_epochs": 3}, "order"),
    ):
        plan = plan_of(trials=trials, **settings)
        assert by in forecast(plan.search, tmp_path, plan.preset.resources).by


def test_time_is_known_where_the_ledger_has_trials_of_the_kind(
    plan_of: Plans, recorded: Callable[..., None], tmp_path: Path
) -> None:
    plan = plan_of(trials=8, set_=["resources.max_concurrent=1"])
    record_grid(plan, recorded)
    expected = forecast(plan.search, tmp_path, plan.preset.resources)
    assert expected.trial_seconds == pytest.approx(expected.epochs * 10)  # each took 10 s an epoch
    assert expected.wall_seconds == expected.trial_seconds
    assert expected.gpu_hours is None  # without a GPU


def test_a_narrowing_is_forecast_in_full(plan_of: Plans, recorded: Callable[..., None], tmp_path: Path) -> None:
    plan = plan_of(strategy="narrowing")
    assert isinstance(plan.search.space, Narrowing)
    expected = forecast(plan.search, tmp_path, plan.preset.resources)
    assert (expected.rungs, expected.trials, expected.epochs, expected.full_epochs) == ((), 17, 68.0, 68)
    record_grid(plan, recorded)
    assert forecast(plan.search, tmp_path, plan.preset.resources).trial_seconds == pytest.approx(680)


def test_what_is_planned_twice_is_planned_with_what_was_suggested_meanwhile(
    plan_of: Plans, driver: Drivers, tmp_path: Path
) -> None:
    preset = load_preset("embedded", ["search.trials=2", "search.max_epochs=1", "search.reports_per_epoch=1"])
    plan = plan_search(preset, tmp_path)
    assert plan.trials == ()
    running = driver(plan).run()
    again = plan_search(preset, tmp_path)
    assert [trial.key for trial in again.trials] == running.handed_out
    assert Search(again, tmp_path).num_left == 0


def test_floats_of_a_point_survive_the_ledger(plan_of: Plans, driver: Drivers, tmp_path: Path) -> None:
    space = Space(name="fine", trainable="exbert", dimensions={"training.learning_rate": Float(1e-5, 1e-3, log=True)})
    plan = plan_of(space=space, trials=3)
    running = driver(plan).run()
    assert [trial.key for trial in with_suggested(plan, tmp_path).trials] == running.handed_out
