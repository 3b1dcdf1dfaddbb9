"""The report's section on families of models: a ranking for each that has several, beside the models that stand alone."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from results.ranking import ranking_text
from results.ranking_figure import draw_ranking
from results.report_frame import Figure, Section, Subject, html_table

__all__ = ["ranking_section"]

_FAMILIES = {
    "gated_ensemble": "Gated ensembles of experts",
    "moe_variants": "Mixture-of-experts variants",
    "adapters": "Adapters and their mixtures",
}
"""Titles; a family without one goes by its name."""

_ABOUT = "Points: mean exact match of each model against the parameters that it trains, and against its hours of training."

_LEAST = 2
"""Variants that make a family."""


def ranking_section(subject: Subject) -> Section | None:
    """None where no trainable came in several variants."""
    if sum(":" in name for name in subject.grid.trainables) < _LEAST:
        return None
    table, notes = subject.ranking
    names = table["trainable"].to_pylist()
    variants = Counter(_family(name) for name in names if ":" in name)
    families = [family for family, number in variants.items() if number >= _LEAST]
    if not families:
        return None
    of_row = pa.array([_family(name) for name in names])
    alone = pc.invert(pc.is_in(of_row, value_set=pa.array(families)))
    tables = [
        html_table(ranking_text(table.filter(pc.or_(pc.equal(of_row, family), alone))), _FAMILIES.get(family, family))
        for family in families
    ]
    figures = {"ranking": Figure.of(draw_ranking(table), _ABOUT)}
    return Section(name="ranking", title="Models ranked", values={"tables": tables, "notes": notes}, figures=figures)


def _family(trainable: str) -> str:
    return trainable.partition(":")[0]
