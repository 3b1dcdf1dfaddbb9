"""The command `search` from end to end: real trials of half a second, one after the other, and once on a real Ray."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import run, study
from results.ledger import Ledger

Cli = Callable[..., tuple[int, str, str]]

ONE_MIXTURE: dict[str, Any] = {
    "orders": ["shuffled"],
    "shares": [80],
    "recovery": {"checkpoint_seconds": 0},
    "search": {"space": "exbert_embedded", "trials": 4, "max_epochs": 2, "grace": 0.5, "variant": "stopping"},
}
"""A search of four trials of half a second."""

STAGES = """
from search_spaces.space import Choice
from search_spaces.stages import Narrowing, Stage

NARROWING = Narrowing(
    name="mine",
    trainable="distilbert",
    start={"training.learning_rate": 1e-3, "model.n_layers": 1},
    stages=(
        Stage(name="blocks", dimensions={"model.n_layers": Choice([1, 2])}),
        Stage(name="rate", dimensions={"training.learning_rate": Choice([5e-4, 1e-3])}),
    ),
)
"""


def command(preset: Path, storage: Path, *arguments: str) -> list[str]:
    return ["search", "--preset", str(preset), "--storage", str(storage), "--backend", "inline", "--yes", *arguments]


def rows(storage: Path, query: str) -> list[dict[str, Any]]:
    return Ledger(storage, must_exist=False).sql(query).to_pylist()


DECIDED = (
    "SELECT sequence, kind, number, trial_key, parameters, epoch, value, action, rung, reason, stage, parent_key FROM decisions"
)


def decided(storage: Path) -> list[dict[str, Any]]:
    found = rows(storage, f"{DECIDED} ORDER BY sequence")
    assert [row["sequence"] for row in found] == list(range(len(found)))
    return found


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory, write_preset: Callable[..., Path]) -> Path:
    return write_preset(tmp_path_factory.mktemp("preset"), **ONE_MIXTURE)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, preset: Path) -> Path:
    """The storage of a search that nobody disturbed; not to be changed."""
    storage = tmp_path_factory.mktemp("searched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["orchestrator.run", *command(preset, storage)])
        with pytest.raises(SystemExit) as exit_:
            run.main()
    assert exit_.value.code == 0
    return storage


@pytest.fixture
def storage(searched: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(searched, tmp_path / "storage")
    return tmp_path / "storage"


def search_id(storage: Path) -> str:
    [row] = rows(storage, "SELECT sweep_id FROM searches")
    return str(row["sweep_id"])


def test_a_search_ends_with_all_its_trials_and_some_were_stopped_early(searched: Path) -> None:
    decisions = decided(searched)
    trials = {row["trial_key"]: row for row in rows(searched, "SELECT * FROM trials")}
    suggested = {row["trial_key"]: row["number"] for row in decisions if row["kind"] == "suggested"}
    assert list(suggested.values()) == [0, 1, 2, 3]
    assert set(suggested) == set(trials)
    completed = {row["trial_key"]: row["value"] for row in decisions if (row["kind"], row["action"]) == ("ended", "completed")}
    stopped = {row["trial_key"]: row for row in decisions if row["action"] == "stop"}
    assert completed
    assert stopped
    assert set(completed) | set(stopped) == set(trials)
    assert {key for key, row in trials.items() if row["status"] == "completed"} == set(completed)
    assert {key: row["stop_reason"] for key, row in trials.items() if row["status"] == "stopped"} == {
        key: row["reason"] for key, row in stopped.items()
    }
    for row in rows(
        searched, "SELECT trial_key, max(epoch) AS last, arg_max(val_qa_loss, step) AS loss FROM reports GROUP BY 1"
    ):
        key = row["trial_key"]
        assert row["last"] == (2 if key in completed else stopped[key]["epoch"])
        assert row["loss"] == (completed[key] if key in completed else stopped[key]["value"])
    for row in rows(searched, "SELECT trial_key, attempt, status, stop_reason, failure_class FROM attempts"):
        assert row["attempt"] == 1
        assert row["status"] == trials[row["trial_key"]]["status"]
        assert (row["stop_reason"], row["failure_class"]) == (trials[row["trial_key"]]["stop_reason"], None)


def test_every_report_of_a_search_is_judged_and_in_its_ledger(searched: Path) -> None:
    judged = [(row["trial_key"], row["epoch"], row["value"]) for row in decided(searched) if row["kind"] == "judged"]
    reported = rows(searched, "SELECT trial_key, epoch, val_qa_loss FROM reports")
    assert sorted(judged) == sorted(tuple(row.values()) for row in reported)


def test_status_and_plan_say_how_a_search_stands(cli: Cli, searched: Path, preset: Path) -> None:
    id_ = search_id(searched)
    code, out, _ = cli("status", id_, "--storage", str(searched), "--json")
    assert code == 0
    stopped = sum(row["action"] == "stop" for row in decided(searched))
    assert json.loads(out)[id_] == {"completed": 4 - stopped, "stopped": stopped}
    arguments = ("plan", "search", "--preset", str(preset), "--storage", str(searched), "--trials", "8")
    code, out, _ = cli(*arguments, "--json")
    plan = json.loads(out)
    assert (code, plan["sweep_id"], plan["trials"], plan["full_epochs"]) == (0, id_, 8, 16)
    assert [rung["epoch"] for rung in plan["rungs"]] == [0.5, 1.0]
    code, out, err = cli(*arguments)
    assert code == 0
    assert out.splitlines()[0].split() == ["rung", "(epochs)", "trials", "that", "come", "go", "on"]
    assert f"sweep {id_}: 4 of 8 trials suggested so far" in err


def test_the_same_command_again_runs_nothing(cli: Cli, storage: Path, preset: Path) -> None:
    before = decided(storage)
    code, _, err = cli(*command(preset, storage))
    assert code == 0
    assert "4 trials, 4 already done, 0 to run" in err
    assert decided(storage) == before
    assert len(rows(storage, "SELECT * FROM attempts")) == 4
    assert len(rows(storage, "SELECT * FROM runs")) == 1
    code, _, err = cli("resume", "--storage", str(storage), "--backend", "inline")
    assert code == 0
    assert "nothing to resume" in err


def test_more_trials_run_only_those_also_where_nothing_but_the_ledger_is_left(
    cli: Cli, searched: Path, storage: Path, preset: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(searched / "ledger", bare / "ledger")
    for place in (storage, bare):
        code, _, err = cli(*command(preset, place, "--trials", "5"))
        assert code == 0
        assert "5 trials, 4 already done, 1 to run" in err
        assert search_id(place) == search_id(searched)
        assert len(rows(place, "SELECT * FROM attempts")) == 5
    assert decided(storage) == decided(bare)
    assert decided(storage)[: len(decided(searched))] == decided(searched)


def test_fewer_trials_than_there_are_change_nothing_and_it_says_so(cli: Cli, storage: Path, preset: Path) -> None:
    code, _, err = cli(*command(preset, storage, "--trials", "2"))
    assert code == 0
    assert "2 trials were asked for, but 4 are suggested already" in err
    assert "4 of 4 trials done" in err


def test_a_search_cut_off_by_a_budget_goes_on_by_its_id_as_if_it_had_not_been(
    cli: Cli, searched: Path, preset: Path, tmp_path: Path
) -> None:
    code, _, err = cli(*command(preset, tmp_path, "--max-trials", "2"))
    assert code == 0
    assert "2 of 4 trials done" in err
    assert decided(tmp_path) == decided(searched)[: len(decided(tmp_path))]
    code, _, err = cli("resume", search_id(searched), "--storage", str(tmp_path), "--backend", "inline")
    assert code == 0
    assert "4 trials, 2 already done, 2 to run" in err
    assert decided(tmp_path) == decided(searched)


def test_promoted_trials_go_on_where_they_paused(cli: Cli, preset: Path, tmp_path: Path) -> None:
    code, _, err = cli(*command(preset, tmp_path, "--variant", "promotion", "--trials", "3"))
    assert (code, "3 of 3 trials done" in err) == (0, True)
    decisions = decided(tmp_path)
    promoted = [row["trial_key"] for row in decisions if row["kind"] == "promoted"]
    assert promoted
    attempts = rows(tmp_path, "SELECT trial_key, attempt, status, stop_reason, resumed_step FROM attempts ORDER BY 1, 2")
    again = [row for row in attempts if row["attempt"] > 1]
    assert sorted(row["trial_key"] for row in again) == sorted(promoted)
    assert all(row["resumed_step"] > 0 for row in again)
    assert {row["stop_reason"] for row in attempts if row["status"] == "stopped"} <= {
        "asha (paused at 0.5)",
        "asha (paused at 1)",
    }
    steps = rows(tmp_path, "SELECT trial_key, step, count(*) AS times FROM all_reports GROUP BY ALL")
    assert {row["times"] for row in steps} == {1}


def test_a_narrowing_from_a_file_that_vanishes_is_resumed_as_it_was_frozen(cli: Cli, preset: Path, tmp_path: Path) -> None:
    file, storage = tmp_path / "mine.py", tmp_path / "storage"
    file.write_text(STAGES)
    narrow = ("--strategy", "narrowing", "--space", str(file), "--max-epochs", "1")
    code, _, err = cli(*command(preset, storage, *narrow, "--max-trials", "1"))
    assert (code, "1 of 4 trials done" in err) == (0, True)
    file.unlink()
    code, _, err = cli("resume", search_id(storage), "--storage", str(storage), "--backend", "inline")
    assert (code, "4 of 4 trials done" in err) == (0, True)
    suggested = [row for row in decided(storage) if row["kind"] == "suggested"]
    assert [row["stage"] for row in suggested] == ["blocks", "blocks", "rate", "rate"]
    values = {row["number"]: row["value"] for row in decided(storage) if row["kind"] == "ended"}
    winner = min((0, 1), key=lambda number: values[number])
    assert {row["parent_key"] for row in suggested[2:]} == {suggested[winner]["trial_key"]}
    assert len(rows(storage, "SELECT * FROM attempts")) == 3  # the winner was met again
    code, _, err = cli(*command(preset, storage, *narrow))
    assert code == 2
    assert f"there is no file {file}" in err


def test_the_comparison_follows_its_searches_and_runs_what_they_lack(cli: Cli, storage: Path, preset: Path) -> None:
    arguments = ("--then-compare", "--set", "search.control=distilbert_embedded")
    code, _, err = cli(*command(preset, storage, *arguments))
    assert code == 0
    lines = [line for line in err.splitlines() if line.startswith("sweep ")]
    assert [line.partition(": ")[2] for line in lines] == [
        "4 trials, 4 already done, 0 to run",
        "4 trials, 0 already done, 4 to run",
        "3 trials, 2 already done, 1 to run",
    ]
    assert "python -m results table grid --sweep grid-" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--sampler", "tppe"], "search.sampler: Input should be 'tpe', 'random', 'gp', 'qmc' or 'cmaes', got 'tppe'"),
        (["--eta", "1"], "search.eta: Input should be greater than or equal to 2, got 1"),
        (["--grace", "9"], "grace must be at most max_epochs=2, got 9"),
        (["--grace", "nan"], "search.grace: Input should be a finite number, got 'NaN'"),
        (["--trials", "0"], "search.trials: Input should be greater than or equal to 1, got 0"),
        (["--variant", "promote"], "search.variant: Input should be 'stopping' or 'promotion', got 'promote'"),
        (["--space", "exbert_embeded"], "got 'exbert_embeded'; did you mean exbert_embedded?"),
        (["--space", "gone.py"], "there is no file gone.py to read a space from"),
        (["--strategy", "narrowing", "--space", "papr"], "got 'papr'; did you mean paper?"),
        (["--strategy", "narrowing", "--set", "model.n_layers=2"], "--set model.n_layers fixes what paper varies"),
        (["--strategy", "narrowing", "--warm-start"], "a narrowing asks no sampler: leave out warm_start"),
        (["--strategy", "narrowing", "--eta", "3"], "so --eta would change nothing; leave it out"),
        (["--set", "search.objectives=[train_seconds]"], "objectives must be val_qa_loss, alone or with"),
        (["--set", "search.trails=3"], "unknown key search.trails; did you mean search.trials?"),
        (["--set", "training.epochs=1"], "--set training.epochs has no effect on a search"),
    ],
)
def test_bad_input_is_one_clear_line(cli: Cli, preset: Path, tmp_path: Path, arguments: list[str], complaint: str) -> None:
    code, out, err = cli(*command(preset, tmp_path, *arguments))
    assert (code, out) == (2, "")
    [line] = err.splitlines()
    assert line.startswith("error: ")
    assert complaint in line
    assert not (tmp_path / "ledger").exists()


def test_a_plan_misses_the_samplers_package_too(
    cli: Cli, preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(study._PACKAGES, "cmaes", ("absent_package",))
    for arguments in (["plan", "search"], ["search"]):
        code, _, err = cli(*arguments, "--preset", str(preset), "--storage", str(tmp_path), "--sampler", "cmaes")
        assert code == 2
        assert err.endswith("needs absent_package, not installed here: pip install absent_package\n")


@pytest.mark.ray
def test_a_search_on_ray_stops_trials_where_it_decides_to(cli: Cli, preset: Path, tmp_path: Path) -> None:
    slots = ("--set", "resources.max_concurrent=2", "--variant", "stopping")
    arguments = ["--preset", str(preset), "--storage", str(tmp_path), "--trials", "6", "--yes", *slots]
    command_line = [sys.executable, "-m", "orchestrator.run", "search", *arguments]  # a process of its own: Ray reads its
    environment = {**os.environ, "HOME": str(tmp_path.parent)}  # environment once, and other tests may have had it read
    done = subprocess.run(command_line, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "6 of 6 trials done" in done.stderr
    decisions = decided(tmp_path)
    last = {
        row["trial_key"]: row["last"] for row in rows(tmp_path, "SELECT trial_key, max(epoch) AS last FROM reports GROUP BY 1")
    }
    stops = {row["trial_key"]: row["epoch"] for row in decisions if row["action"] == "stop"}
    ends = {row["trial_key"]: 2.0 for row in decisions if row["kind"] == "ended"}
    assert stops
    assert last == stops | ends
    assert [row["number"] for row in decisions if row["kind"] == "suggested"] == list(range(6))
    statuses = {row["trial_key"]: row["status"] for row in rows(tmp_path, "SELECT trial_key, status FROM trials")}
    assert statuses == {**dict.fromkeys(stops, "stopped"), **dict.fromkeys(ends, "completed")}
    code, _, err = cli("search", *arguments)
    assert (code, "6 already done, 0 to run" in err) == (0, True)
