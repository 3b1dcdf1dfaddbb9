"""A sweep written to MLflow and read back with MLflow's own client."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
from export_ledger import COMPLETED, FAILED, NUM_TRIALS, PLANNED, RUNNING, STOPPED, export_ledger, write_running
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from synthetic_ledger import SWEEP_ID

from results import Ledger, export_sweep
from results.errors import LedgerError
from results.exports.runs import Run, choose_sweep, load_runs, unix_ms

# MLflow 3.17 with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    return export_ledger(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def expected(storage: Path) -> dict[str, Run]:
    ledger = Ledger(storage)
    return {run.trial_key: run for run in load_runs(ledger, choose_sweep(ledger))}


@pytest.fixture(scope="module")
def uri(storage: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Read only."""
    target = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    done = export_sweep(Ledger(storage), "mlflow", target)
    assert (done.num_written, done.num_unchanged) == (NUM_TRIALS, 0)
    return target


def _runs(uri: str) -> dict[str, MlflowRun]:
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(SWEEP_ID)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    assert len({run.data.tags["trial_key"] for run in found}) == len(found)
    return {run.data.tags["trial_key"]: run for run in found}


def test_every_trial_is_a_run_in_its_state(uri: str, expected: dict[str, Run]) -> None:
    found = _runs(uri)
    assert {key: run.info.status for key, run in found.items() if key in (FAILED, PLANNED, RUNNING, STOPPED)} == {
        FAILED: "FAILED",
        PLANNED: "SCHEDULED",
        RUNNING: "RUNNING",
        STOPPED: "KILLED",
    }
    assert {run.info.status for key, run in found.items() if expected[key].status == "completed"} == {"FINISHED"}
    for key, run in expected.items():
        assert found[key].data.params == {name: str(value) for name, value in run.parameters.items()}
        assert run.tags.items() <= found[key].data.tags.items()
        assert found[key].info.run_name == run.name
        assert found[key].info.start_time == unix_ms(run.started_at or run.planned_at)
        assert found[key].info.end_time == (run.finished_at and unix_ms(run.finished_at))
    assert found[FAILED].data.tags["error"].endswith("out of <memory>")


def test_metrics_have_every_step_and_its_time(uri: str, expected: dict[str, Run]) -> None:
    client, found = MlflowClient(tracking_uri=uri), _runs(uri)
    for key in (COMPLETED, RUNNING, FAILED):
        names = {name for point in expected[key].points for name in point.metrics}
        assert names == set(found[key].data.metrics)
        for name in names:
            history = client.get_metric_history(found[key].info.run_id, name)
            got = {metric.step: (metric.timestamp, metric.value) for metric in history}
            measured = [point for point in expected[key].points if name in point.metrics]
            assert set(got) == {point.step for point in measured}
            for point in measured:
                at_ms, value = got[point.step]
                assert at_ms == unix_ms(point.at)
                if math.isinf(point.metrics[name]):
                    assert value > 1e308  # to MLflow's databases the largest double
                else:
                    assert value == pytest.approx(point.metrics[name], rel=1e-12, nan_ok=True)


def test_again_writes_only_what_changed_and_duplicates_nothing(storage: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(storage, tmp_path / "storage")
    target = f"sqlite:///{tmp_path}/mlflow.db"
    export_sweep(Ledger(copied), "mlflow", target)
    before = {key: run.info.run_id for key, run in _runs(target).items()}
    write_running(copied, steps=(10, 20, 30, 40))
    done = export_sweep(Ledger(copied), "mlflow", target)
    assert (done.num_written, done.num_unchanged) == (1, NUM_TRIALS - 1)
    after = _runs(target)
    assert {key for key, run in after.items() if run.info.run_id != before[key]} == {RUNNING}
    history = MlflowClient(tracking_uri=target).get_metric_history(after[RUNNING].info.run_id, "val_qa_loss")
    assert [metric.step for metric in history] == [10, 20, 30, 40]


@pytest.mark.slow
def test_run_that_was_half_written_is_replaced(storage: Path, tmp_path: Path) -> None:
    target = f"sqlite:///{tmp_path}/mlflow.db"
    export_sweep(Ledger(storage), "mlflow", target)
    MlflowClient(tracking_uri=target).delete_tag(_runs(target)[COMPLETED].info.run_id, "ledger_digest")
    assert export_sweep(Ledger(storage), "mlflow", target).num_written == 1
    assert len(_runs(target)) == NUM_TRIALS


@pytest.mark.slow
def test_experiment_that_was_deleted_comes_back(storage: Path, tmp_path: Path) -> None:
    target = f"sqlite:///{tmp_path}/mlflow.db"
    export_sweep(Ledger(storage), "mlflow", target)
    client = MlflowClient(tracking_uri=target)
    experiment = client.get_experiment_by_name(SWEEP_ID)
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    export_sweep(Ledger(storage), "mlflow", target)
    assert len(_runs(target)) == NUM_TRIALS


def test_folder_is_a_store_where_mlflow_allows_it(storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = str(tmp_path / "mlruns")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    with pytest.raises(LedgerError, match="MLFLOW_ALLOW_FILE_STORE=true"):
        export_sweep(Ledger(storage), "mlflow", target)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    export_sweep(Ledger(storage), "mlflow", target)
    assert len(_runs(target)) == NUM_TRIALS
