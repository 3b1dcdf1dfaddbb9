"""A sweep as an MLflow experiment, through MLflow's client: any tracking URI that it takes.

A run that is there already and has not changed stays; one that has changed is written anew and the old one deleted (MLflow
keeps deleted runs until `mlflow gc`). The tag `ledger_digest`, written last, tells which runs are whole.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from results.errors import LedgerError
from results.exports.packages import need
from results.exports.runs import Exported, Run, Sweep, load_runs, unix_ms
from results.ledger import Ledger

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

__all__ = ["STATES", "export_mlflow"]

STATES = {
    "planned": "SCHEDULED",
    "running": "RUNNING",
    "completed": "FINISHED",
    "stopped": "KILLED",
    "failed": "FAILED",
    "lost": "FAILED",
}

_DIGEST = "ledger_digest"
# MLflow's most: 1000 entities in a batch, of them 100 parameters (mlflow/utils/validation.py, 3.17).
_METRICS_AT_ONCE = 890
_PARAMETERS_AT_ONCE = 100
_MOST_TAG_CHARACTERS = 8000

_Item = TypeVar("_Item")


def export_mlflow(ledger: Ledger, sweep: Sweep, target: str) -> Exported:
    """Writes the sweep as the experiment of its id.

    Raises:
        LedgerError: MLflow is not installed, or its store cannot be opened or written.
    """
    _check_target(target)
    # An export reaches no network but the one that the target names.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    need("mlflow", "mlflow-skinny")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    # Otherwise a new SQLite store announces each of its tables' migrations.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    num_written = num_unchanged = 0
    try:
        client = MlflowClient(tracking_uri=target)
        experiment_id = _experiment(client, sweep)
        present = _present(client, experiment_id)
        for run in load_runs(ledger, sweep):
            known = present.get(run.trial_key, [])
            if [digest for _, digest in known] == [run.digest]:
                num_unchanged += 1
                continue
            _write(client, experiment_id, run)
            num_written += 1
            for run_id, _ in known:
                client.delete_run(run_id)
    except (MlflowException, ImportError) as error:
        raise LedgerError(
            f"cannot write runs to {target!r}: {error}; give an MLflow tracking URI such as sqlite:///mlflow.db"
        ) from error
    return Exported(sweep=sweep, num_written=num_written, num_unchanged=num_unchanged)


def _check_target(target: str) -> None:
    """MLflow's file store wants to be asked for (3.17), and its SQLite store would make folders for a path that is mistyped."""
    scheme, _, path = target.partition("://")
    if not path and os.environ.get("MLFLOW_ALLOW_FILE_STORE") != "true":
        raise LedgerError(
            f"give an MLflow tracking URI such as sqlite:///{target}.db, got the folder {target}, into which MLflow "
            "writes only with MLFLOW_ALLOW_FILE_STORE=true"
        )
    folder = Path(path.removeprefix("/")).parent
    if scheme == "sqlite" and not folder.is_dir():
        raise LedgerError(f"there is no folder {folder} for {target}; make it, or name another")


def _experiment(client: MlflowClient, sweep: Sweep) -> str:
    found = client.get_experiment_by_name(sweep.sweep_id)
    if found is not None and found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    if found is not None:
        return str(found.experiment_id)
    return str(client.create_experiment(sweep.sweep_id, tags={"sweep_kind": sweep.kind, "preset": sweep.preset or ""}))


def _present(client: MlflowClient, experiment_id: str) -> dict[str, list[tuple[str, str | None]]]:
    """Trial key to the id and the digest of each run that it has; a half-written run has no digest."""
    present: dict[str, list[tuple[str, str | None]]] = {}
    token = None
    while True:
        page = client.search_runs([experiment_id], page_token=token)
        for run in page:
            known = present.setdefault(run.data.tags.get("trial_key", ""), [])
            known.append((run.info.run_id, run.data.tags.get(_DIGEST)))
        token = page.token
        if not token:
            return present


def _write(client: MlflowClient, experiment_id: str, run: Run) -> None:
    from mlflow.entities import Param, RunTag

    began = unix_ms(run.started_at or run.planned_at)
    tags = {name: value[:_MOST_TAG_CHARACTERS] for name, value in run.tags.items()}
    if run.error:
        tags["error"] = run.error[-_MOST_TAG_CHARACTERS:]  # a traceback ends with what matters
    created = client.create_run(experiment_id, start_time=began, tags=tags, run_name=run.name)
    run_id = created.info.run_id
    if run.finished_at is None:
        client.update_run(run_id, status=STATES[run.status])
    else:
        client.set_terminated(run_id, STATES[run.status], end_time=unix_ms(run.finished_at))
    parameters = [Param(name, str(value)) for name, value in run.parameters.items()]
    metrics = list(chain.from_iterable(_metrics(point.step, unix_ms(point.at), point.metrics) for point in run.points))
    batches: list[tuple[list[Param], list[Metric]]] = list(
        zip_longest(_batches(parameters, _PARAMETERS_AT_ONCE), _batches(metrics, _METRICS_AT_ONCE), fillvalue=[])
    )
    for number, (params, some) in enumerate(batches, start=1):
        whole = [RunTag(_DIGEST, run.digest)] if number == len(batches) else []
        client.log_batch(run_id, metrics=some, params=params, tags=whole)


def _metrics(step: int, at_ms: int, metrics: Mapping[str, float]) -> Iterator[Metric]:
    from mlflow.entities import Metric

    return (Metric(name, value, at_ms, step) for name, value in metrics.items())


def _batches(items: Sequence[_Item], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
