"""Sweeps over more than two domains, in two groups, up to what the ledger says of them and of gated ensembles."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.errors import PlanError, PresetError
from orchestrator.plan import Plan, plan_grid
from orchestrator.preset import load_preset
from orchestrator.search_plan import plan_search
from results.claims import claims_table
from results.ensembles import ensembles_table, expert_answers_table, gates_table
from results.grid import load_grid
from results.ledger import Ledger
from results.parts import write_part
from results.ranking import ranking_table
from results.report_ensembles import ensembles_section
from results.report_frame import load_subject
from trainables.embedded import write_corpora

DOMAINS = ("near", "nearer", "far", "farther")

TESTED = 12

SPACE = """
from search_spaces.space import Choice, Space

SPACE = Space(
    name="gates",
    trainable="gated_ensemble",
    dimensions={"model.gate_data": Choice(["mixture", "others"])},
    fixed={"training.learning_rate": 1e-2},
)
"""

PRESET: dict[str, Any] = {
    "encoder": "embedded",
    "groups": [["near", "nearer"], ["far", "farther"]],
    "shares": [100],
    "mixture_size": 40,
    "orders": ["shuffled"],
    "trainables": ["distilbert"],
    "model": {"n_layers": 1, "gate_hidden": 16},
    "training": {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "max_length": 128, "stride": 32},
    "evaluation": {"validation_examples": 4, "test_examples": TESTED, "reports_per_epoch": 1},
    "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0},
}


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four domains, the quarters of a small corpus: two are trained on, two only tested on."""
    folder = tmp_path_factory.mktemp("groups")
    files = write_corpora(folder, train_rows=320, test_rows=160)
    domains: dict[str, dict[str, str]] = {name: {} for name in DOMAINS}
    for place, name in enumerate(DOMAINS):
        for part in ("train", "test"):
            document = json.loads(Path(files[f"squad_{part}"]).read_text())
            path = folder / f"{name}-{part}.json"
            path.write_text(json.dumps({**document, "data": document["data"][place::4]}))
            domains[name][part] = str(path)
    spaces = folder / "spaces.py"
    spaces.write_text(SPACE)
    path = folder / "groups.yaml"
    path.write_text(yaml.safe_dump({**PRESET, "domains": domains, "spaces": [str(spaces)]}, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def storage(preset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where that grid was run."""
    folder = tmp_path_factory.mktemp("storage")
    arguments = ["grid", "--preset", str(preset), "--storage", str(folder), "--backend", "inline", "--yes"]
    done = subprocess.run([sys.executable, "-m", "orchestrator.run", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def planned(preset: Path, storage: Path, *overrides: str) -> Plan:
    return plan_grid(load_preset(str(preset), overrides), storage)


def test_a_groups_part_comes_from_its_domains_evenly(preset: Path, tmp_path: Path) -> None:
    [trial, *_] = planned(preset, tmp_path, "shares=[60]", "spaces=[]", "mixture_size=60").trials
    assert trial.config.mixture.examples == (18, 18, 12, 12)
    assert trial.summary == "distilbert 60:40 shuffled"


def test_an_ensemble_has_an_expert_for_each_domain_of_the_mixture(preset: Path, tmp_path: Path) -> None:
    trials = planned(preset, tmp_path).trials
    labels = [trial.label for trial in trials]
    assert labels == [
        "distilbert",
        "distilbert:domain=near",
        "distilbert:domain=nearer",
        "gated_ensemble:learning_rate=0.01",
        "gated_ensemble:learning_rate=0.01 gate_data=others",
    ]
    gate = trials[-1]
    assert [parent.config.mixture.examples for parent in gate.parents] == [(20, 0, 0, 0), (0, 20, 0, 0)]
    assert all(parent.config.mixture.size == 20 for parent in gate.parents)


def test_experts_may_be_trained_for_longer_than_their_gate(preset: Path, tmp_path: Path) -> None:
    *_, gate = planned(preset, tmp_path, "trainables=[gated_ensemble]", "spaces=[]", "model.expert_epochs=3").trials
    assert [gate.config.training.epochs, *(parent.config.training.epochs for parent in gate.parents)] == [1, 3, 3]


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["mixture_size=41"], "41 must be whole numbers of examples of near, nearer; take a multiple of 200"),
        (["model.gate_data=others", "shares=[60]", "mixture_size=100", "trainables=[gated_ensemble]", "spaces=[]"],
         "gated_ensemble at share 60: gate_data=others needs domains that the mixture leaves out"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_over_groups_says_why(
    preset: Path, tmp_path: Path, overrides: list[str], complaint: str
) -> None:
    with pytest.raises(PlanError, match=complaint):
        planned(preset, tmp_path, *overrides)


@pytest.mark.parametrize(
    "groups", ["[[near], [far]]", "[[near, nearer, near], [far, farther]]", "[[near, nearer, far, farther], []]"]
)
def test_groups_have_each_domain_once(preset: Path, groups: str) -> None:
    with pytest.raises(
        PresetError, match=r"groups must be two that have each domain once, got .* for the domains near, nearer"
    ):
        load_preset(str(preset), [f"groups={groups}"])


def test_the_ledger_says_what_was_trained_on_and_what_was_not(storage: Path) -> None:
    rows = Ledger(storage).sql("SELECT trainable, domain_examples FROM plans ORDER BY ALL").to_pylist()
    assert {row["trainable"]: row["domain_examples"] for row in rows} == {
        "distilbert": [20, 20, 0, 0],
        "distilbert:domain=near": [20, 0, 0, 0],
        "distilbert:domain=nearer": [0, 20, 0, 0],
        "gated_ensemble:learning_rate=0.01": [20, 20, 0, 0],
        "gated_ensemble:learning_rate=0.01 gate_data=others": [20, 20, 0, 0],
    }
    grid = load_grid(Ledger(storage))
    assert (grid.mixed, grid.unseen, grid.sides) == (DOMAINS, ("far", "farther"), ("first", "second group"))
    assert all(set(trial.em) == set(DOMAINS) for trial in grid.trials)
    table, _ = ranking_table(Ledger(storage), grid)
    assert {f"em {domain}" for domain in DOMAINS} <= set(table.column_names)


def test_a_gate_that_learns_from_the_other_domains_sees_all_of_their_examples(storage: Path) -> None:
    query = """
        SELECT trainable, max(samples_seen) AS seen FROM reports JOIN trials USING (trial_key)
        WHERE architecture = 'gated_ensemble' GROUP BY trainable ORDER BY trainable
    """
    mixture, others = Ledger(storage).sql(query).to_pylist()
    assert mixture["seen"] == 40
    assert others["seen"] > 100


def test_gates_stand_beside_their_best_expert_and_an_oracle(storage: Path) -> None:
    ledger = Ledger(storage)
    grid = load_grid(ledger)
    answers = expert_answers_table(ledger, grid)[0].to_pylist()
    for row in gates_table(ledger, grid)[0].to_pylist():
        mine = [each for each in answers if (each["trial_key"], each["domain"]) == (row["trial_key"], row["domain"])]
        examples: dict[str, list[dict[str, Any]]] = {}
        for each in mine:
            examples.setdefault(each["example_id"], []).append(each)
        assert len(examples) == row["examples"] == TESTED
        for both in examples.values():
            assert [each["expert"] for each in both] == ["near", "nearer"]
            assert sum(each["weight"] for each in both) == pytest.approx(1)
            assert all(each["answer"].split(" ")[0] == each["start"] for each in both)
        by_expert = {name: [each["expert_em"] for each in mine if each["expert"] == name] for name in ("near", "nearer")}
        assert row["best expert's em"] == pytest.approx(100 * max(map(sum, by_expert.values())) / TESTED)
        right = [max(each["expert_em"] for each in both) for both in examples.values()]
        assert row["oracle em"] == pytest.approx(100 * sum(right) / TESTED)
        heaviest = [max(both, key=lambda each: each["weight"])["expert_em"] for both in examples.values()]
        followed = 100 * sum(heaviest) / sum(right) if any(right) else None
        assert row["followed"] == (None if followed is None else pytest.approx(followed))


def test_an_expert_answers_as_its_own_trial_did(storage: Path) -> None:
    ledger = Ledger(storage)
    answers = expert_answers_table(ledger, load_grid(ledger))[0].to_pylist()
    rows = ledger.sql(
        "SELECT trainable, domain, example_id, prediction FROM predictions JOIN trials USING (trial_key)"
    ).to_pylist()
    own = {(row["trainable"], row["domain"], row["example_id"]): row["prediction"] for row in rows}
    assert len(answers) == 2 * 2 * len(DOMAINS) * TESTED
    for row in answers:
        assert row["answer"] == own[f"distilbert:domain={row['expert']}", row["domain"], row["example_id"]]


def test_the_papers_tables_and_claims_stand_beside_ours_out_of_domain(storage: Path) -> None:
    ledger = Ledger(storage)
    grid = load_grid(ledger)
    table, notes = ensembles_table(ledger, grid)
    baseline, ensemble, *others = table.to_pylist()
    [plain] = [trial for trial in grid.trials if trial.trainable == "distilbert"]
    assert baseline["EM"] == pytest.approx((plain.em["far"] + plain.em["farther"]) / 2)
    assert (baseline["trials"], ensemble["trials"], [row["trials"] for row in others]) == (1, 1, [0, 0, 0])
    assert (ensemble["paper EM dev"], ensemble["paper F1 test"]) == (31.952, 58.768)
    assert "the mean of far, farther" in notes[0]
    claims = {row["claim"]: row for row in claims_table(ledger, grid)[0].to_pylist()}
    assert {row["family"] for row in claims.values()} == {"ensembles"}
    found = claims["a gated ensemble is below the joint baseline"]
    assert found["absolute"] == pytest.approx(ensemble["EM"] - baseline["EM"])
    assert found["tested on"] == "far, farther"
    assert claims["four blocks drawn again cost"]["verdict"] == "not measured"


def test_experts_of_one_domain_are_no_models_of_the_grid(storage: Path) -> None:
    ledger = Ledger(storage)
    for sweep in (None, load_grid(ledger).trials[0].sweep_id):
        names = {trial.trainable for trial in load_grid(ledger, sweep).trials}
        assert names == {
            "distilbert",
            "gated_ensemble:learning_rate=0.01",
            "gated_ensemble:learning_rate=0.01 gate_data=others",
        }


def test_whichever_key_sorts_last_the_newest_grid_is_the_same(storage: Path, tmp_path: Path) -> None:
    shutil.copytree(storage, tmp_path / "storage")
    ledger = Ledger(tmp_path / "storage")
    [sweep] = {trial.sweep_id for trial in load_grid(ledger).trials}
    rows = ledger.table("plans").to_pylist()
    for row in rows:  # an expert's key the last of all
        if row["trainable"] == "distilbert:domain=near":
            row["trial_key"] = "f" * 16
    write_part(tmp_path / "storage", "plans", sweep, rows)
    assert len(load_grid(Ledger(tmp_path / "storage")).trials) == 3


def test_a_search_of_trials_that_begin_from_others_is_refused(preset: Path, tmp_path: Path) -> None:
    space = preset.parent / "spaces.py"
    asked = load_preset(str(preset), ["search.share=100", f"search.space={space}", "spaces=[]"])
    with pytest.raises(PlanError, match="begins from 2 others, which a search does not train; take every point of the space"):
        plan_search(asked, tmp_path)


def test_the_report_has_a_section_on_ensembles(storage: Path) -> None:
    section = ensembles_section(load_subject(Ledger(storage)))
    assert section is not None
    captions = [table["caption"] for table in section.values["tables"]]
    assert captions[:2] == [
        "The paper's systems and ours, EM and F1 in percent",
        "Ensembles, their best experts, and an oracle",
    ]
