"""The ledger as a contender: parts in bulk, compacted; SQL; a worker's own recorder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ledger_contender import Answers, Append, Rows
from ledger_data import Asked, Tables
from ledger_questions import QUESTIONS

from results.ledger import Ledger
from results.parts import attempt_part
from results.storage import open_storage

__all__ = ["Ours", "write_small_parts"]


class Ours:
    """Everything in Parquet parts under `ledger/`."""

    name = "ledger"
    packages: tuple[tuple[str, str], ...] = ()
    imports = ("results.ledger", "pyarrow.dataset")
    append_imports = ("orchestrator.record", "trainables.contract")

    def load(self, place: Path, sweeps: Iterable[Tables]) -> None:
        """One part a sweep and table; compaction, which makes large sorted files of them, is timed on its own."""
        for number, tables in enumerate(sweeps):
            for table, rows in tables.items():
                _write(place, table, f"bulk-{number:06d}", rows)

    def open(self, place: Path, asked: Asked) -> Answers:
        ledger = Ledger(place)

        def answer(sql: str) -> Callable[[], Rows]:
            given = {name: value for name, value in vars(asked).items() if f"${name}" in sql}
            return lambda: [tuple(row.values()) for row in ledger.sql(sql, given).to_pylist()]

        return {question.name: answer(question.sql) for question in QUESTIONS}

    def appender(self, place: Path, writer: int) -> Append:
        from orchestrator.record import AttemptRecorder, LedgerWriter
        from trainables.contract import Report

        (place / "sweeps").mkdir(parents=True, exist_ok=True)  # a storage without it counts as gone
        key = f"{writer:016x}"
        row = {"trial_key": key, "attempt": 1, "sweep_id": "append", "status": "running", "started_at": datetime.now(UTC)}
        recorder = AttemptRecorder(LedgerWriter(place, 0.0, print), row)

        def append(step: int) -> None:
            names = ("train_qa_loss", "val_qa_loss", "train_aux_loss", "balance_loss", "router_z_loss", "learning_rate")
            metrics = dict.fromkeys(names, 1.0 / (1 + step))
            sizes = dict.fromkeys(("params_total", "params_active", "params_trainable"), 66_364_418)
            recorder.add(Report(step=step, epoch=step / 240, samples_seen=16 * step, metrics=metrics, **sizes), step / 2)

        return append


def write_small_parts(place: Path, sweeps: Iterable[Tables], num_parts: int) -> int:
    """Parts as workers leave them, one an attempt and table, until there are `num_parts`; returns the number of reports."""
    written, num_reports = 0, 0
    for number, tables in enumerate(sweeps):
        for table, rows in tables.items():
            pieces = [rows] if table in ("plans", "runs", "events") else _by_attempt(rows)
            for piece in pieces:
                name = f"grid-{number:04d}" if piece is rows else attempt_part(*_ids(piece))
                _write(place, table, name, piece)
            written += len(pieces)
        num_reports += tables["reports"].num_rows
        if written >= num_parts:
            break
    return num_reports


def _by_attempt(rows: pa.Table) -> list[pa.Table]:
    """Rows of one attempt lie together."""
    key, attempt = rows["trial_key"].to_numpy(), rows["attempt"].to_numpy()
    starts = np.flatnonzero(np.append(True, (key[1:] != key[:-1]) | (attempt[1:] != attempt[:-1])))
    ends = np.append(starts[1:], rows.num_rows)
    return [rows.slice(start, end - start) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def _ids(rows: pa.Table) -> tuple[str, int]:
    return rows["trial_key"][0].as_py(), rows["attempt"][0].as_py()


def _write(place: Path, table: str, name: str, rows: pa.Table) -> None:
    """As `results.parts.write_part` does, but from Arrow and without waiting for the disk."""
    path = Path(open_storage(place).part_path(table, name))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path, compression="zstd", use_dictionary=True, write_page_checksum=True)
