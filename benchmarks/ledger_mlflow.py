"""MLflow with its SQLite store, through `MlflowClient`."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ledger_contender import Answers, Append, Rows, TrialRecord, trial_records
from ledger_data import STEPS_PER_EPOCH, Asked, Tables
from ledger_means import count_by, hour, mean_by, sum_by

__all__ = ["Mlflow"]

_METRICS = ("epoch", "train_qa_loss", "val_qa_loss", "train_aux_loss", "balance_loss", "router_z_loss", "learning_rate")
_BATCH = 1000
"""Metrics that one request may have (mlflow 3.17, `mlflow.utils.validation`)."""
_PAGE = 50_000
"""Runs that one page may have (mlflow 3.17, `mlflow.store.tracking`)."""


class Mlflow:
    """A run for each trial; what a question needs of the last values is a metric or tag of the run."""

    name = "MLflow SQLite"
    packages = (("mlflow", "mlflow-skinny"), ("sqlalchemy", "sqlalchemy"), ("alembic", "alembic"))
    imports = ("mlflow", "mlflow.store.tracking.sqlalchemy_store")
    append_imports = imports

    def load(self, place: Path, sweeps: Iterable[Tables]) -> None:
        """`log_batch`, with as many metrics as it takes at a time."""
        client = _client(place)
        experiment = client.create_experiment("benchmark", artifact_location=str(place / "artifacts"))
        for tables in sweeps:
            for trial in trial_records(tables):
                _load_trial(client, experiment, trial)

    def open(self, place: Path, asked: Asked) -> Answers:
        asking = _Asking(place, asked)
        names = ("status", "best", "curve", "mean curve", "scores", "finished", "GPU-hours", "failures", "experts")
        return {name: getattr(asking, name.replace(" ", "_").replace("-", "_").lower()) for name in names}

    def appender(self, place: Path, writer: int) -> Append:
        from mlflow.entities import Metric

        client = _client(place)
        found = client.get_experiment_by_name("append")
        experiment = found.experiment_id if found else client.create_experiment("append")
        run = client.create_run(experiment, run_name=str(writer)).info.run_id

        def append(step: int) -> None:
            client.log_batch(run, [Metric(name, 1.0 / (1 + step), 1767603600000 + step, step) for name in _METRICS])

        return append


class _Asking:
    """One method a question."""

    def __init__(self, place: Path, asked: Asked) -> None:
        self._client = _client(place)
        self._experiment = self._client.get_experiment_by_name("benchmark").experiment_id
        self._asked = asked

    def status(self) -> Rows:
        return count_by(run.data.tags["status"] for run in self._runs())

    def best(self) -> Rows:
        runs = self._client.search_runs([self._experiment], order_by=["metrics.min_val_qa_loss ASC"], max_results=10)
        return [
            (run.tags["trial_key"], run.params["architecture"], int(run.params["share"]), run.metrics["min_val_qa_loss"])
            for run in (each.data for each in runs)
        ]

    def curve(self) -> Rows:
        history = self._client.get_metric_history(self._run().info.run_id, "val_qa_loss")
        return sorted((each.step, each.value) for each in history)

    def mean_curve(self) -> Rows:
        values = defaultdict(list)
        for run in self._runs():
            for each in self._client.get_metric_history(run.info.run_id, "val_qa_loss"):
                values[run.data.params["architecture"], float(-(-each.step // STEPS_PER_EPOCH))].append(each.value)
        return mean_by(values)

    def scores(self) -> Rows:
        values = defaultdict(list)
        for run in self._runs():
            params = run.data.params
            for name, value in run.data.metrics.items():
                if name.startswith("test_em/"):
                    group = (params["architecture"], int(params["share"]), params["order"], name.split("/")[1])
                    values[group].append(value)
        return mean_by(values)

    def finished(self) -> Rows:
        runs = self._runs("attributes.status = 'FINISHED'")
        return count_by(hour(run.info.end_time / 1000) for run in runs)

    def gpu_hours(self) -> Rows:
        return sum_by((run.data.tags["status"], run.data.metrics["gpu_seconds"] / 3600) for run in self._runs())

    def failures(self) -> Rows:
        return count_by(run.data.tags["error_signature"] for run in self._runs("tags.status = 'failed'"))

    def experts(self) -> Rows:
        loads = {name: value for name, value in self._run().data.metrics.items() if name.startswith("load/")}
        return sorted((name.split("/")[1], int(name.split("/")[2]), value) for name, value in loads.items())

    def _run(self) -> Any:
        return self._client.search_runs([self._experiment], f"tags.trial_key = '{self._asked.trial}'")[0]

    def _runs(self, condition: str = "") -> list[Any]:
        found, token = [], None
        while token is not None or not found:
            page = self._client.search_runs([self._experiment], condition, max_results=_PAGE, page_token=token)
            found += page
            token = page.token
            if not token:
                break
        return found


def _client(place: Path) -> Any:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow import MlflowClient

    place.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=f"sqlite:///{place}/mlflow.db")


def _load_trial(client: Any, experiment: str, trial: TrialRecord) -> None:
    from mlflow.entities import Metric, Param

    tags = {"trial_key": trial.key, "status": trial.status}
    if trial.error_signature:
        tags["error_signature"] = trial.error_signature
    began = int(trial.started.timestamp() * 1000)
    run = client.create_run(experiment, start_time=began, tags=tags, run_name=trial.key).info.run_id
    columns = trial.reports.to_pydict()
    stamps = [began + int(seconds * 1000) for seconds in columns["wall_seconds"]]
    metrics = [
        Metric(name, value, stamp, step)
        for name in _METRICS
        for value, stamp, step in zip(columns[name], stamps, columns["step"], strict=True)
        if value is not None
    ]
    last = {"min_val_qa_loss": min(columns["val_qa_loss"]), "gpu_seconds": trial.gpu_seconds}
    last |= {f"test_em/{domain}": em for domain, em in trial.scores.items()}
    last |= {f"load/{domain}/{expert}": share for (domain, expert), share in trial.load.items()}
    metrics += [Metric(name, value, stamps[-1], columns["step"][-1]) for name, value in last.items()]
    params = [Param(name, str(getattr(trial, name))) for name in ("architecture", "share", "order", "seed", "learning_rate")]
    client.log_batch(run, params=params)
    for begin in range(0, len(metrics), _BATCH):
        client.log_batch(run, metrics[begin : begin + _BATCH])
    status = {"completed": "FINISHED", "stopped": "KILLED", "failed": "FAILED", "lost": "FAILED"}.get(trial.status)
    if status is not None and trial.finished is not None:
        client.set_terminated(run, status, int(trial.finished.timestamp() * 1000))
