"""The report's heat maps: exact match by share and domain, a map for each architecture and order, and the differences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from results import comparisons, paper
from results.grid import Cell, Grid
from results.report_frame import Section, Subject
from results.tables import GridRow, grid_table

__all__ = ["grid_section"]

_TITLES = {
    "scores": "Exact match, percent",
    "published": "Published",
    "difference (points)": "Differences, EM points",
    "difference (%)": "Differences, relative percent",
    "noise floor": "Noise floor, EM points",
}


def grid_section(subject: Subject) -> Section | None:
    """None where no grid was planned."""
    grid = subject.grid.plain  # points of search spaces are ranked instead
    if not grid.trials:
        return None
    floor = comparisons.noise_floor(grid)
    maps = _score_maps(grid)
    scores = [cell.mean for each in maps for row in each["rows"] for cell in row["cells"].values() if cell]
    found = [*comparisons.trainable_differences(grid), *comparisons.order_differences(grid)]
    values = {
        "shares": grid.shares,
        "domains": grid.sides,
        "maps": maps,
        "differences": _difference_maps(grid, found),
        "low": min(scores, default=0.0),
        "high": max(scores, default=100.0),
        "noise": floor.describe().capitalize(),
        "floor": floor.max or 0.0,
        "largest": max((abs(cell.mean) for each in found for cell in each.points.values()), default=0.0) or 1.0,
        "sections": _number_sections(grid, floor),
    }
    return Section(name="grid", title="The grid", values=values)


def _score_maps(grid: Grid) -> list[dict[str, Any]]:
    return [
        {
            "title": paper.model_title(trainable),
            "model": trainable,
            "order": order,
            "rows": [
                {
                    "domain": domain,
                    "label": paper.domain_title(domain),
                    "cells": {share: grid.cell(trainable, order, domain, share) for share in grid.shares},
                }
                for domain in grid.domains
            ],
        }
        for trainable in grid.trainables
        for order in grid.orders
    ]


def _difference_maps(grid: Grid, found: Sequence[comparisons.Difference]) -> list[dict[str, Any]]:
    """Every model minus the baseline by order, then shuffled minus concatenated by model; rows are domains."""
    models = [
        _difference_map(grid, found, (other, order), (grid.trainables[0], order))
        for other in grid.trainables[1:]
        for order in grid.orders
    ]
    orders = [_difference_map(grid, found, (name, "shuffled"), (name, "concatenated")) for name in grid.trainables]
    return models + (orders if {"shuffled", "concatenated"} <= set(grid.orders) else [])


def _difference_map(
    grid: Grid, found: Sequence[comparisons.Difference], side: tuple[str, str], base: tuple[str, str]
) -> dict[str, Any]:
    """`side` and `base` are (trainable, order)."""
    same_model = side[0] == base[0]
    what = "shuffled − concatenated" if same_model else f"{side[0]} − {base[0]}"
    points = {each.domain: each.points for each in found if (each.what, each.trainable, each.order) == (what, *side)}
    names = (paper.model_title(side[0]), paper.model_title(base[0]))
    return {
        "title": f"{names[0]}, {what}" if same_model else f"{names[0]} − {names[1]}, {side[1]}",
        "model": side[0],
        "order": side[1],
        "base_model": base[0],
        "base_order": base[1],
        "rows": [
            {"domain": domain, "label": paper.domain_title(domain), "cells": points.get(domain, {})} for domain in grid.domains
        ],
    }


def _number_sections(grid: Grid, floor: comparisons.NoiseFloor) -> list[dict[str, Any]]:
    """The grid table's rows by section; a difference no larger than the noise floor is marked."""
    table = grid_table(grid)
    found = []
    for section, title in _TITLES.items():
        rows = [_number_row(row, table.shares, floor.max or 0.0) for row in table.rows if row.section == section]
        if rows:
            found.append({"title": title, "rows": rows})
    return found


def _number_row(row: GridRow, shares: Iterable[int], floor: float) -> dict[str, Any]:
    is_points = row.section == "difference (points)"
    cells = [_number_cell(row.cells.get(share), row.section.startswith("difference"), is_points, floor) for share in shares]
    return {
        "labels": (row.trainable, row.order, row.domain),
        "cells": cells,
        "model": row.trainable.partition(" − ")[0],
        "order": row.order if row.order in ("shuffled", "concatenated") else None,
    }


def _number_cell(cell: Cell | None, is_signed: bool, is_points: bool, floor: float) -> dict[str, Any]:
    if cell is None:
        return {"text": "", "sd": "", "is_noise": False}
    text = f"{cell.mean:{'+z' if is_signed else ''}.1f}".replace("-", "−")
    sd = f"± {cell.sd:.1f}" if cell.sd is not None else ""
    return {"text": text, "sd": sd, "is_noise": is_points and abs(cell.mean) <= floor}
