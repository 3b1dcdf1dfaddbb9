"""Paired comparisons of the grid by test example: models on the same mixture, orders of the same mixture.

Each row is one cell of the grid: two trials that differ in one factor, seed by seed, on the same test examples. The interval
and `p` are over groups of examples; McNemar's test takes every example for an independent one, so that its p is too small
where groups are large. Neither knows how much a trial changes with its seed: that is the noise floor's and the seeds' part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from results.comparisons import noise_floor
from results.examples import DomainExamples, load_examples
from results.grid import Grid, GridTrial, ratio
from results.ledger import Ledger
from results.readable import interval_text, p_text
from results.statistics import ALPHA, Reals, estimate, holm, mcnemar, resampled_means, sign_flip_p, t_interval

__all__ = ["PairedCell", "paired_cells", "pairs_table", "pairs_text"]

_SHUFFLED, _CONCATENATED = "shuffled", "concatenated"

_MODELS, _ORDERS = "models", "orders"


@dataclass(frozen=True)
class PairedCell:
    """Two sides that differ in one factor, with the trials of each by seed."""

    family: str
    """models | orders: Holm's correction is over all rows of one."""
    comparison: str
    trainable: str
    order: str
    share: int
    domain: str
    pairs: tuple[tuple[GridTrial, GridTrial], ...]
    """(base, other) for every seed that both sides have."""


def paired_cells(grid: Grid) -> list[PairedCell]:
    """Every other trainable against the first, then shuffled against concatenated, in each cell where both completed."""
    return [cell for cell in (*_models(grid), *_orders(grid)) if cell.pairs]


def pairs_table(ledger: Ledger, grid: Grid) -> tuple[pa.Table, list[str]]:
    """One row per paired comparison: EM of both, difference in points with its 95 % interval, McNemar, p, Holm's p.

    `difference` is the mean over seeds. With several seeds McNemar's columns are null, since it compares two models, and
    `seed low` and `seed high` are Student's interval over the seeds' differences.
    """
    examples = load_examples(ledger, grid)
    rows = [
        row
        for domain in examples.domains.values()
        for row in _rows(domain, [c for c in paired_cells(grid) if c.domain == domain.domain])
    ]
    rows.sort(key=lambda row: row["family"] != _MODELS)
    for family in (_MODELS, _ORDERS):
        mine = [row for row in rows if row["family"] == family]
        for row, adjusted in zip(mine, holm([row["p"] for row in mine]), strict=True):
            row["holm p"] = adjusted
    notes = [*examples.notes(), noise_floor(grid).describe(), *_summary(rows), *grid.missing()]
    return pa.Table.from_pylist(rows, schema=_SCHEMA), notes


def pairs_text(table: pa.Table) -> pa.Table:
    """The table for people: values with their intervals in one cell, a p with three digits."""
    rows = [
        {
            "comparison": row["comparison"],
            "of": f"{row['order'] if row['family'] == _MODELS else row['trainable']} {row['ratio']}",
            "tested on": row["tested on"],
            "EM": f"{row['other EM']:.1f} against {row['base EM']:.1f}",
            "difference": interval_text(row["difference"], row["low"], row["high"]),
            "alone right": f"{row['other only']} against {row['base only']}",
            "McNemar p": p_text(row["mcnemar p"]),
            "p": p_text(row["p"]),
            "Holm p": p_text(row["holm p"]),
        }
        for row in table.to_pylist()
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, pa.string()) for name in _TEXT_COLUMNS]))


def _models(grid: Grid) -> Iterator[PairedCell]:
    for other in grid.trainables[1:]:
        what = f"{other} − {grid.trainables[0]}"
        for order in grid.orders:
            for domain in grid.domains:
                for share in grid.shares:
                    pairs = _by_seed(grid, domain, share, (grid.trainables[0], order), (other, order))
                    yield PairedCell(_MODELS, what, other, order, share, domain, pairs)


def _orders(grid: Grid) -> Iterator[PairedCell]:
    for name in grid.trainables:
        for domain in grid.domains:
            for share in grid.shares:
                pairs = _by_seed(grid, domain, share, (name, _CONCATENATED), (name, _SHUFFLED))
                yield PairedCell(_ORDERS, f"{_SHUFFLED} − {_CONCATENATED}", name, _SHUFFLED, share, domain, pairs)


