"""One self-contained HTML page: what was run and spent, the grid, the noise floor, the paper beside ours, the newest search."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any

import altair as alt
import jinja2
import pyarrow as pa
import vl_convert

from results import comparisons
from results.charts import Chart
from results.errors import OptunaMissingError
from results.figures import GRID_FIGURES, SEARCH_FIGURES
from results.formats import plain_rows
from results.grid import Grid, load_grid
from results.ledger import Ledger
from results.predictions import predictions_table
from results.search import load_search, search_ids
from results.search_tables import search_summary, search_table
from results.tables import GridRow, gains_table, grid_table, levels_table

__all__ = ["Provenance", "Summary", "draw_report", "render_report", "summarise_ledger"]

_MOST_MISSING = 12
_BEST_TRIALS = 10
_SEARCH_CHARTS = ("history", "intermediate", "rungs", "importance")


@dataclass(frozen=True)
class Provenance:
    """What the newest attempts ran on."""

    commits: tuple[str, ...]
    devices: tuple[str, ...]
    versions: dict[str, tuple[str, ...]]
    """Package to the versions that were in use."""


@dataclass(frozen=True)
class Summary:
    """How many trials stand how, and what they cost."""

    status_counts: dict[str, int]
    gpu_hours: float
    cpu_hours: float
    train_hours: float
    attempts: int
    failures: tuple[tuple[str, str, str, str], ...]
    """(trial_key, trainable, status, why) of trials that failed or were lost."""
    provenance: Provenance


def summarise_ledger(ledger: Ledger) -> Summary:
    """Counts, hours and provenance over every trial of the ledger."""
    rows = ledger.sql("""
        SELECT trial_key, trainable, status, coalesce(error_type, stop_reason, '') AS why, attempts,
               coalesce(gpu_seconds, 0) AS gpu, coalesce(cpu_seconds, 0) AS cpu, coalesce(train_seconds, 0) AS train,
               git_commit, device, versions
        FROM trials ORDER BY trial_key
    """).to_pylist()
    statuses = [row["status"] for row in rows]
    return Summary(
        status_counts={status: statuses.count(status) for status in sorted(set(statuses))},
        gpu_hours=sum(row["gpu"] for row in rows) / 3600,
        cpu_hours=sum(row["cpu"] for row in rows) / 3600,
        train_hours=sum(row["train"] for row in rows) / 3600,
        attempts=sum(row["attempts"] for row in rows),
        failures=tuple(
            (row["trial_key"], row["trainable"] or "?", row["status"], row["why"])
            for row in rows
            if row["status"] in ("failed", "lost")
        ),
        provenance=_provenance(rows),
    )


def render_report(ledger: Ledger, *, generated_at: datetime, sweep_id: str | None = None) -> str:
    """The page as HTML; it loads nothing from the network.

    `sweep_id` chooses the grid as in `load_grid`, or the search as in `load_search`; the other is the newest.
    """
    grid = load_grid(ledger, _chosen(ledger, sweep_id)[0])
    charts, _ = draw_report(ledger, sweep_id)
    predictions = predictions_table(ledger, grid)
    floor = comparisons.noise_floor(grid)
    missing = grid.missing()
    return _template().render(
        storage=ledger.storage.shown,
        generated_at=generated_at.strftime("%Y-%m-%d %H:%M %Z"),
        grid=grid,
        summary=summarise_ledger(ledger),
        sections=_grid_sections(grid, floor),
        noise=floor.describe().capitalize(),
        noise_is_known=floor.mean is not None,
        levels=_html_table(levels_table(grid)),
        gains=_html_table(gains_table(grid)),
        predictions=_html_table(predictions.rows),
        prediction_notes=predictions.notes,
        missing=missing[:_MOST_MISSING],
        num_more_missing=max(0, len(missing) - _MOST_MISSING),
        skipped=dict(ledger.skipped),
        search=_search_section(ledger, sweep_id, charts),
        charts={name: _script_json(chart.to_dict()) for name, chart in charts.items()},
        vega_bundle=_vega_bundle(),
    )


def draw_report(ledger: Ledger, sweep_id: str | None = None) -> tuple[dict[str, Chart], list[str]]:
    """The page's charts by name, those of a search only where there is one; and what is missing."""
    grid_id, search_id = _chosen(ledger, sweep_id)
    grid = load_grid(ledger, grid_id)
    charts, notes = {name: draw(grid) for name, draw in GRID_FIGURES.items()}, grid.missing()
    if search_ids(ledger):
        search = load_search(ledger, search_id)
        for name in _SEARCH_CHARTS:
            try:
                charts[name] = SEARCH_FIGURES[name](search)
            except OptunaMissingError as error:
                notes.append(f"figure {name} left out: {error}")
    return charts, notes


