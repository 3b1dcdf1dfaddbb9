"""Trials, keys and plans."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.errors import PlanError, SweepError
from orchestrator.frozen import check_current, load_plan, write_plan
from orchestrator.plan import Plan, make_trial, plan_grid
from orchestrator.preset import load_preset
from orchestrator.trial import Trial, canonical_json
from search_spaces.mixture_grid import mixture_grid
from trainables.data.errors import DataError
from trainables.data.spec import DataSpec, DomainSpec
from trainables.distilbert.config import Config


def a_trial(**changes: object) -> Trial:
    domains = {name: DomainSpec(train=f"/rows/{name}.json") for name in ("squad", "bioasq")}
    data = DataSpec(encoder="/encoder", domains=domains)
    return replace(
        Trial(trainable="distilbert", version=1, config=Config(), data=data, data_fingerprint="0" * 64, seed=0), **changes
    )


def test_the_key_of_a_configuration_never_changes_by_accident() -> None:
    # A change here means that every finished trial of every user would be run again: bump VERSION only when results change.
    assert a_trial().key == "b08a4ae299b84695"


def test_only_what_decides_the_result_enters_the_key() -> None:
    moved = DataSpec(encoder="/elsewhere", domains=a_trial().data.domains)
    assert a_trial(data=moved).key == a_trial().key
    assert a_trial(variant="tuned").key == a_trial().key
    changed = [
        {"seed": 1},
        {"version": 2},
        {"data_fingerprint": "1" * 64},
        {"parents": (a_trial(seed=7),)},
        {"trainable": "exbert"},
    ]
    assert len({a_trial(**change).key for change in changed} | {a_trial().key}) == 6


def test_canonical_json_has_one_spelling_and_refuses_what_is_not_data() -> None:
    assert canonical_json({"b": 1.5, "a": [True, None]}) == '{"a":[true,null],"b":1.5}'
    with pytest.raises(TypeError):
        canonical_json({"f": print})
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"x": float("nan")})


def test_a_trial_survives_json() -> None:
    trial = a_trial(parents=(a_trial(seed=7),))
    assert Trial.from_json(json.loads(json.dumps(trial.to_json()))) == trial


def test_a_trial_whose_description_gives_another_key_is_refused() -> None:
    described = a_trial().to_json()
    described["seed"] = 5
    with pytest.raises(ValueError, match="written by another version"):
        Trial.from_json(described)


def test_the_embedded_grid_is_24_distinct_trials(tmp_path: Path) -> None:
    plan = plan_grid(load_preset("embedded"), tmp_path)
    cells = {(t.trainable, t.config.mixture.share, t.config.mixture.order) for t in plan.trials}
    assert len(plan.trials) == len(cells) == len({t.key for t in plan.trials}) == 24


def test_the_same_command_is_the_same_sweep_in_any_storage(tmp_path: Path) -> None:
    one, other = (plan_grid(load_preset("embedded"), tmp_path / name) for name in ("one", "other"))
    assert one.sweep_id == other.sweep_id
    assert [t.key for t in one.trials] == [t.key for t in other.trials]
    assert plan_grid(load_preset("embedded", num_seeds=2), tmp_path / "one").sweep_id != one.sweep_id


def test_a_variant_wins_over_the_preset_and_set_wins_over_both(tmp_path: Path) -> None:
    def tuned(*overrides: str) -> Plan:
        return plan_grid(load_preset("embedded", ["trainables=[exbert:tuned]", "model.n_layers=3", *overrides]), tmp_path)

    config = tuned().trials[0].config
    assert (config.training.learning_rate, config.training.epochs, config.model.dropout_placement) == (1e-4, 2, "before")
    assert config.model.n_layers == 3
    assert tuned("training.epochs=7").trials[0].config.training.epochs == 7


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["trainables=[exbert:best]"], "variant of exbert must be one of untuned, tuned, got 'best'"),
        (["model.num_experts=100"], "less than or equal to 64, got 100"),
        (["shares=[33]", "mixture_size=501"], "must give whole examples, got size=501 and share=33"),
        (["shares=[]"], "the grid is empty"),
    ],
)
def test_what_cannot_be_planned_is_refused(tmp_path: Path, overrides: list[str], complaint: str) -> None:
    with pytest.raises(PlanError) as raised:
        plan_grid(load_preset("embedded", overrides), tmp_path)
    assert complaint in str(raised.value)


def test_a_grid_has_every_point_of_its_spaces_once_and_those_of_the_first_seed_first(tmp_path: Path) -> None:
    overrides = ["trainables=[distilbert]", "spaces=[moe_routing, moe_auxiliary]", "shares=[0, 60]", "orders=[shuffled]"]
    plan = plan_grid(load_preset("embedded", overrides, num_seeds=2), tmp_path)
    labels = [trial.label for trial in plan.trials if trial.seed == 0 and trial.config.mixture.share == 60]
    # the routers' own defaults are a point of both spaces
    assert (len(labels), labels[0], labels[1]) == (1 + 6 + 8 - 2, "distilbert", "moe_variants:router=switch_top1")
    assert {"moe_variants", "moe_variants:balance_loss_coef=0", "moe_variants:router=expert_choice balance_loss_coef=0"} < set(
        labels
    )
    assert len(set(labels)) == len(labels)
    assert [trial.seed for trial in plan.trials] == [0] * 26 + [1] * 26
    assert plan.trials[2].summary == "moe_variants:router=switch_top1 0:100 shuffled"


def test_points_are_named_by_all_that_sets_them_apart_from_the_plain_trainable(tmp_path: Path) -> None:
    for experts in (2, 16):
        (tmp_path / f"e{experts}.py").write_text(
            "from search_spaces.space import Choice, Space\n"
            "routers = {'model.router': Choice(['soft', 'st_top2'])}\n"
            f"fixed = {{'model.num_experts': {experts}}}\n"
            f"SPACE = Space(name='e{experts}', trainable='moe_variants', dimensions=routers, fixed=fixed)\n",
            encoding="utf-8",
        )
    spaces = [f"spaces=[{tmp_path}/e2.py, {tmp_path}/e16.py]", "trainables=[]", "shares=[60]", "orders=[shuffled]"]
    labels = [trial.label for trial in plan_grid(load_preset("embedded", spaces), tmp_path).trials]
    assert labels == [
        "moe_variants:num_experts=2 router=soft", "moe_variants:num_experts=2",
        "moe_variants:num_experts=16 router=soft", "moe_variants:num_experts=16",
    ]  # fmt: skip


def test_a_setting_that_a_space_decides_is_not_set_beside_it(tmp_path: Path) -> None:
    for override, space in (("training.learning_rate=1e-4", "ensemble_gates"), ("model.router=soft", "moe_experts")):
        with pytest.raises(PlanError, match=f"--set gives {override.partition('=')[0]}, which the space {space} decides"):
            plan_grid(load_preset("embedded", [f"spaces=[{space}]", override]), tmp_path)


@pytest.mark.parametrize(
    ("space", "complaint"),
    [
        ("moe_rooting", "space must be one of adapters_lora, .*; did you mean moe_routing"),
        ("moe_search", "a grid needs dimensions with finitely many values, got Float for model.balance_loss_coef"),
        ("ensemble_factorial", "reinit_k must be in .0, n_layers=3., got 4"),
    ],
)
def test_a_space_that_has_no_grid_is_refused(tmp_path: Path, space: str, complaint: str) -> None:
    with pytest.raises(PlanError, match=complaint):
        plan_grid(load_preset("embedded", [f"spaces=[{space}]"]), tmp_path)


def test_parents_are_planned_before_their_children_and_are_trials_of_the_grid(tmp_path: Path) -> None:
    ensembles = ["trainables=[gated_ensemble:logits, distilbert, gated_ensemble:probabilities]", "orders=[shuffled]"]
    plan = plan_grid(load_preset("embedded", ensembles), tmp_path)
    assert len(plan.trials) == 6 * 3  # the experts are the baseline at 100:0 and 0:100
    seen: set[str] = set()
    for trial in plan.trials:
        assert set(trial.parent_keys) <= seen
        assert (trial.stage, len(trial.parents)) == ((2, 2) if trial.trainable == "gated_ensemble" else (1, 0))
        seen.add(trial.key)
    by_label = {t.label: t for t in plan.trials if t.config.mixture.share == 60}
    one, other = by_label["gated_ensemble:logits"], by_label["gated_ensemble:probabilities"]
    assert [(parent.label, parent.config.mixture.share) for parent in one.parents] == [("distilbert", 100), ("distilbert", 0)]
    assert one.parent_keys == other.parent_keys
    assert one.config.training.learning_rate == 1e-3
    assert one.parents[0].config.training.learning_rate == 5e-4
    assert replace(one, parents=one.parents[:1]).key != one.key


def test_a_trial_of_any_seed_is_what_its_settings_make_with_that_seed(tmp_path: Path) -> None:
    preset = load_preset("embedded", ["trainables=[gated_ensemble:logits, exbert:tuned]", "seeds=[3, 0]"])
    planned = plan_grid(preset, tmp_path).trials
    cells = mixture_grid(trainables=preset.trainables, shares=preset.shares, orders=preset.orders, seeds=preset.seeds)
    made = [make_trial(preset, cell, planned[0].data, planned[0].data_fingerprint) for cell in cells]
    parents = {parent.key: parent for trial in made for parent in trial.parents}
    assert len(parents) == 2 * 2  # one on each domain alone, for either seed
    assert [trial for trial in planned if trial.key not in parents] == made
    assert {trial.key: trial for trial in planned if trial.key in parents} == parents


def test_experts_drawn_again_are_told_from_the_baseline(tmp_path: Path) -> None:
    plan = plan_grid(
        load_preset("embedded", ["trainables=[gated_ensemble:logits]", "model.reinit_k=2", "shares=[60]"]), tmp_path
    )
    assert {trial.label for trial in plan.trials if trial.stage == 1} == {"distilbert"}  # so the preset asks for all
    spaces = ["trainables=[distilbert]", "spaces=[ensemble_embedded]", "shares=[0, 100]", "orders=[shuffled]"]
    labels = {trial.label for trial in plan_grid(load_preset("embedded", spaces), tmp_path).trials if trial.stage == 1}
    assert labels == {"distilbert", "distilbert:reinit_k=1", "distilbert:reinit_k=2"}


def test_a_plan_with_stages_is_read_back_whole(tmp_path: Path) -> None:
    plan = plan_grid(load_preset("embedded", ["trainables=[gated_ensemble:logits]", "shares=[60]"]), tmp_path)
    write_plan(tmp_path, plan, datetime.now(UTC))
    assert load_plan(tmp_path, plan.sweep_id) == plan


def test_a_missing_file_is_named_before_anything_is_read(tmp_path: Path, preset_file: Callable[..., Path]) -> None:
    domains = {"squad": {"train": str(tmp_path / "absent.json")}, "bioasq": "embedded"}
    with pytest.raises(DataError, match=r"absent\.json"):
        plan_grid(load_preset(str(preset_file(domains=domains))), tmp_path)


def test_a_frozen_plan_is_read_back_whole_and_never_rewritten(tmp_path: Path) -> None:
    plan = plan_grid(load_preset("embedded"), tmp_path)
    write_plan(tmp_path, plan, datetime(2026, 1, 1, tzinfo=UTC))
    path = tmp_path / "sweeps" / plan.sweep_id / "sweep.json"
    first = path.read_text(encoding="utf-8")
    write_plan(tmp_path, plan, datetime(2027, 1, 1, tzinfo=UTC))
    assert path.read_text(encoding="utf-8") == first
    assert load_plan(tmp_path, plan.sweep_id).trials == plan.trials


def test_a_torn_frozen_plan_is_written_again(tmp_path: Path) -> None:
    plan = plan_grid(load_preset("embedded"), tmp_path)
    write_plan(tmp_path, plan, datetime(2026, 1, 1, tzinfo=UTC))
    path = tmp_path / "sweeps" / plan.sweep_id / "sweep.json"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        load_plan(tmp_path, plan.sweep_id)
    write_plan(tmp_path, plan, datetime(2026, 1, 2, tzinfo=UTC))
    assert load_plan(tmp_path, plan.sweep_id).trials == plan.trials


def test_a_plan_is_not_resumed_on_other_data_or_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_grid(load_preset("embedded"), tmp_path)
    mine = tmp_path / "mine"
    shutil.copytree(next((tmp_path / "corpora").iterdir()), mine)
    domains = "domains={squad: {train: %s/squad_train.json}, bioasq: {train: %s/bioasq_train.csv}}" % (mine, mine)  # noqa: UP031
    plan = plan_grid(load_preset("embedded", [domains]), tmp_path)
    check_current(plan, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("trainables.distilbert.config.VERSION", 99)
        with pytest.raises(SweepError, match="planned with distilbert version 2, and this is version 99"):
            check_current(plan, tmp_path)
    csv = mine / "bioasq_train.csv"
    csv.write_text(csv.read_text(encoding="utf-8") + "What?,<answer> a <context> a b\n", encoding="utf-8")
    with pytest.raises(SweepError, match="has changed since it was planned"):
        check_current(plan, tmp_path)


def test_changing_one_row_changes_every_key(tmp_path: Path) -> None:
    plan_grid(load_preset("embedded"), tmp_path)
    corpora = next((tmp_path / "corpora").iterdir())
    mine = tmp_path / "mine"
    shutil.copytree(corpora, mine)
    domains = "domains={squad: {train: %s/squad_train.json}, bioasq: {train: %s/bioasq_train.csv}}" % (mine, mine)  # noqa: UP031
    before = {t.key for t in plan_grid(load_preset("embedded", [domains]), tmp_path).trials}
    csv = mine / "bioasq_train.csv"
    csv.write_text(csv.read_text(encoding="utf-8") + "What?,<answer> a <context> a b\n", encoding="utf-8")
    assert before.isdisjoint(t.key for t in plan_grid(load_preset("embedded", [domains]), tmp_path).trials)
