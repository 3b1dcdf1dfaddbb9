"""A sweep as other tools see it: every trial a run with its parameters, metrics by step, tags, times and error."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from results.errors import QueryError
from results.grid import ratio
from results.ledger import Ledger
from results.naming import no_sweep
from results.schema import TABLES

__all__ = ["Exported", "Point", "Run", "Sweep", "choose_sweep", "flatten", "load_runs", "unix_ms"]

_TRIALS_AT_ONCE = 200
"""What bounds the memory: the reports of so many trials are held together."""

_KEYS = {"trial_key", "attempt", "step", "split", "domain", "extra"}
_REPORTED = tuple(column.name for column in TABLES["reports"] if column.name not in _KEYS)
_EVALUATED = tuple(column.name for column in TABLES["evaluations"] if column.name not in _KEYS)
_TOTALS = (
    "train_seconds",
    "startup_seconds",
    "gpu_seconds",
    "cpu_seconds",
    "params_total",
    "params_active",
    "params_trainable",
)
_TAGS = (
    "trial_key", "status", "trainable", "seed", "git_commit", "preset", "stop_reason", "failure_class", "error_type",
    "error_signature", "attempts", "host", "device", "stage", "data_fingerprint", "checkpoint",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A grid or a search of the ledger."""

    sweep_id: str
    kind: str
    """grid | search"""
    preset: str | None
    num_trials: int

    @property
    def described(self) -> str:
        """In a few words."""
        return f"{self.kind} {self.sweep_id} ({self.num_trials} trials)"


