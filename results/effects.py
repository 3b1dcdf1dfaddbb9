"""Main effects and interactions of the grid: analysis of variance of EM over trainable, share, order, and seed as blocks.

The unit is a trial. With one seed there is no repetition: the three-way interaction then serves as the residual. The
analysis takes the largest part of the grid that is balanced, so that all types of sums of squares agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, product
from typing import Any

import pyarrow as pa

from results.grid import METRICS, Grid, ratio
from results.readable import interval_text, p_text
from results.statistics import holm, t_quantile

__all__ = ["Term", "analyse_variance", "balanced_part", "effects_table", "effects_text"]

_FACTORS = ("trainable", "share", "order")
_BLOCK = "seed"


@dataclass(frozen=True)
class Term:
    """One line of an analysis of variance."""

    factors: tuple[str, ...]
    """Of a main effect one, of an interaction several; none: the residual."""
    degrees: int
    sum_of_squares: float
    f: float | None
    p: float | None

    @property
    def name(self) -> str:
        """As printed."""
        return " × ".join(self.factors) or "residual"


@dataclass(frozen=True)
class Part:
    """A balanced part of the grid: every combination of its levels was tested."""

    levels: Mapping[str, tuple[Any, ...]]
    """By factor, and of the seed."""

    @property
    def size(self) -> int:
        """Trials."""
        return math.prod(len(values) for values in self.levels.values())

    @property
    def varied(self) -> list[str]:
        """Factors with several levels."""
        return [name for name in _FACTORS if len(self.levels[name]) > 1]


def effects_table(grid: Grid, *, metric: str = "em") -> tuple[pa.Table, list[str]]:
    """The analysis of each domain's scores in percent: a row per term, Holm's p over all terms of all domains.

    `effect` of a main effect is the last level's mean minus the first one's, in points, with its 95 % interval:
    sqrt(2 · residual mean square / pairs) times Student's t. Interactions have none.

    Raises ValueError for a metric other than em and f1.
    """
    if metric not in METRICS:
        raise ValueError(f"metric must be {' or '.join(METRICS)}, got {metric!r}")
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for domain in grid.domains:
        part = balanced_part(grid, domain, metric)
        if part is None:
            notes.append(f"{domain}: too few completed trials for an analysis of variance: it needs two levels of two factors")
            continue
        if len(set(_scores(grid, domain, metric, part).values())) == 1:
            notes.append(f"{domain}: all {part.size} trials have the same score, so that nothing varies")
            continue
        rows += _domain_rows(grid, domain, metric, part)
        notes.append(f"{domain}: {_described(grid, part)}")
    tested = [row for row in rows if row["term"] != "residual"]
    for row, adjusted in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["holm p"] = adjusted
    return pa.Table.from_pylist(rows, schema=_SCHEMA), [*notes, *grid.missing()]


def effects_text(table: pa.Table) -> pa.Table:
    """The table for people: values with their intervals in one cell, a p with three digits."""
    rows = [
        {
            "tested on": row["tested on"],
            "term": row["term"],
            "effect": row["effect"] or "",
            "points": interval_text(row["points"], row["low"], row["high"]),
            "df": str(row["df"]),
            "F": "" if row["F"] is None else f"{row['F']:.2f}",
            "p": p_text(row["p"]),
            "Holm p": p_text(row["holm p"]),
            "partial eta²": "" if row["partial eta squared"] is None else f"{row['partial eta squared']:.2f}",
        }
        for row in table.to_pylist()
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, pa.string()) for name in _TEXT_COLUMNS]))


def balanced_part(grid: Grid, domain: str, metric: str = "em") -> Part | None:
    """The largest part with every combination; of equal ones that with more factors varied. None below two factors."""
    scores = {
        (name, share, order, seed)
        for name, order in product(grid.trainables, grid.orders)
        for share in grid.shares
        for seed in grid.scores(name, order, domain, share, metric=metric)
    }
    seeds = tuple(sorted({trial.seed for trial in grid.trials}))
    parts = []
    for orders, kept in product(_subsets(grid.orders), dict.fromkeys([seeds, *((seed,) for seed in seeds)])):
        shares_of = {
            name: frozenset(s for s in grid.shares if scores.issuperset(product((name,), (s,), orders, kept)))
            for name in grid.trainables
        }
        for shares in _intersections(shares_of.values()):
            trainables = tuple(name for name, has in shares_of.items() if shares <= has)
            parts.append(Part({"trainable": trainables, "share": tuple(sorted(shares)), "order": orders, _BLOCK: kept}))
    varied = [part for part in parts if len(part.varied) > 1]
    return max(varied, key=lambda part: (part.size, len(part.varied)), default=None)


def _intersections(sets: Iterable[frozenset[int]]) -> list[frozenset[int]]:
    """The sets, and what any of them have in common: the shares of the largest part are one of these. None is empty."""
    found: dict[frozenset[int], None] = {}
    for each in dict.fromkeys(sets):
        found |= dict.fromkeys([each, *(each & other for other in found)])
    return [each for each in found if each]


def analyse_variance(
    scores: Sequence[tuple[tuple[Any, ...], float]], factors: Sequence[str], block: str | None = None
) -> list[Term]:
    """Analysis of variance of balanced scores, each with its levels (one per factor, then the block's): residual last.

    Interactions of the highest order that leaves a residual are in the model. Raises ValueError where nothing is left.
    """
    import pandas
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    # Names of our own: a factor may be called what a formula reserves.
    names = {factor: f"f{index}" for index, factor in enumerate([*factors, *([block] if block else [])])}
    frame = pandas.DataFrame([[str(level) for level in levels] for levels, _ in scores], columns=list(names.values()))
    frame["score"] = [score for _, score in scores]
    terms = _fitting_terms(frame[list(names.values())].nunique().to_dict(), len(scores), [names[f] for f in factors])
    formula = " + ".join([*(names[block] for _ in [0] if block), *(":".join(term) for term in terms)])
    table = anova_lm(ols(f"score ~ {formula}", frame).fit(), typ=2)
    factor_of = {name: factor for factor, name in names.items()}
    return [
        Term(
            factors=() if row == "Residual" else tuple(factor_of[name] for name in str(row).split(":")),
            degrees=int(values["df"]),
            sum_of_squares=float(values["sum_sq"]),
            f=_known(values["F"]),
            p=_known(values["PR(>F)"]),
        )
        for row, values in table.iterrows()
    ]


def _fitting_terms(num_levels: Mapping[str, int], num_scores: int, factors: Sequence[str]) -> list[tuple[str, ...]]:
    blocks = sum(levels - 1 for name, levels in num_levels.items() if name not in factors)
    for order in range(len(factors), 0, -1):
        terms = [term for size in range(1, order + 1) for term in combinations(factors, size)]
        degrees = sum(math.prod(num_levels[name] - 1 for name in term) for term in terms)
        if num_scores - 1 - blocks - degrees > 0:
            return terms
    raise ValueError(f"an analysis of variance of {', '.join(factors)} needs more than {num_scores} trials")


def _domain_rows(grid: Grid, domain: str, metric: str, part: Part) -> Iterator[dict[str, Any]]:
    scores = _scores(grid, domain, metric, part)
    block = _BLOCK if len(part.levels[_BLOCK]) > 1 else None
    factors = part.varied
    kept = [index for index, name in enumerate((*_FACTORS, _BLOCK)) if name in (*factors, block)]
    terms = analyse_variance([(tuple(key[i] for i in kept), score) for key, score in scores.items()], factors, block)
    residual = terms[-1]
    for term in terms:
        effect = _effect(scores, part, term, residual) if len(term.factors) == 1 and term.factors[0] != _BLOCK else {}
        yield {
            "tested on": domain,
            "term": term.name,
            **effect,
            "df": term.degrees,
            "sum of squares": term.sum_of_squares,
            "F": term.f,
            "p": term.p,
            "partial eta squared": _eta(term, residual) if term.factors else None,
        }


def _effect(scores: Mapping[tuple[Any, ...], float], part: Part, term: Term, residual: Term) -> dict[str, Any]:
    """The last level of a factor against its first, over all combinations of the others."""
    levels, place = part.levels[term.factors[0]], _FACTORS.index(term.factors[0])
    sides = [[score for key, score in scores.items() if key[place] == level] for level in (levels[-1], levels[0])]
    difference = math.fsum(sides[0]) / len(sides[0]) - math.fsum(sides[1]) / len(sides[1])
    mean_square = residual.sum_of_squares / residual.degrees
    half = t_quantile(residual.degrees) * math.sqrt(2 * mean_square / len(sides[0]))
    shown = [ratio(level) if term.factors[0] == "share" else level for level in (levels[-1], levels[0])]
    return {"effect": f"{shown[0]} − {shown[1]}", "points": difference, "low": difference - half, "high": difference + half}


def _eta(term: Term, residual: Term) -> float | None:
    whole = term.sum_of_squares + residual.sum_of_squares
    return term.sum_of_squares / whole if whole else None


def _scores(grid: Grid, domain: str, metric: str, part: Part) -> dict[tuple[Any, ...], float]:
    """By (trainable, share, order, seed)."""
    return {
        (name, share, order, seed): grid.scores(name, order, domain, share, metric=metric)[seed]
        for name, share, order, seed in product(*(part.levels[name] for name in (*_FACTORS, _BLOCK)))
    }


def _described(grid: Grid, part: Part) -> str:
    """What was analysed and what was left out."""
    tested = sum(1 for trial in grid.trials if trial.em)
    shown = ", ".join(f"{len(part.levels[name])} of {name}" for name in (*part.varied, _BLOCK))
    left_out = f"; {tested - part.size} others would leave it unbalanced" if tested > part.size else ""
    alone = "; one seed, so that the highest interaction is the residual" if len(part.levels[_BLOCK]) == 1 else ""
    return f"analysis of variance over {part.size} trials ({shown}){left_out}{alone}"


def _subsets(levels: Sequence[str]) -> list[tuple[str, ...]]:
    return list(chain.from_iterable(combinations(levels, size) for size in range(1, len(levels) + 1)))


def _known(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


_TEXT_COLUMNS = ("tested on", "term", "effect", "points", "df", "F", "p", "Holm p", "partial eta²")
_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("tested on", "term", "effect")),
        *(pa.field(name, pa.float64()) for name in ("points", "low", "high")),
        pa.field("df", pa.int64()),
        *(pa.field(name, pa.float64()) for name in ("sum of squares", "F", "p", "holm p", "partial eta squared")),
    ]
)
