"""The models of a grid by their scores, beside how many parameters they train and what they cost.

Models are compared on the mixtures (share and order) that most of them were trained on, all on the same.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from results import paper
from results.cell_intervals import CellIntervals
from results.comparisons import noise_floor
from results.grid import Grid, GridTrial, ratio
from results.ledger import Ledger

__all__ = ["ranking_table", "ranking_text"]

_MOST_NAMED = 3
"""Mixtures in a note."""

_COSTS = """
    SELECT trial_key, params_trainable, params_total,
           CASE WHEN gpu_seconds > 0 THEN gpu_seconds ELSE train_seconds END / 3600 AS hours
    FROM trials
"""


def ranking_table(ledger: Ledger, grid: Grid) -> tuple[pa.Table, list[str]]:
    """One row a model, best mean test EM over the domains first, and notes on what the numbers are.

    EM is in percent. The 95 % intervals are those of `CellIntervals`. Hours are of training, of one trial: GPU-hours where it
    held GPUs, else wall hours.
    """
    scored = [trial for trial in grid.trials if trial.em]
    cells, left_out = _common_cells(scored)
    domains = grid.mixed
    schema = _schema(domains)
    if not cells:
        return pa.Table.from_pylist([], schema=schema), ["no trial of the grid has test scores yet"]
    costs = {row["trial_key"]: row for row in ledger.sql(_COSTS).to_pylist()}
    intervals = CellIntervals(ledger, grid)
    of_model: dict[str, list[GridTrial]] = {}
    for trial in scored:
        if (trial.share, trial.order) in cells and trial.trainable not in left_out:
            of_model.setdefault(trial.trainable, []).append(trial)
    rows = [_row(name, trials, domains, costs, intervals) for name, trials in of_model.items()]
    rows.sort(key=lambda row: -row["em"])
    named = ", ".join(f"{ratio(share)} {order}" for share, order in sorted(cells))
    shown = named if len(cells) <= _MOST_NAMED else f"{len(cells)} mixtures that all have"
    notes = [f"EM in percent on the test sets, trained on {shown}; {intervals.words}"]
    notes.append(noise_floor(grid).describe())
    notes.append("parameters and hours are of the model's own trial, without those that it begins from")
    notes += [f"not trained on these, and left out: {', '.join(left_out)}"] if left_out else []
    return pa.Table.from_pylist([{"rank": place, **row} for place, row in enumerate(rows, 1)], schema=schema), notes


def ranking_text(table: pa.Table) -> pa.Table:
    """The table for people: scores with their intervals in one cell, parameters with separators."""
    domains = [name.removeprefix("em ") for name in table.column_names if name.startswith("em ") and name.count(" ") == 1]
    rows = [
        {
            "rank": str(row["rank"]),
            "model": paper.model_title(row["trainable"]),
            "seeds": str(row["seeds"]),
            "EM": f"{row['em']:.1f}",
            **{f"EM {paper.domain_title(domain)}": _score(row, domain) for domain in domains},
            "trained parameters": f"{row['params_trainable']:,} ({100 * row['params_trainable'] / row['params_total']:.3g} %)",
            "hours": f"{row['hours']:.4f}",
        }
        for row in table.to_pylist()
    ]
    return pa.Table.from_pylist(rows) if rows else pa.table({"model": pa.array([], pa.string())})


def _score(row: dict[str, Any], domain: str) -> str:
    low, high = row[f"em {domain} low"], row[f"em {domain} high"]
    interval = "" if low is None or high is None else f" [{low:.1f}, {high:.1f}]"
    return f"{row[f'em {domain}']:.1f}{interval}"


def _common_cells(trials: Sequence[GridTrial]) -> tuple[set[tuple[int, str]], list[str]]:
    """Shares and orders that most models have, as many as these have in common, and the models that lack some."""
    of_model: dict[str, set[tuple[int, str]]] = {}
    for trial in trials:
        of_model.setdefault(trial.trainable, set()).add((trial.share, trial.order))
    if not of_model:
        return set(), []
    counts = Counter(cell for cells in of_model.values() for cell in cells)
    usual, _ = max(counts.items(), key=lambda item: (item[1], item[0]))
    common = set.intersection(*(cells for cells in of_model.values() if usual in cells))
    return common, [name for name, cells in of_model.items() if not common <= cells]


def _row(
    name: str, trials: Sequence[GridTrial], domains: Sequence[str], costs: dict[str, dict[str, Any]], intervals: CellIntervals
) -> dict[str, Any]:
    row: dict[str, Any] = {"trainable": name, "seeds": len({trial.seed for trial in trials})}
    for domain in domains:
        scores = [trial.em[domain] for trial in trials if domain in trial.em]
        found = intervals.interval(trials, domain)
        row[f"em {domain}"] = statistics.fmean(scores) if scores else None
        row[f"em {domain} low"], row[f"em {domain} high"] = found or (None, None)
    row["em"] = statistics.fmean(row[f"em {domain}"] for domain in domains if row[f"em {domain}"] is not None)
    spent = [costs[trial.trial_key] for trial in trials]
    for column in ("params_trainable", "params_total"):
        row[column] = round(statistics.fmean(each[column] for each in spent))
    row["hours"] = statistics.fmean(each["hours"] for each in spent)
    return row


def _schema(domains: Sequence[str]) -> pa.Schema:
    scores = [f"em {domain}{part}" for domain in domains for part in ("", " low", " high")]
    return pa.schema(
        [
            ("rank", pa.int64()),
            ("trainable", pa.string()),
            ("seeds", pa.int64()),
            ("em", pa.float64()),
            *((name, pa.float64()) for name in scores),
            ("params_trainable", pa.int64()),
            ("params_total", pa.int64()),
            ("hours", pa.float64()),
        ]
    )
