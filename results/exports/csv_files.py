"""A sweep as CSV: TARGET/SWEEP/TABLE.csv for each table that has rows of it, and `trials.csv`, flat, with settings and last
metrics as columns.

UTF-8, times in UTC, an empty field for null; lists and maps are JSON. Files are written in batches and replaced whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv as pacsv

from results.errors import LedgerError
from results.exports.runs import Exported, Run, Sweep, load_runs
from results.ledger import Ledger
from results.schema import TABLES
from results.storage import Storage, open_storage

__all__ = ["export_csv"]

_TRIALS_AT_ONCE = 50
"""Predictions of so many trials are held together."""
_OF_SWEEP = ("plans", "runs", "searches", "decisions")
"""Tables that say themselves which sweep a row belongs to; of the others, the rows of its trials are written."""
_FLAT_FIRST = ("trial_key", "name", "status", "planned_at", "started_at", "finished_at")


def export_csv(ledger: Ledger, sweep: Sweep, target: str) -> Exported:
    """Writes the files into the folder of the sweep's id below `target`, a path or a URI.

    Raises:
        LedgerError: the folder cannot be written.
    """
    place = open_storage(target)
    try:
        place.filesystem.create_dir(place.path(sweep.sweep_id), recursive=True)
        _write_flat(place, sweep, list(_flat_rows(load_runs(ledger, sweep))))
        keys = ledger.sql("SELECT DISTINCT trial_key FROM plans WHERE sweep_id = $sweep ORDER BY 1", {"sweep": sweep.sweep_id})
        for table in TABLES:
            _write_table(place, table, sweep, _table_rows(ledger, table, sweep, keys.column(0).to_pylist()))
    except OSError as error:
        raise LedgerError(f"cannot write to {place.shown!r}: {error}; give a folder such as ./csv") from error
    return Exported(sweep=sweep, num_written=sweep.num_trials)


def _table_rows(ledger: Ledger, table: str, sweep: Sweep, keys: Sequence[str]) -> Iterator[pa.Table]:
    if table in _OF_SWEEP:
        yield ledger.sql(f"SELECT * FROM {table} WHERE sweep_id = $sweep ORDER BY ALL", {"sweep": sweep.sweep_id})
        return
    ordered = ", ".join(column.name for column in TABLES[table] if not pa.types.is_nested(column.type))
    query = f"SELECT * FROM {table} WHERE trial_key IN (SELECT unnest($keys)) ORDER BY {ordered}"
    for start in range(0, len(keys), _TRIALS_AT_ONCE):
        yield ledger.sql(query, {"keys": list(keys[start : start + _TRIALS_AT_ONCE])})


def _write_table(place: Storage, table: str, sweep: Sweep, batches: Iterable[pa.Table]) -> None:
    """No file for a table without rows."""
    schema = pa.schema([(c.name, pa.string() if pa.types.is_nested(c.type) else c.type) for c in TABLES[table]])
    filled = (batch for batch in batches if batch.num_rows)
    first = next(filled, None)
    if first is None:
        return
    with _replaced(place, sweep, f"{table}.csv") as file, pacsv.CSVWriter(file, schema) as writer:
        writer.write_table(_plain(first, schema))
        for batch in filled:
            writer.write_table(_plain(batch, schema))


def _plain(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        pa.array([_json(value, column.type) for value in column.to_pylist()], pa.string())
        if pa.types.is_nested(column.type)
        else column.cast(field.type)
        for column, field in zip(rows.columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _json(value: Any, kind: pa.DataType) -> str | None:
    if value is None:
        return None
    return json.dumps(dict(value) if pa.types.is_map(kind) else value, ensure_ascii=False)


def _flat_rows(runs: Iterable[Run]) -> Iterator[dict[str, Any]]:
    """Settings by dotted name, what was reported last under `last.NAME`, and what else is known of the trial."""
    for run in runs:
        last = {name: value for point in run.points for name, value in point.metrics.items()}
        times = {"planned_at": run.planned_at, "started_at": run.started_at, "finished_at": run.finished_at}
        metrics = {f"last.{name}": value for name, value in last.items()}
        yield {**run.tags, "name": run.name, "error": run.error, **times, **run.parameters, **metrics}


def _write_flat(place: Storage, sweep: Sweep, rows: Sequence[dict[str, Any]]) -> None:
    names = list(dict.fromkeys([*_FLAT_FIRST, *(name for row in rows for name in row)]))
    table = pa.table({name: _flat_column([row.get(name) for row in rows]) for name in names})
    with _replaced(place, sweep, "trials.csv") as file:
        pacsv.write_csv(table, file)


def _flat_column(values: list[Any]) -> pa.Array:
    """Trials of different trainables may disagree on a setting's type; then it is text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())


@contextmanager
def _replaced(place: Storage, sweep: Sweep, name: str) -> Iterator[IO[bytes]]:
    """A file to write to that takes its name when all of it is there."""
    temporary = place.path(f"{sweep.sweep_id}/.{name}.tmp")
    with place.filesystem.open_output_stream(temporary) as file:
        yield file
    place.filesystem.move(temporary, place.path(f"{sweep.sweep_id}/{name}"))
