"""A sweep as TensorBoard runs: TARGET/SWEEP/TRIAL, with scalars and what the HParams dashboard shows.

One event file a run, of a name and with a content that follow from the ledger alone: an export again replaces it, whole.
Scalars are single precision, as TensorBoard's own are. Written with the protos and the record writer of the `tensorboard`
package; neither TensorFlow nor torch is needed.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from results.errors import LedgerError
from results.exports.packages import need
from results.exports.runs import Exported, Run, Sweep, load_runs
from results.ledger import Ledger
from results.storage import Storage, open_storage

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

__all__ = ["STATES", "export_tensorboard"]

STATES = {
    "running": "STATUS_RUNNING",
    "completed": "STATUS_SUCCESS",
    "stopped": "STATUS_SUCCESS",
    "failed": "STATUS_FAILURE",
    "lost": "STATUS_FAILURE",
}
"""To TensorBoard a trial that was stopped in time is none that failed; the hyperparameter `status` tells them apart."""

_SHOWN_TAGS = ("status", "seed", "number")
"""Tags that are worth a column beside the hyperparameters."""


def export_tensorboard(ledger: Ledger, sweep: Sweep, target: str) -> Exported:
    """Writes a run folder for each trial that started, below `target`, a folder or a URI.

    Raises:
        LedgerError: TensorBoard is not installed, or the folder cannot be written.
    """
    need("tensorboard", "tensorboard")
    place = open_storage(target)
    num_written = num_unchanged = num_left_out = 0
    for run in load_runs(ledger, sweep):
        if run.started_at is None:
            num_left_out += 1
        elif _replace(place, f"{sweep.sweep_id}/{run.trial_key}/events.out.tfevents.ledger", _encode(run)):
            num_written += 1
        else:
            num_unchanged += 1
    return Exported(sweep=sweep, num_written=num_written, num_unchanged=num_unchanged, num_left_out=num_left_out)


def _replace(place: Storage, relative: str, content: bytes) -> bool:
    """True where the file was not there like that already."""
    path = place.path(relative)
    try:
        if place.filesystem.get_file_info(path).is_file and place.read(path).to_pybytes() == content:
            return False
        place.write(path, content)
    except OSError as error:
        raise LedgerError(f"cannot write runs to {place.shown!r}: {error}; give a folder such as ./tensorboard") from error
    return True


def _encode(run: Run) -> bytes:
    from tensorboard.summary.writer.record_writer import RecordWriter

    sink = io.BytesIO()
    writer = RecordWriter(sink)
    for event in _events(run):
        writer.write(event.SerializeToString(deterministic=True))
    return sink.getvalue()


def _events(run: Run) -> Iterator[Event]:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    began = (run.started_at or run.planned_at).timestamp()
    yield Event(wall_time=began, file_version="brain.Event:2")
    yield Event(wall_time=began, summary=_hyperparameters(run, began))
    if run.error:
        yield Event(wall_time=began, summary=_text("error", run.error))
    for point in run.points:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in point.metrics.items()]
        yield Event(wall_time=point.at.timestamp(), step=point.step, summary=Summary(value=values))
    if run.finished_at is not None:
        yield Event(wall_time=run.finished_at.timestamp(), summary=_end(run, run.finished_at.timestamp()))


def _hyperparameters(run: Run, began: float) -> Any:
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

    session = SessionStartInfo(group_name=run.trial_key, start_time_secs=began)
    shown = {name: run.tags[name] for name in _SHOWN_TAGS if name in run.tags}
    for name, value in {**run.parameters, **shown}.items():
        if isinstance(value, bool):
            session.hparams[name].bool_value = value
        elif isinstance(value, (int, float)):
            session.hparams[name].number_value = value
        elif value is not None:
            session.hparams[name].string_value = str(value)
    return _plugin_summary(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=session))


def _end(run: Run, ended: float) -> Any:
    from tensorboard.plugins.hparams import api_pb2, metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

    end = SessionEndInfo(status=api_pb2.Status.Value(STATES[run.status]), end_time_secs=ended)
    return _plugin_summary(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end))


def _plugin_summary(tag: str, content: Any) -> Any:
    """As tensorboard/plugins/hparams/summary.py builds it, 2.21, which itself needs TensorFlow."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata

    described = metadata.create_summary_metadata(content)
    # Its own bytes have the settings in an order that changes from process to process.
    content.version = metadata.PLUGIN_DATA_VERSION
    described.plugin_data.content = content.SerializeToString(deterministic=True)
    return Summary(value=[Summary.Value(tag=tag, metadata=described, tensor=metadata.NULL_TENSOR)])


def _text(tag: str, text: str) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.plugins.text import metadata

    # Four spaces make it a code block: the text dashboard shows Markdown.
    block = "\n".join(f"    {line}" for line in text.splitlines())
    described = metadata.create_summary_metadata(display_name=tag, description="")
    value = Summary.Value(tag=tag, metadata=described, tensor=TensorProto(dtype=DT_STRING, string_val=[block.encode()]))
    return Summary(value=[value])
