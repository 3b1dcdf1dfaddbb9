"""What the report's sections are made from, and what each of them gives: words, figures, data for the page's script."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from results import paper
from results.charts import Chart
from results.errors import LedgerError
from results.figures import LEDGER_FIGURES
from results.formats import plain_rows
from results.grid import Grid, load_grid, ratio
from results.ledger import Ledger
from results.ranking import ranking_table
from results.search import Search, load_search, search_ids

__all__ = ["Figure", "Section", "Subject", "html_table", "ledger_figures", "load_subject", "safe_json"]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The ledger, with the grid and the search of it that the report is about."""

    ledger: Ledger
    grid: Grid
    search: Search | None
    sweep_id: str | None = None
    """The sweep that was asked for; None: the newest."""

    @property
    def is_large(self) -> bool:
        """Whether comparing every trial would take minutes, which a page that is written again and again does not have."""
        return len(self.grid.trials) > _MOST_TRIALS

    @cached_property
    def ranking(self) -> tuple[pa.Table, list[str]]:
        """See `ranking_table`; its intervals are drawn once for the page."""
        return ranking_table(self.ledger, self.grid)

    @property
    def sweep_ids(self) -> tuple[str, ...]:
        """The sweeps that the grid and the search are of, by name."""
        ids = {trial.sweep_id for trial in self.grid.trials} | ({self.search.sweep_id} if self.search else set())
        return tuple(sorted(ids))

    @property
    def described(self) -> list[str]:
        """A line on each of the two."""
        return self.grid.described + (self.search.described if self.search else [])


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart of the page. Where its rows name a model, share, order or seed, the filters choose among them."""

    spec: Mapping[str, Any]
    """Vega-Lite's, with the rows in `datasets`."""
    about: str
    """What it shows, in a sentence: its caption, and its label for those who cannot see it."""
    num_rows: int

    @classmethod
    def of(cls, chart: Chart, about: str) -> Figure:
        """The page's script sets the colours that Altair's own theme would, by the reader's colour scheme."""
        spec = {**chart.to_dict(validate=False), "description": about, "config": {}}
        return cls(spec=spec, about=about, num_rows=sum(len(rows) for rows in spec.get("datasets", {}).values()))

    @property
    def is_drawn(self) -> bool:
        """False where it has more rows than a page should, or was left out for that at once."""
        return bool(self.spec) and self.num_rows <= _MOST_ROWS


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page: a template with its values."""

    name: str
    """Its anchor, and with `report_` and `.jinja` around it its template."""
    title: str
    values: Mapping[str, Any]
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """By name."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Blocks of JSON that the page's script reads, by element id."""
    facets: Mapping[str, str] = field(default_factory=dict)
    """What all of it is about, as facet to values with `|` between them: filters that exclude it hide the section."""


def load_subject(ledger: Ledger, sweep_id: str | None = None) -> Subject:
    """The newest grid and search; `sweep_id` chooses the grid as in `load_grid`, or the search as in `load_search`.

    Raises QueryError for a sweep that the ledger does not have.
    """
    searches = search_ids(ledger)
    grid_id, search_id = (None, sweep_id) if sweep_id in searches else (sweep_id, None)
    search = load_search(ledger, search_id) if searches else None
    return Subject(ledger=ledger, grid=load_grid(ledger, grid_id), search=search, sweep_id=sweep_id)


def safe_json(value: Any) -> str:
    """Compact JSON for a script element: no text in it can end the element, open a comment or break a line of script."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def ledger_figures(subject: Subject, abouts: Mapping[str, str]) -> dict[str, Figure]:
    """Those of `LEDGER_FIGURES` that are named, each with what it shows; without those that have nothing to draw."""
    if subject.is_large:
        return {name: Figure(spec={}, about=about, num_rows=0) for name, about in abouts.items()}
    found = {}
    for name, about in abouts.items():
        try:
            found[name] = Figure.of(LEDGER_FIGURES[name](subject.ledger, subject.sweep_id), about)
        except LedgerError:
            continue
    return found


_MOST_ROWS = 8_000
_MOST_TRIALS = 2_000

_FACET_COLUMNS = {
    "model": ("trainable", "model"),
    "share": ("share", "squad_share", "trained on", "mixture"),
    "order": ("order", "data_order"),
    "seed": ("seed",),
}
"""Facet of the page to the columns of a table that may hold it."""


def html_table(table: pa.Table, caption: str, form: str = ".1f") -> dict[str, Any]:
    """A table for the template `data_table`: header, rows of text, which columns are numbers, and each row's facets.

    `form` is the format of numbers with a fraction. A row is hidden while the filters exclude what it is about.
    """
    names = table.column_names
    rows = [
        {
            "cells": [_cell(name, value, form) for name, value in zip(names, row, strict=True)],
            "facets": _facets(dict(zip(names, row, strict=True))),
        }
        for row in plain_rows(table)
    ]
    numeric = [pa.types.is_primitive(f.type) and not pa.types.is_boolean(f.type) and f.name != "share" for f in table.schema]
    return {"caption": caption, "header": names, "rows": rows, "numeric": numeric}


_TITLES: dict[str, Callable[[str], str]] = {
    "model": paper.model_title,
    "trainable": paper.model_title,
    "domain": paper.domain_title,
    "tested on": paper.domain_title,
    "share": lambda text: ratio(int(text)) if text.isdecimal() else text,
}
"""Columns whose values people read by another name."""

_LEAST_P = 0.001
"""Smaller p-values are told apart by nobody."""

_MINUS = re.compile(r"(?<![\w.])-(?=\d)")


def _cell(name: str, value: Any, form: str) -> str:
    if name.lower().split()[-1:] == ["p"] and isinstance(value, float):
        return f"{value:.3f}" if value >= _LEAST_P else f"< {_LEAST_P}"
    text = _MINUS.sub("−", _text(value, form))
    return _TITLES[name](text) if name in _TITLES else text


def _text(value: Any, form: str) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return ", ".join(_text(item, form) for item in value)
    return f"{value:{form}}" if isinstance(value, float) else str(value)


def _facets(row: Mapping[str, Any]) -> dict[str, str]:
    """Facet to the row's value of it, as the filters write it: the trainable, the percent, the order, the seed."""
    found = {}
    for facet, columns in _FACET_COLUMNS.items():
        value = next((row[name] for name in columns if row.get(name) is not None), None)
        if value is not None:
            found[facet] = _NAMES.get(str(value), str(value))
    return found


_NAMES = {
    **{title: trainable for trainable, title in paper.MODEL_TITLES.items()},
    **{ratio(share): str(share) for share in range(101)},
}
"""What people read, to what the filters write."""