def _by_seed(
    grid: Grid, domain: str, share: int, base: tuple[str, str], other: tuple[str, str]
) -> tuple[tuple[GridTrial, GridTrial], ...]:
    sides = [
        {t.seed: t for t in grid.trials if (t.trainable, t.order) == side and t.share == share and domain in t.em}
        for side in (base, other)
    ]
    return tuple((sides[0][seed], sides[1][seed]) for seed in sorted(sides[0].keys() & sides[1].keys()))


def _rows(examples: DomainExamples, cells: list[PairedCell]) -> list[dict[str, Any]]:
    """The rows of one domain: all its differences are resampled at once."""
    known = [(cell, sides) for cell in cells if (sides := _sides(examples, cell)) is not None]
    if not known:
        return []
    differences = np.stack([(other - base).mean(axis=1) for _, (base, other) in known], axis=1)
    draws = resampled_means(differences, examples.groups)
    p_values = sign_flip_p(differences, examples.groups)
    return [
        _row(examples, cell, base, other, draws[:, index], p_values[index]) for index, (cell, (base, other)) in enumerate(known)
    ]


def _sides(examples: DomainExamples, cell: PairedCell) -> tuple[Reals, Reals] | None:
    """EM of both sides, percent: (examples, seeds) each; None where a trial left no predictions."""
    columns = [[examples.column(trial) for trial in side] for side in zip(*cell.pairs, strict=True)]
    base, other = ([column for column in side if column is not None] for side in columns)
    if min(len(base), len(other)) < len(cell.pairs):
        return None
    return np.stack(base, axis=1), np.stack(other, axis=1)


def _row(examples: DomainExamples, cell: PairedCell, base: Reals, other: Reals, draws: Reals, p: float) -> dict[str, Any]:
    found = estimate(draws)
    base_only, other_only = int((base > other).sum()), int((other > base).sum())
    test = mcnemar(base_only, other_only) if len(cell.pairs) == 1 else None
    seeds = t_interval((other - base).mean(axis=0).tolist())
    return {
        "family": cell.family,
        "comparison": cell.comparison,
        "trainable": cell.trainable,
        "order": cell.order,
        "ratio": ratio(cell.share),
        "tested on": cell.domain,
        "seeds": len(cell.pairs),
        "examples": len(examples.groups),
        "groups": examples.num_groups,
        "base EM": float(base.mean()),
        "other EM": float(other.mean()),
        "difference": found.value if found else None,
        "low": found.low if found else None,
        "high": found.high if found else None,
        "base only": base_only,
        "other only": other_only,
        "mcnemar p": test.exact_p if test else None,
        "mcnemar chi2": test.chi2 if test else None,
        "mcnemar chi2 p": test.chi2_p if test else None,
        "p": p,
        "seed low": seeds[0] if seeds else None,
        "seed high": seeds[1] if seeds else None,
    }


def _summary(rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for family in (_MODELS, _ORDERS):
        p_values = [row["holm p"] for row in rows if row["family"] == family]
        if p_values:
            below = sum(1 for p in p_values if p < ALPHA)
            lines.append(f"{family}: {below} of {len(p_values)} differences have a Holm-adjusted p below {ALPHA:g}")
    return lines


_TEXT_COLUMNS = ("comparison", "of", "tested on", "EM", "difference", "alone right", "McNemar p", "p", "Holm p")
_TEXTS = ("family", "comparison", "trainable", "order", "ratio", "tested on")
_COUNTS = ("seeds", "examples", "groups")
_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in _TEXTS),
        *(pa.field(name, pa.int64()) for name in _COUNTS),
        *(pa.field(name, pa.float64()) for name in ("base EM", "other EM", "difference", "low", "high")),
        *(pa.field(name, pa.int64()) for name in ("base only", "other only")),
        *(pa.field(name, pa.float64()) for name in ("mcnemar p", "mcnemar chi2", "mcnemar chi2 p", "p", "holm p")),
        *(pa.field(name, pa.float64()) for name in ("seed low", "seed high")),
    ]
)