def _chosen(ledger: Ledger, sweep_id: str | None) -> tuple[str | None, str | None]:
    """The grid and the search that `sweep_id` chooses; None: the newest."""
    return (None, sweep_id) if sweep_id in search_ids(ledger) else (sweep_id, None)


def _search_section(ledger: Ledger, sweep_id: str | None, charts: Collection[str]) -> dict[str, Any] | None:
    if not search_ids(ledger):
        return None
    search = load_search(ledger, _chosen(ledger, sweep_id)[1])
    table = _html_table(search_table(search, _BEST_TRIALS), ".4g")
    drawn = [name for name in _SEARCH_CHARTS if name in charts]
    return {"summary": search_summary(search), "best": table, "charts": drawn}


def _template() -> jinja2.Template:
    source = resources.files("results").joinpath("templates/report.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source)


def _vega_bundle() -> str:
    version = "_".join(alt.SCHEMA_VERSION.split(".")[:2])
    # The stub demands a snippet, yet only without one does the bundle export vegaEmbed.
    return str(vl_convert.javascript_bundle(vl_version=version))  # type: ignore[call-arg]


def _script_json(spec: dict[str, Any]) -> str:
    # A text from the ledger must not be able to end the script element that holds it.
    return json.dumps(spec).replace("<", "\\u003c")


def _html_table(table: pa.Table, form: str = ".1f") -> dict[str, Any]:
    """Header, rows of text, and which columns are numbers; `form` is that of those with a fraction."""
    rows = [[_text(value, form) for value in row] for row in plain_rows(table)]
    return {"header": table.column_names, "rows": rows, "numeric": [pa.types.is_primitive(f.type) for f in table.schema]}


def _text(value: Any, form: str) -> str:
    if value is None:
        return "–"
    return f"{value:{form}}" if isinstance(value, float) else str(value)


_SECTION_TITLES = {
    "scores": "Exact match, percent",
    "published": "Published",
    "difference (points)": "Differences, EM points",
    "difference (%)": "Differences, relative percent",
    "noise floor": "Noise floor, EM points",
}


def _grid_sections(grid: Grid, floor: comparisons.NoiseFloor) -> list[dict[str, Any]]:
    """The grid table's rows by section; a difference no larger than the noise floor is marked."""
    table = grid_table(grid)
    sections = []
    for section, title in _SECTION_TITLES.items():
        rows = [_grid_cells(row, table.shares, floor.max or 0.0) for row in table.rows if row.section == section]
        if rows:
            sections.append({"title": title, "rows": rows})
    return sections


def _grid_cells(row: GridRow, shares: tuple[int, ...], floor: float) -> dict[str, Any]:
    is_difference = row.section.startswith("difference")
    sign = "+z" if is_difference else ""
    cells = []
    for share in shares:
        cell = row.cells.get(share)
        is_noise = cell is not None and row.section == "difference (points)" and abs(cell.mean) <= floor
        cells.append(
            {
                "text": f"{cell.mean:{sign}.1f}" if cell else "",
                "sd": f"± {cell.sd:.1f}" if cell and cell.sd is not None else "",
                "is_noise": is_noise,
            }
        )
    return {"labels": (row.trainable, row.order, row.domain), "cells": cells}


def _provenance(rows: list[dict[str, Any]]) -> Provenance:
    versions: dict[str, set[str]] = {}
    for row in rows:
        for package, version in json.loads(row["versions"] or "{}").items():
            versions.setdefault(package, set()).add(str(version))
    return Provenance(
        commits=tuple(sorted({row["git_commit"] for row in rows if row["git_commit"]})),
        devices=tuple(sorted({row["device"] for row in rows if row["device"]})),
        versions={package: tuple(sorted(found)) for package, found in sorted(versions.items())},
    )
