"""TensorBoard event files, one run for each trial, through TensorBoard's own reader."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ledger_contender import Answers, Append, Rows, TrialRecord, trial_records
from ledger_data import STEPS_PER_EPOCH, Asked, Tables
from ledger_means import mean_by

__all__ = ["TensorBoard"]

_METRICS = ("epoch", "train_qa_loss", "val_qa_loss", "train_aux_loss", "balance_loss", "router_z_loss", "learning_rate")


class TensorBoard:
    """Scalars, which are single precision, and hyperparameters; how a run stands is nothing that an event file says."""

    name = "TensorBoard"
    packages = (("tensorboard", "tensorboard"),)
    imports = ("tensorboard.backend.event_processing.event_multiplexer", "tensorboard.plugins.hparams.metadata")
    append_imports = ("tensorboard.summary.writer.event_file_writer",)

    def load(self, place: Path, sweeps: Iterable[Tables]) -> None:
        """One event a report with all its scalars; writers for single scalars make files several times as large."""
        for tables in sweeps:
            for trial in trial_records(tables):
                _write_run(place / trial.key, trial)

    def open(self, place: Path, asked: Asked) -> Answers:
        asking = _Asking(place, asked)
        names = ("best", "curve", "mean curve", "scores", "experts")
        return {name: getattr(asking, name.replace(" ", "_")) for name in names}

    def appender(self, place: Path, writer: int) -> Append:
        """As tensorboardX in Ray does: an event, then a flush."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        events = EventFileWriter(str(place / f"append-{writer}"))

        def append(step: int) -> None:
            events.add_event(_event(dict.fromkeys(_METRICS, 1.0 / (1 + step)), time.time(), step))
            events.flush()

        return append


class _Asking:
    """One method a question. All runs stay open, as TensorBoard has them, and are looked at for new events each time."""

    def __init__(self, place: Path, asked: Asked) -> None:
        self._place = place
        self._asked = asked
        self._all: Any = None
        self._one: Any = None

    def best(self) -> Rows:
        found = [
            (name, params["architecture"], int(params["share"]), min(each.value for each in runs.Scalars(name, "val_qa_loss")))
            for name, params, runs in self._runs()
        ]
        return sorted(found, key=lambda row: row[-1])[:10]

    def curve(self) -> Rows:
        return [(each.step, each.value) for each in self._run().Scalars("val_qa_loss")]

    def mean_curve(self) -> Rows:
        values = defaultdict(list)
        for name, params, runs in self._runs():
            for each in runs.Scalars(name, "val_qa_loss"):
                values[params["architecture"], float(-(-each.step // STEPS_PER_EPOCH))].append(each.value)
        return mean_by(values)

    def scores(self) -> Rows:
        values = defaultdict(list)
        for name, params, runs in self._runs():
            for tag in runs.Runs()[name]["scalars"]:
                if tag.startswith("test_em/"):
                    group = (params["architecture"], int(params["share"]), params["order"], tag.split("/")[1])
                    values[group].append(runs.Scalars(name, tag)[-1].value)
        return mean_by(values)

    def experts(self) -> Rows:
        run = self._run()
        tags = [tag for tag in run.Tags()["scalars"] if tag.startswith("load/")]
        return sorted((tag.split("/")[1], int(tag.split("/")[2]), run.Scalars(tag)[-1].value) for tag in tags)

    def _run(self) -> Any:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        if self._one is None:
            self._one = EventAccumulator(str(self._place / self._asked.trial), size_guidance=_KEEP_ALL)
        return self._one.Reload()

    def _runs(self) -> Iterator[tuple[str, dict[str, Any], Any]]:
        """Name, hyperparameters and where its scalars are, for each run."""
        from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
        from tensorboard.plugins.hparams import metadata

        if self._all is None:
            self._all = EventMultiplexer(size_guidance=_KEEP_ALL).AddRunsFromDirectory(str(self._place))
        self._all.Reload()
        contents = self._all.PluginRunToTagToContent(metadata.PLUGIN_NAME)
        for name, by_tag in contents.items():
            told = metadata.parse_session_start_info_plugin_data(by_tag[metadata.SESSION_START_INFO_TAG]).hparams
            params = {key: value.string_value or value.number_value for key, value in told.items()}
            yield name, params, self._all


_KEEP_ALL = {"scalars": 0}
"""Without it the reader keeps a random sample."""


def _write_run(folder: Path, trial: TrialRecord) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder.mkdir()
    began = trial.started.timestamp()
    params = {name: getattr(trial, name) for name in ("architecture", "share", "order", "seed", "learning_rate")}
    columns = {name: trial.reports[name].to_pylist() for name in (*_METRICS, "step", "wall_seconds")}
    last = {f"test_em/{domain}": em for domain, em in trial.scores.items()}
    last |= {f"load/{domain}/{expert}": share for (domain, expert), share in trial.load.items()}
    with (folder / f"events.out.tfevents.{int(began)}.worker").open("wb") as file:
        events = RecordWriter(file)
        events.write(Event(wall_time=began, file_version="brain.Event:2").SerializeToString())
        events.write(Event(wall_time=began, summary=hparams_pb(params)).SerializeToString())
        for row, step in enumerate(columns["step"]):
            values = {name: columns[name][row] for name in _METRICS if columns[name][row] is not None}
            if row == len(columns["step"]) - 1:
                values |= last
            events.write(_event(values, began + columns["wall_seconds"][row], step).SerializeToString())
        events.flush()


def _event(values: dict[str, float], at: float, step: int) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
    return Event(wall_time=at, step=step, summary=Summary(value=scalars))
