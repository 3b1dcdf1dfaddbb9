"""A search written for optuna-dashboard, read back with Optuna itself, and the importances of its parameters."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from synthetic_ledger import START
from synthetic_search import DIVERGED, FAILED, MAX_EPOCHS, NARROWING_ID, NUM_TRIALS, RUNNING, SEARCH_ID, synthetic_search
from typer.testing import CliRunner, Result

from results.__main__ import app
from results.errors import LedgerError, OptunaMissingError
from results.ledger import Ledger
from results.optuna_bridge import export_study, importances
from results.parts import write_part
from results.search import Search, load_search


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Search:
    """One objective."""
    return load_search(Ledger(synthetic_search(tmp_path_factory.mktemp("search"))))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db"


def _export(storage: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["export", "--to", "optuna", *arguments, "--storage", str(storage)])


def _load(name: str, url: str) -> Iterator[optuna.Study]:
    storage = optuna.storages.RDBStorage(url)
    try:
        yield optuna.load_study(study_name=name, storage=storage)
    finally:
        storage.remove_session()
        storage.engine.dispose()


@pytest.fixture(scope="module")
def study(search: Search, tmp_path_factory: pytest.TempPathFactory) -> Iterator[optuna.Study]:
    target = f"sqlite:///{tmp_path_factory.mktemp('study')}/study.db"
    assert export_study(search, target) == NUM_TRIALS + 1
    yield from _load(SEARCH_ID, target)


def test_study_has_every_trial_in_its_state(study: optuna.Study, search: Search) -> None:
    trials = {trial.user_attrs["number"]: trial for trial in study.trials}
    assert list(trials) == list(range(-1, NUM_TRIALS))
    assert [trials[n].state for n in (-1, FAILED, DIVERGED, RUNNING)] == [
        TrialState.COMPLETE,
        TrialState.FAIL,
        TrialState.PRUNED,
        TrialState.RUNNING,
    ]
    expected = {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
    for trial in search.trials:
        found = trials[trial.number]
        assert found.state == expected.get(trial.state, found.state)
        assert (found.params, found.user_attrs["trial_key"]) == (dict(trial.parameters), trial.trial_key)
        if trial.state in expected:
            assert found.value == trial.value
    assert search.best is not None
    assert study.best_trial.user_attrs["number"] in (search.best.number, -1)


def test_study_has_the_distributions_of_the_space(study: optuna.Study) -> None:
    distributions = {name: kind for trial in study.trials for name, kind in trial.distributions.items()}
    assert distributions == {
        "model.n_layers": IntDistribution(3, 6),
        "training.learning_rate": FloatDistribution(1e-5, 1.1e-4, log=True),
        "model.dropout_placement": CategoricalDistribution(["none", "before", "after"]),
        "model.moe_dropout": CategoricalDistribution([0.1, 0.3]),
    }
    for trial in study.trials:
        assert ("model.moe_dropout" in trial.params) == (trial.params["model.dropout_placement"] != "none")


def test_study_has_the_curves_in_whole_steps(study: optuna.Study, search: Search) -> None:
    per_epoch = study.user_attrs["steps_per_fidelity"]
    by_number = {trial.user_attrs["number"]: trial for trial in study.trials}
    for trial in search.trials:
        curve = {epoch * per_epoch: value for epoch, value in trial.curve if value is not None}
        assert by_number[trial.number].intermediate_values == curve
    assert study.metric_names == ["val_qa_loss"]


def test_study_has_the_times_of_the_decisions(study: optuna.Study, search: Search) -> None:
    first = search.trials[0]
    found = next(trial for trial in study.trials if trial.user_attrs["number"] == 0)
    assert (found.datetime_start, found.datetime_complete) == tuple(
        at.astimezone().replace(tzinfo=None)
        for at in (first.decisions[0].happened_at, first.decisions[-1].happened_at)
        if at is not None
    )


def test_epochs_between_whole_ones_become_steps(tmp_path: Path, url: str) -> None:
    synthetic_search(tmp_path, num_trials=2)
    row = {"sweep_id": SEARCH_ID, "kind": "judged", "action": "pause", "happened_at": START, "number": 9, "trial_key": "0" * 16}
    rows = [{**row, "sequence": 90 + i, "epoch": epoch, "value": 2.0} for i, epoch in enumerate((0.25, 0.5))]
    write_part(tmp_path, "decisions", "later", rows)
    export_study(load_search(Ledger(tmp_path)), url)
    [study] = _load(SEARCH_ID, url)
    paused = study.trials[-1]
    assert (study.user_attrs["steps_per_fidelity"], paused.intermediate_values) == (4, {1: 2.0, 2: 2.0})
    assert (paused.state, paused.user_attrs["state"]) == (TrialState.PRUNED, "paused")


def test_two_objectives_make_a_study_with_a_pareto_front(searched: Path, url: str) -> None:
    result = _export(searched, url, "--sweep", SEARCH_ID)
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"search {SEARCH_ID} ({NUM_TRIALS + 1} trials): {NUM_TRIALS + 1} written" in result.stderr
    assert f"optuna-dashboard {url}" in result.stderr
    [study] = _load(SEARCH_ID, url)
    assert study.metric_names == ["val_qa_loss", "train_seconds"]
    front = {trial.user_attrs["number"] for trial in study.best_trials} - {-1}
    assert front <= load_search(Ledger(searched), SEARCH_ID).pareto


def test_narrowing_is_a_study_of_choices(searched: Path, url: str) -> None:
    assert _export(searched, url).exit_code == 0
    [study] = _load(NARROWING_ID, url)
    assert [trial.user_attrs["stage"] for trial in study.trials] == ["blocks"] * 4 + ["learning_rate"] * 4
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
    assert study.trials[0].distributions == {
        "model.n_layers": CategoricalDistribution([3, 4, 5, 6]),
        "training.learning_rate": CategoricalDistribution([1e-5, 2e-5, 4e-5, 1e-4]),
    }
    assert list(study.trials[0].intermediate_values) == list(range(1, MAX_EPOCHS + 1))


def test_study_that_is_there_already_is_left_alone(search: Search, url: str) -> None:
    export_study(search, url)
    with pytest.raises(LedgerError, match="has a study 'search-1' already: name another file, or delete it"):
        export_study(search, url)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "error: cannot write a study to 'nowhere'"),
        (["sqlite:////none/study.db"], "error: cannot write a study to 'sqlite:////none/study.db'"),
        (["sqlite:///x", "--sweep", "search-7"], "error: no search 'search-7' in the ledger, the nearest is 'search-1'"),
    ],
)
def test_export_that_cannot_be_is_one_line(searched: Path, arguments: list[str], message: str) -> None:
    result = _export(searched, *arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith(message)


def test_without_optuna_it_says_how_to_install_it(
    searched: Path, search: Search, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    how = "this needs Optuna, which is not installed here: pip install 'expert-sweeps[export]'"
    assert _export(searched, url).stderr == f"error: {how}\n"
    with pytest.raises(OptunaMissingError):
        importances(search)


def test_importances_name_what_decides_the_loss(search: Search) -> None:
    found = importances(search)
    assert next(iter(found)) == "training.learning_rate"
    assert sum(found.values()) == pytest.approx(1)
    assert found == importances(search)


def test_three_trials_have_no_importances(tmp_path: Path) -> None:
    assert importances(load_search(Ledger(synthetic_search(tmp_path, num_trials=3)))) == {}