@dataclass(frozen=True)
class Point:
    """What was measured at one step; `metrics` are the columns of reports, `extra/NAME` and `SPLIT/DOMAIN/METRIC`."""

    step: int
    at: datetime
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One trial as the ledger has it now."""

    trial_key: str
    name: str
    status: str
    """planned | running | completed | stopped | failed | lost"""
    planned_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    config: Mapping[str, Any]
    tags: Mapping[str, str]
    error: str | None
    """Traceback of the newest failure; None for a completed trial."""
    points: tuple[Point, ...]
    """By step."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The trainable, and the resolved configuration by dotted names."""
        return {"trainable": self.tags.get("trainable", "?"), **flatten(self.config)}

    @property
    def digest(self) -> str:
        """Changes with everything that is exported."""
        points = [(point.step, point.at, point.metrics) for point in self.points]
        times = (self.planned_at, self.started_at, self.finished_at)
        said = json.dumps([self.name, times, self.config, self.tags, self.error, points], sort_keys=True, default=str)
        return hashlib.sha256(said.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export did."""

    sweep: Sweep
    num_written: int
    num_unchanged: int = 0
    """Runs that the target had already, just as they are."""
    num_left_out: int = 0
    """Trials that never started, where the tool knows no such run."""


def choose_sweep(ledger: Ledger, sweep_id: str | None = None, kinds: Sequence[str] = ("grid", "search")) -> Sweep:
    """The sweep of that id; without one, the newest of these kinds. Raises QueryError where there is none."""
    rows = ledger.sql("""
        SELECT sweep_id, any_value(sweep_kind) AS kind, any_value(preset) AS preset, count(DISTINCT trial_key) AS num_trials
        FROM plans GROUP BY sweep_id ORDER BY max(planned_at) DESC, sweep_id DESC
    """).to_pylist()
    known = {row["sweep_id"]: Sweep(**row) for row in rows if row["kind"] in kinds}
    if not known:
        raise QueryError(f"no {' or '.join(kinds)} in this ledger: run one first, or name another with --storage")
    if sweep_id is None:
        return next(iter(known.values()))
    if sweep_id not in known:
        raise no_sweep(" or ".join(kinds), sweep_id, known)
    return known[sweep_id]


def load_runs(ledger: Ledger, sweep: Sweep) -> Iterator[Run]:
    """The sweep's trials: a search's by number, a grid's by its axes. A few hundred are in memory at a time."""
    keys = ledger.sql(_ORDER, {"sweep": sweep.sweep_id}).to_pylist()
    for start in range(0, len(keys), _TRIALS_AT_ONCE):
        chosen = keys[start : start + _TRIALS_AT_ONCE]
        batch = {"keys": [row["trial_key"] for row in chosen]}
        trials = {row["trial_key"]: row for row in ledger.sql(_TRIALS, batch).to_pylist()}
        points = _load_points(ledger, batch)
        for row in chosen:
            yield _run(sweep, {**trials[row["trial_key"]], **row}, points.get(row["trial_key"], {}))


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by dotted name; a list, and a mapping with nothing in it, is its JSON."""
    leaves: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            leaves |= flatten(value, f"{prefix}{name}.")
        else:
            leaves[f"{prefix}{name}"] = json.dumps(value) if isinstance(value, (list, Mapping)) else value
    return leaves


def unix_ms(at: datetime) -> int:
    """Milliseconds since 1970."""
    return round(at.timestamp() * 1000)


_ORDER = """
    WITH planned AS (SELECT trial_key, min(planned_at) AS planned_at FROM plans WHERE sweep_id = $sweep GROUP BY trial_key),
    numbered AS (
        SELECT trial_key, min(number) AS number FROM decisions WHERE sweep_id = $sweep AND number >= 0 GROUP BY trial_key
    )
    SELECT trial_key, planned_at, number
    FROM planned JOIN trials USING (trial_key) LEFT JOIN numbered USING (trial_key)
    ORDER BY number NULLS LAST, trainable, data_order, squad_share, seed, trial_key
"""
_TRIALS = f"""
    SELECT {", ".join(_TAGS)}, data_order, squad_share, config, error, started_at, finished_at, {", ".join(_TOTALS)}
    FROM trials WHERE trial_key IN (SELECT unnest($keys))
"""
_REPORTS = f"""
    SELECT rows.trial_key, step, {", ".join(_REPORTED)}, extra, started_at
    FROM reports AS rows LEFT JOIN attempts USING (trial_key, attempt)
    WHERE rows.trial_key IN (SELECT unnest($keys)) ORDER BY step
"""
_EVALUATIONS = f"""
    SELECT trial_key, step, split, domain, {", ".join(_EVALUATED)}
    FROM evaluations WHERE trial_key IN (SELECT unnest($keys)) ORDER BY step, split, domain
"""

_Points = dict[int, tuple[datetime | None, dict[str, float]]]
"""Step to when it was, where that is known, and what was measured."""


def _load_points(ledger: Ledger, batch: Mapping[str, Any]) -> dict[str, _Points]:
    points: dict[str, _Points] = {}
    for row in ledger.sql(_REPORTS, batch).to_pylist():
        measured = {name: row[name] for name in _REPORTED} | {f"extra/{name}": value for name, value in row["extra"] or ()}
        at = row["started_at"] and row["started_at"] + timedelta(seconds=row["wall_seconds"] or 0)
        points.setdefault(row["trial_key"], {})[row["step"]] = (at, _measured(measured))
    for row in ledger.sql(_EVALUATIONS, batch).to_pylist():
        scores = {f"{row['split']}/{row['domain']}/{name}": row[name] for name in _EVALUATED}
        _, metrics = points.setdefault(row["trial_key"], {}).setdefault(row["step"], (None, {}))
        metrics.update(_measured(scores))
    return points


def _measured(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if value is not None}


def _run(sweep: Sweep, row: Mapping[str, Any], points: _Points) -> Run:
    began = row["started_at"] or row["planned_at"] or datetime(1970, 1, 1, tzinfo=UTC)
    totals = _measured({name: row[name] for name in _TOTALS})
    if totals:
        # What was spent is known at the end; a trial that reported nothing has it at step 0.
        _, last = points.setdefault(max(points, default=0), (row["finished_at"], {}))
        last.update(totals)
    tags = {"sweep_id": sweep.sweep_id, "sweep_kind": sweep.kind, "number": row["number"], **{n: row[n] for n in _TAGS}}
    return Run(
        trial_key=row["trial_key"],
        name=_name(row),
        status=row["status"],
        planned_at=row["planned_at"] or began,
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        config=json.loads(row["config"] or "{}"),
        tags={name: str(value) for name, value in tags.items() if value is not None},
        error=row["error"],
        points=tuple(_timed(points, began)),
    )


def _timed(points: _Points, began: datetime) -> Iterable[Point]:
    """An evaluation without a report of its own step takes the time of the report before it."""
    for step, (at, metrics) in sorted(points.items()):
        began = at or began
        yield Point(step, began, metrics)


def _name(row: Mapping[str, Any]) -> str:
    if row["number"] is not None:
        return f"{row['trainable']} #{row['number']}"
    mixture = "" if row["squad_share"] is None else f" {ratio(row['squad_share'])} {row['data_order']}"
    return f"{row['trainable'] or '?'}{mixture} seed {row['seed']}"
