"""A sweep as offline runs of Weights & Biases, which `wandb sync` uploads: no account, network or question is needed here.

TARGET/wandb/offline-run-TIME-KEY/run-KEY.wandb, the records of W&B's own protos. The SDK itself cannot be used: to it every
run begins now. Name and content follow from the ledger alone, so that an export again replaces the file; where it
changed, the mark `.synced` goes, and `wandb sync` takes the run again under the same id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.errors import LedgerError
from results.exports.packages import need
from results.exports.runs import Exported, Run, Sweep, load_runs
from results.exports.wandb_log import encode_log
from results.ledger import Ledger
from results.storage import open_storage

if TYPE_CHECKING:
    from wandb.proto.wandb_internal_pb2 import Record

__all__ = ["EXIT_CODES", "export_wandb"]

EXIT_CODES = {"completed": 0, "stopped": 0, "failed": 1, "lost": 1}
"""W&B shows 0 as finished and 1 as failed; a run without a code still runs, or crashed."""

_OLDEST_READER = "0.70.0"
"""What wandb 0.31 writes into its own files."""
_MOST_TAG_CHARACTERS = 64


def export_wandb(ledger: Ledger, sweep: Sweep, target: str) -> Exported:
    """Writes a run of the project SWEEP for each trial that started, below the folder `target`.

    Raises:
        LedgerError: wandb is not installed, or the folder cannot be written.
    """
    need("wandb", "wandb")
    if "://" in target:
        raise LedgerError(f"offline runs go to a folder of this machine, got {target!r}; give one such as ./wandb-runs")
    num_written = num_unchanged = num_left_out = 0
    for run in load_runs(ledger, sweep):
        if run.started_at is None:
            num_left_out += 1
        elif _replace(_path(Path(target).expanduser(), run), encode_log(_encode(sweep, run))):
            num_written += 1
        else:
            num_unchanged += 1
    return Exported(sweep=sweep, num_written=num_written, num_unchanged=num_unchanged, num_left_out=num_left_out)


def _path(folder: Path, run: Run) -> Path:
    began = (run.started_at or run.planned_at).astimezone(UTC)
    return folder / "wandb" / f"offline-run-{began:%Y%m%d_%H%M%S}-{run.trial_key}" / f"run-{run.trial_key}.wandb"


def _replace(path: Path, content: bytes) -> bool:
    """True where the file was not there like that already."""
    try:
        if path.exists() and path.read_bytes() == content:
            return False
        place = open_storage(path)
        place.write(place.root, content)
        path.with_name(f"{path.name}.synced").unlink(missing_ok=True)
    except OSError as error:
        raise LedgerError(f"cannot write runs to {str(path.parent)!r}: {error}; give a folder such as ./wandb-runs") from error
    return True


def _encode(sweep: Sweep, run: Run) -> Iterator[bytes]:
    for number, record in enumerate(_records(sweep, run), start=1):
        record.num = number
        record._info.stream_id = run.trial_key
        yield record.SerializeToString(deterministic=True)


def _records(sweep: Sweep, run: Run) -> Iterator[Record]:
    import wandb
    from wandb.proto.wandb_internal_pb2 import HeaderRecord, Record, RunExitRecord, VersionInfo

    began = run.started_at or run.planned_at
    version = VersionInfo(producer=wandb.__version__, min_consumer=_OLDEST_READER)
    yield Record(header=HeaderRecord(version_info=version))
    yield _run_record(sweep, run, began)
    summary: dict[str, Any] = {}
    for point in run.points:
        runtime = (point.at - began).total_seconds()
        row = {**point.metrics, "_step": point.step, "_timestamp": point.at.timestamp(), "_runtime": runtime}
        summary |= row
        yield _history(point.step, row)
    yield _summary(summary)
    if run.status in EXIT_CODES:
        runtime = ((run.finished_at or began) - began).total_seconds()
        yield Record(exit=RunExitRecord(exit_code=EXIT_CODES[run.status], runtime=round(runtime)))


def _run_record(sweep: Sweep, run: Run, began: datetime) -> Record:
    from wandb.proto.wandb_internal_pb2 import Record, RunRecord

    record = RunRecord(
        run_id=run.trial_key,
        project=sweep.sweep_id,
        run_group=sweep.sweep_id,
        job_type=sweep.kind,
        display_name=run.name,
        notes=run.error or "",
        tags=[tag[:_MOST_TAG_CHARACTERS] for tag in (run.status, run.tags.get("trainable", "?"))],
        host=run.tags.get("host", ""),
    )
    record.start_time.FromDatetime(began)
    record.git.commit = run.tags.get("git_commit", "")
    # W&B shows nested settings by dotted names, as the other tools show the flattened ones.
    config = {"trainable": run.tags.get("trainable", "?"), **run.config, "trial": dict(run.tags)}
    for name, value in config.items():
        record.config.update.add(key=name, value_json=json.dumps(value))
    return Record(run=record)


def _history(step: int, row: Mapping[str, Any]) -> Record:
    from wandb.proto.wandb_internal_pb2 import HistoryRecord, HistoryStep, Record

    history = HistoryRecord(step=HistoryStep(num=step))
    for name, value in row.items():
        history.item.add(nested_key=[name], value_json=json.dumps(value))
    return Record(history=history)


def _summary(last: Mapping[str, Any]) -> Record:
    from wandb.proto.wandb_internal_pb2 import Record, SummaryRecord

    summary = SummaryRecord()
    for name, value in last.items():
        summary.update.add(nested_key=[name], value_json=json.dumps(value))
    return Record(summary=summary)
