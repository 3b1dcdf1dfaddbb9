"""Exports: what a run is, which sweep is chosen, one-line errors, and CSV read back with pandas and pyarrow."""

from __future__ import annotations

import json
import math
import sys
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow.csv as pacsv
import pytest
from export_ledger import COMPLETED, FAILED, NUM_TRIALS, PLANNED, RUNNING, RUNNING_START, STOPPED, export_ledger
from hypothesis import given
from hypothesis import strategies as st
from synthetic_ledger import START, SWEEP_ID
from synthetic_search import DIVERGED, NARROWING_ID, SEARCH_ID
from synthetic_search import NUM_TRIALS as NUM_SEARCHED
from typer.testing import CliRunner, Result

from results import Ledger, export_sweep
from results.__main__ import app
from results.errors import QueryError
from results.exports import TARGETS
from results.exports.mlflow_runs import STATES as MLFLOW_STATES
from results.exports.runs import Run, choose_sweep, flatten, load_runs
from results.exports.tensorboard_events import STATES as TENSORBOARD_STATES
from results.exports.wandb_runs import EXIT_CODES

ALL_STATES = {"planned", "running", "completed", "stopped", "failed", "lost"}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    return export_ledger(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def runs(storage: Path) -> dict[str, Run]:
    ledger = Ledger(storage)
    return {run.trial_key: run for run in load_runs(ledger, choose_sweep(ledger))}


def _export(storage: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["export", *arguments, "--storage", str(storage)])


def test_every_trial_is_a_run_in_its_state(runs: dict[str, Run]) -> None:
    states = {key: runs[key].status for key in (COMPLETED, FAILED, PLANNED, RUNNING, STOPPED)}
    assert list(states.values()) == ["completed", "failed", "planned", "running", "stopped"]
    assert len(runs) == NUM_TRIALS
    assert runs[COMPLETED].name == "distilbert 60:40 shuffled seed 0"
    assert runs[COMPLETED].parameters == {
        "trainable": "distilbert",
        "epochs": 3,
        "order": "shuffled",
        "share": 60,
        "variant": "",
    }


def test_points_have_all_that_was_measured_at_a_step(runs: dict[str, Run]) -> None:
    first, _, last = runs[COMPLETED].points
    assert [point.step for point in runs[COMPLETED].points] == [250, 500, 750]
    assert first.metrics["extra/grad_norm"] == 1.5
    assert (first.metrics["val/squad/em"], first.metrics["val/squad/examples"]) == (25.0, 7.0)
    assert {"test/squad/em", "test/bioasq/mean_answer_tokens", "train_qa_loss", "gpu_seconds", "params_total"} <= set(
        last.metrics
    )
    assert "router_z_loss" not in last.metrics


def test_points_have_the_time_within_their_own_attempt(runs: dict[str, Run]) -> None:
    found = [(point.step, point.at) for point in runs[RUNNING].points]
    began = [RUNNING_START + timedelta(hours=attempt) for attempt in (1, 1, 2)]
    assert found == [(step, at + timedelta(seconds=step)) for step, at in zip((10, 20, 30), began, strict=True)]
    assert math.isnan(runs[RUNNING].points[1].metrics["train_qa_loss"])


def test_failed_run_has_its_error_and_what_it_cost(runs: dict[str, Run]) -> None:
    failed = runs[FAILED]
    assert failed.error is not None and failed.error.endswith("RuntimeError: out of <memory>")
    assert failed.tags["error_type"] == "RuntimeError"
    assert failed.points[-1].metrics["gpu_seconds"] == 50
    assert runs[STOPPED].tags["stop_reason"] == "asha (rung 1)"


def test_trial_that_never_started_is_planned(runs: dict[str, Run]) -> None:
    planned = runs[PLANNED]
    assert (planned.planned_at, planned.started_at, planned.finished_at, planned.points) == (START, None, None, ())


def test_batches_of_trials_join_to_the_same_runs(storage: Path, runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("results.exports.runs._TRIALS_AT_ONCE", 2)
    ledger = Ledger(storage)
    again = list(load_runs(ledger, choose_sweep(ledger)))
    assert [(run.trial_key, run.digest) for run in again] == [(key, run.digest) for key, run in runs.items()]


def test_digest_changes_with_every_part_of_a_run(runs: dict[str, Run]) -> None:
    assert len({run.digest for run in runs.values()}) == NUM_TRIALS


@given(
    st.recursive(
        st.integers() | st.text(max_size=3), lambda inner: st.dictionaries(st.text("abc", min_size=1, max_size=2), inner)
    )
)
def test_flattening_keeps_every_leaf(value: object) -> None:
    def leaves(inner: object) -> list[object]:
        if isinstance(inner, dict):
            return [leaf for item in inner.values() for leaf in leaves(item)] or ["{}"]  # as text, where there is nothing in it
        return [inner]

    flat = flatten({"top": value})
    assert list(flat.values()) == leaves(value)
    assert all(name.split(".")[0] == "top" for name in flat)


def test_search_is_exported_by_number(searched: Path) -> None:
    ledger = Ledger(searched)
    found = list(load_runs(ledger, choose_sweep(ledger, SEARCH_ID)))
    numbers = [run.tags["number"] for run in found if "number" in run.tags]
    assert numbers == [str(number) for number in range(NUM_SEARCHED)]
    assert found[DIVERGED].name == f"exbert #{DIVERGED}"


def test_without_a_sweep_the_newest_is_chosen(searched: Path, storage: Path) -> None:
    assert choose_sweep(Ledger(searched)).sweep_id == NARROWING_ID
    assert choose_sweep(Ledger(storage)).described == f"grid {SWEEP_ID} ({NUM_TRIALS} trials)"
    with pytest.raises(QueryError, match="no search in this ledger: run one first"):
        choose_sweep(Ledger(storage), kinds=("search",))


def test_every_target_knows_every_state() -> None:
    assert set(MLFLOW_STATES) == ALL_STATES
    assert set(TENSORBOARD_STATES) == ALL_STATES - {"planned"}
    assert set(EXIT_CODES) == ALL_STATES - {"planned", "running"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "neptune", "x"], "--to must be one of csv, mlflow, optuna, tensorboard, wandb, got 'neptune'"),
        (
            ["--to", "csv", "x", "--sweep", "grid-7"],
            "no grid or search 'grid-7' in the ledger, the nearest is 'grid-1'; it has grid-1",
        ),
        (["--to", "optuna", "sqlite:///x"], "no search in this ledger: run one first"),
        (["--to", "csv", "/dev/null/x"], "cannot write to '/dev/null/x'"),
        (["--to", "tensorboard", "/dev/null/x"], "cannot write runs to '/dev/null/x'"),
        (["--to", "wandb", "/dev/null/x"], "cannot write runs to '/dev/null/x"),
        (["--to", "wandb", "s3://bucket/x"], "offline runs go to a folder of this machine, got 's3://bucket/x'"),
        (["--to", "mlflow", "nowhere://x"], "cannot write runs to 'nowhere://x'"),
        (
            ["--to", "mlflow", "./runs"],
            "give an MLflow tracking URI such as sqlite:///./runs.db, got the folder ./runs",
        ),
        (["--to", "mlflow", "sqlite:////no/such/m.db"], "there is no folder /no/such for sqlite:////no/such/m.db"),
    ],
)
def test_export_that_cannot_be_is_one_line(storage: Path, arguments: list[str], message: str) -> None:
    result = _export(storage, *arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith(f"error: {message}")


@pytest.mark.parametrize(("to", "package"), [("mlflow", "mlflow-skinny"), ("tensorboard", "tensorboard"), ("wandb", "wandb")])
def test_missing_package_is_named(
    storage: Path, tmp_path: Path, to: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, to, None)
    result = _export(storage, "--to", to, f"sqlite:///{tmp_path}/out.db" if to == "mlflow" else str(tmp_path / "out"))
    assert result.exit_code == 2
    assert result.stderr == f"error: this needs {package}, which is not installed here: pip install 'expert-sweeps[export]'\n"


def test_help_names_every_target() -> None:
    shown = CliRunner().invoke(app, ["export", "--help"]).stdout
    assert all(name in shown for name in TARGETS)


def test_csv_read_back_with_pandas_has_a_row_for_each_trial(storage: Path, runs: dict[str, Run], tmp_path: Path) -> None:
    result = _export(storage, "--to", "csv", str(tmp_path))
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"grid grid-1 (6 trials): 6 written; look at it with: head {tmp_path}/grid-1/trials.csv\n"
    trials = pd.read_csv(tmp_path / SWEEP_ID / "trials.csv").set_index("trial_key")
    assert list(trials.index) == list(runs)
    for key, run in runs.items():
        last = {name: value for point in run.points for name, value in point.metrics.items()}
        for name, value in last.items():
            assert trials.loc[key, f"last.{name}"] == pytest.approx(value, nan_ok=True), name
        assert trials.loc[key, "status"] == run.status
        assert trials.loc[key, "share"] == run.config["share"]
    assert trials.loc[FAILED, "error"] == "Traceback …\nRuntimeError: out of <memory>"
    assert pd.to_datetime(trials.loc[COMPLETED, "started_at"]) == runs[COMPLETED].started_at


@pytest.mark.parametrize("table", ["plans", "attempts", "events", "runs", "reports", "evaluations", "predictions"])
def test_csv_has_the_rows_of_every_table(storage: Path, tmp_path: Path, table: str) -> None:
    export_sweep(Ledger(storage), "csv", str(tmp_path))
    expected = Ledger(storage).table(table)
    found = pacsv.read_csv(tmp_path / SWEEP_ID / f"{table}.csv", parse_options=pacsv.ParseOptions(newlines_in_values=True))
    assert (found.num_rows, found.column_names) == (expected.num_rows, expected.column_names)
    keys = [name for name in ("trial_key", "step", "example_id") if name in found.column_names]
    for name in keys:
        assert sorted(found[name].to_pylist()) == sorted(expected[name].to_pylist())


def test_csv_holds_lists_and_maps_as_json(storage: Path, tmp_path: Path) -> None:
    export_sweep(Ledger(storage), "csv", str(tmp_path))
    reports = pd.read_csv(tmp_path / SWEEP_ID / "reports.csv").query(f"trial_key == '{COMPLETED}'")
    assert json.loads(reports["extra"].iloc[0]) == {"grad_norm": 1.5}
    predictions = pd.read_csv(tmp_path / SWEEP_ID / "predictions.csv").query("example_id == 'squad-3'")
    assert json.loads(predictions["gold"].iloc[0]) == ["answer 3", "the answer 3"]


def test_csv_again_replaces_every_file_and_leaves_no_other(storage: Path, searched: Path, tmp_path: Path) -> None:
    def files() -> dict[str, bytes]:
        return {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    export_sweep(Ledger(storage), "csv", str(tmp_path))
    first = files()
    export_sweep(Ledger(storage), "csv", str(tmp_path))
    assert files() == first
    assert set(first) == {
        f"grid-1/{name}.csv"
        for name in ("trials", "plans", "attempts", "events", "runs", "reports", "evaluations", "predictions")
    }
    export_sweep(Ledger(searched), "csv", str(tmp_path), SEARCH_ID)
    assert {name: content for name, content in files().items() if name.startswith("grid-1/")} == first
    decisions = pd.read_csv(tmp_path / SEARCH_ID / "decisions.csv")
    assert set(decisions["sweep_id"]) == {SEARCH_ID}
