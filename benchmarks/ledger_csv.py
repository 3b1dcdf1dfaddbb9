"""CSV as Ray Tune writes it: in a folder for each trial `progress.csv` and `params.json`; asked through DuckDB's readers."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ledger_contender import Answers, Append, Rows, TrialRecord, current_reports, trial_records
from ledger_data import DOMAINS, EXPERTS, STEPS_PER_EPOCH, Asked, Tables
from ledger_means import hour
from pyarrow import csv as arrow_csv

__all__ = ["RayCsv"]

_METRICS = (
    "step",
    "epoch",
    "train_qa_loss",
    "train_aux_loss",
    "balance_loss",
    "router_z_loss",
    "val_qa_loss",
    "learning_rate",
)
_SCORES = tuple(f"test_em/{domain}" for domain in DOMAINS)
_LOADS = tuple(f"load/{domain}/{expert}" for domain in DOMAINS for expert in range(EXPERTS))
_RAY = {
    "timestamp": 1767603600,
    "checkpoint_dir_name": "",
    "done": "False",
    "training_iteration": 1,
    "trial_id": "b88cbdf9",
    "date": "2026-01-05_09-00-00",
    "time_this_iter_s": 4.1251928806304932,
    "time_total_s": 4.1251928806304932,
    "pid": 2706,
    "hostname": "worker-1",
    "node_ip": "192.0.2.2",
    "time_since_restore": 4.1251928806304932,
    "iterations_since_restore": 1,
}
"""What Ray 2.60 adds to each result, in its order, with values as long as real ones."""

_PARAMS = ("key", "architecture", "share", "order", "seed", "learning_rate")
_COLUMNS = (*_METRICS, *_SCORES, *_LOADS, *_RAY)
_TYPES = {
    **dict.fromkeys(_COLUMNS, "DOUBLE"),
    **dict.fromkeys(("checkpoint_dir_name", "trial_id", "date", "hostname", "node_ip"), "VARCHAR"),
    **dict.fromkeys(("step", "timestamp", "training_iteration", "pid", "iterations_since_restore"), "BIGINT"),
    "done": "BOOLEAN",
}


class RayCsv:
    """Ray's columns are those of a trial's first result, so that scores and loads are there from the start, mostly empty."""

    name = "Ray CSV"
    packages = (("duckdb", "duckdb"),)
    imports = ("duckdb",)
    append_imports = ()

    def load(self, place: Path, sweeps: Iterable[Tables]) -> None:
        """Through Arrow's CSV writer, since Ray's own row-wise one takes several times as long for the same text."""
        header = (",".join(_COLUMNS) + "\n").encode()
        options = arrow_csv.WriteOptions(include_header=False)
        for tables in sweeps:
            trials = list(trial_records(tables))
            rows, begin = _progress(tables, trials), 0
            for trial in trials:
                folder = place / f"train_{trial.key}"
                folder.mkdir()
                params = {name: getattr(trial, name) for name in _PARAMS}
                (folder / "params.json").write_text(json.dumps(params))
                with (folder / "progress.csv").open("wb") as file:
                    file.write(header)
                    arrow_csv.write_csv(rows.slice(begin, trial.reports.num_rows), file, options)
                begin += trial.reports.num_rows

    def open(self, place: Path, asked: Asked) -> Answers:
        import duckdb

        connection = duckdb.connect()
        types = ", ".join(f"'{name}': '{kind}'" for name, kind in _TYPES.items())
        reader = f"header = true, auto_detect = false, columns = {{{types}}}, filename = true"
        every, one = (f"read_csv('{place}/train_{which}/progress.csv', {reader})" for which in ("*", asked.trial))
        params = f"read_json('{place}/train_*/params.json', filename = true)"
        joined = f"{every} AS r JOIN {params} AS p ON replace(r.filename, 'progress.csv', 'params.json') = p.filename"
        loads = ", ".join(
            f"{{'domain': '{domain}', 'expert': {expert}, 'share': \"load/{domain}/{expert}\"}}"
            for domain in DOMAINS
            for expert in range(EXPERTS)
        )

        def answer(sql: str) -> Callable[[], Rows]:
            return lambda: connection.sql(sql).fetchall()

        score_of = " UNION ALL ".join(
            f'SELECT architecture, share, "order", \'{domain}\' AS domain, "test_em/{domain}" AS em FROM done'
            for domain in DOMAINS
        )
        return {
            "best": answer(
                f"""SELECT key, architecture, share, min(val_qa_loss) AS loss FROM {joined}
                GROUP BY ALL ORDER BY loss LIMIT 10"""
            ),
            "curve": answer(f"SELECT step, val_qa_loss FROM {one} ORDER BY step"),
            "mean curve": answer(
                f"""SELECT architecture, ceil(step / {STEPS_PER_EPOCH}) AS epoch, avg(val_qa_loss) FROM {joined}
                GROUP BY ALL ORDER BY ALL"""
            ),
            "scores": answer(
                f"""WITH done AS (SELECT * FROM {joined} WHERE done)
                SELECT architecture, share, "order", domain, avg(em) FROM ({score_of}) GROUP BY ALL ORDER BY ALL"""
            ),
            "finished": lambda: [
                (hour(began), trials)
                for began, trials in connection.sql(
                    f"SELECT timestamp // 3600 * 3600 AS hour, count(*) FROM {every} WHERE done GROUP BY ALL ORDER BY ALL"
                ).fetchall()
            ],
            "experts": answer(
                f"""WITH newest AS (SELECT * FROM {one} WHERE "load/squad/0" IS NOT NULL ORDER BY step DESC LIMIT 1)
                SELECT unnest([{loads}], recursive := true) FROM newest ORDER BY ALL"""
            ),
        }

    def appender(self, place: Path, writer: int) -> Append:
        """As `ray.tune.logger.csv.CSVLoggerCallback` does it (2.60): a row, then a flush."""
        folder = place / f"append_{writer}"
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "progress.csv").open("a", encoding="utf-8")
        rows = csv.DictWriter(file, _COLUMNS)
        rows.writeheader()

        def append(step: int) -> None:
            rows.writerow({**_RAY, **dict.fromkeys(_METRICS, 1.0 / (1 + step)), "step": step})
            file.flush()

        return append


def _progress(tables: Tables, trials: list[TrialRecord]) -> pa.Table:
    """The rows of all the sweep's trials, one trial after the other."""
    reports = current_reports(tables)
    size = reports.num_rows
    lengths = np.array([trial.reports.num_rows for trial in trials])
    last = np.cumsum(lengths) - 1
    columns: dict[str, Any] = {name: reports[name] for name in _METRICS}
    for name in _SCORES:
        columns[name] = _at(last, [trial.scores.get(name.split("/")[1]) for trial in trials], size)
    evaluated = last - lengths % (STEPS_PER_EPOCH // 10)  # the last report at the end of an epoch
    for name in _LOADS:
        _, domain, expert = name.split("/")
        columns[name] = _at(evaluated, [trial.load.get((domain, int(expert))) for trial in trials], size)
    began = np.repeat([trial.started.timestamp() for trial in trials], lengths)
    stamp = (began + reports["wall_seconds"].to_numpy()).astype(int)
    is_done = np.zeros(size, bool)
    for row, trial in zip(last, trials, strict=True):
        if trial.status == "completed" and trial.finished is not None:
            stamp[row], is_done[row] = int(trial.finished.timestamp()), True
    iteration = np.arange(size) - np.repeat(last - lengths, lengths)
    varied = {
        "timestamp": stamp,
        "done": np.where(is_done, "True", "False"),
        "training_iteration": iteration,
        "iterations_since_restore": iteration,
        "date": pc.strftime(pa.array(stamp, pa.timestamp("s")), format="%Y-%m-%d_%H-%M-%S"),
        "trial_id": np.repeat([trial.key[:8] for trial in trials], lengths),
        "time_total_s": reports["wall_seconds"],
        "time_since_restore": reports["wall_seconds"],
    }
    for name, value in _RAY.items():
        columns[name] = varied[name] if name in varied else pa.repeat(pa.scalar(value), size)
    return pa.table(columns)


def _at(rows: np.ndarray, values: list[float | None], size: int) -> pa.Array:
    """A column that is empty but in these rows."""
    column, is_empty = np.zeros(size), np.ones(size, bool)
    for row, value in zip(rows, values, strict=True):
        if value is not None:
            column[row], is_empty[row] = value, False
    return pa.array(column, mask=is_empty)
