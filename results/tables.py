"""Tables for people: the grid with its differences, the paper's numbers beside ours, and the trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from results import comparisons
from results.grid import METRICS, Cell, Grid, ratio, require_sweep
from results.ledger import Ledger

__all__ = ["GridRow", "GridTable", "grid_table", "trials_table"]


@dataclass(frozen=True)
class GridRow:
    """One line of the grid table: values by share."""

    section: str
    """scores | difference (points) | difference (%) | noise floor | published."""
    trainable: str
    order: str
    domain: str
    cells: dict[int, Cell]
    note: str = ""


@dataclass(frozen=True)
class GridTable:
    """Scores by share, then differences, then the noise floor; the paper's values follow ours."""

    metric: str
    shares: tuple[int, ...]
    rows: tuple[GridRow, ...]
    notes: tuple[str, ...]
    """Sentences to print under the table: the noise floor, and what is missing."""

    def to_arrow(self) -> pa.Table:
        """Numbers: one column per share, and one for the standard deviation where there is more than one seed."""
        columns: dict[str, list[object]] = {
            name: [getattr(row, name) for row in self.rows] for name in ("section", "trainable", "order", "domain")
        }
        fields = [pa.field(name, pa.string()) for name in columns]
        for share in self.shares:
            columns[ratio(share)] = [row.cells[share].mean if share in row.cells else None for row in self.rows]
            fields.append(pa.field(ratio(share), pa.float64()))
        if any(cell.sd is not None for row in self.rows for cell in row.cells.values()):
            for share in self.shares:
                columns[f"sd {ratio(share)}"] = [row.cells[share].sd if share in row.cells else None for row in self.rows]
                fields.append(pa.field(f"sd {ratio(share)}", pa.float64()))
        columns["note"] = [row.note for row in self.rows]
        return pa.Table.from_pydict(columns, schema=pa.schema([*fields, pa.field("note", pa.string())]))

    def to_text(self) -> pa.Table:
        """The same with one text per cell: `61.3 ± 0.4`, differences with their sign, empty where nothing was run."""
        columns: dict[str, list[str]] = {
            name: [getattr(row, name) for row in self.rows] for name in ("section", "trainable", "order", "domain")
        }
        for share in self.shares:
            columns[ratio(share)] = [_cell_text(row.cells.get(share), row.section) for row in self.rows]
        columns["note"] = [row.note for row in self.rows]
        right = {ratio(share): {"align": "right"} for share in self.shares}
        fields = [pa.field(name, pa.string(), metadata=right.get(name)) for name in columns]
        return pa.table(columns, schema=pa.schema(fields))


def grid_table(grid: Grid, *, metric: str = "em") -> GridTable:
    """The grid of the paper's Figs. 3 and 6 in numbers; `metric` is em or f1, in percent.

    Raises ValueError for another metric.
    """
    if metric not in METRICS:
        raise ValueError(f"metric must be em or f1, got {metric!r}")
    floor = comparisons.noise_floor(grid, metric=metric)
    rows = [*_score_rows(grid, metric), *(_published_rows(grid) if metric == "em" else [])]
    differences = [
        *comparisons.trainable_differences(grid, metric=metric),
        *comparisons.order_differences(grid, metric=metric),
    ]
    for difference in differences:
        rows += _difference_rows(difference)
    rows += _noise_rows(grid, floor)
    notes = [*([floor.describe()] if grid.trials else []), *grid.missing()]
    return GridTable(metric, grid.shares, tuple(rows), tuple(notes))


def trials_table(ledger: Ledger, sweep_id: str | None = None) -> pa.Table:
    """One row per trial: what it is, how it stands, its test EM per domain in percent and its seconds.

    Raises QueryError for a sweep that the ledger does not have.
    """
    if sweep_id is not None:
        require_sweep(ledger, sweep_id)
    query = f"SELECT {_TRIAL_COLUMNS} FROM trials {_IN_SWEEP if sweep_id else ''} ORDER BY {_TRIAL_ORDER}"
    rows = ledger.sql(query, {"sweep": sweep_id} if sweep_id else None)
    scored = ledger.sql("""
        SELECT trial_key, domain, em FROM evaluations WHERE split = 'test'
        QUALIFY row_number() OVER (PARTITION BY trial_key, domain ORDER BY step DESC) = 1
    """).to_pylist()
    em = {(row["trial_key"], row["domain"]): row["em"] for row in scored}
    keys = rows.column("trial_key").to_pylist()
    for domain in sorted({domain for key, domain in em if key in set(keys)}):
        position = rows.column_names.index("train_seconds")
        values = pa.array([em.get((key, domain)) for key in keys], pa.float64())
        rows = rows.add_column(position, pa.field(f"em {domain}", pa.float64()), values)
    return rows


_TRIAL_COLUMNS = (
    "trial_key, sweep_id, trainable, squad_share AS share, data_order AS 'order', seed, status, attempts, "
    "train_seconds, gpu_seconds, coalesce(error_type, stop_reason) AS why"
)
_TRIAL_ORDER = "sweep_id, trainable, data_order, squad_share, seed, trial_key"
_IN_SWEEP = "WHERE trial_key IN (SELECT trial_key FROM plans WHERE sweep_id = $sweep)"


def _score_rows(grid: Grid, metric: str) -> list[GridRow]:
    return [
        GridRow("scores", trainable, order, domain, _present(grid, trainable, order, domain, metric))
        for trainable in grid.trainables
        for order in grid.orders
        for domain in grid.domains
    ]


def _present(grid: Grid, trainable: str, order: str, domain: str, metric: str) -> dict[int, Cell]:
    cells = {share: grid.cell(trainable, order, domain, share, metric=metric) for share in grid.shares}
    return {share: cell for share, cell in cells.items() if cell}


def _published_rows(grid: Grid) -> list[GridRow]:
    return [
        GridRow(
            "published",
            level.trainable,
            level.order or "either",
            check.domain,
            {level.share: Cell(level.em, None, 1)},
            f"paper {level.section}",
        )
        for check in comparisons.check_levels(grid)
        if not (level := check.published).full_set
    ]


def _difference_rows(difference: comparisons.Difference) -> list[GridRow]:
    is_order = difference.what.startswith("shuffled")
    what = (difference.trainable, difference.what) if is_order else (difference.what, difference.order)
    relative: Mapping[int, Cell] = {share: Cell(value, None, 1) for share, value in difference.percent.items()}
    return [
        GridRow("difference (points)", *what, difference.domain, difference.points),
        GridRow("difference (%)", *what, difference.domain, dict(relative)),
    ]


def _noise_rows(grid: Grid, floor: comparisons.NoiseFloor) -> list[GridRow]:
    return [
        GridRow("noise floor", name, "|shuffled − concatenated|", domain, cells)
        for name in grid.trainables
        for domain in grid.domains
        if (cells := floor.cells(name, domain))
    ]


def _cell_text(cell: Cell | None, section: str) -> str:
    if cell is None:
        return ""
    sign = "+z" if section.startswith("difference") else ""
    return f"{cell.mean:{sign}.1f}" + (f" ± {cell.sd:.1f}" if cell.sd is not None else "")
