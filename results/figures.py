"""Every figure by name, and what it is drawn from: a grid or a search."""

from __future__ import annotations

from collections.abc import Callable

from results.charts import Chart
from results.curve_figures import fig4, fig5, intermediate, rungs
from results.grid import load_grid
from results.grid_figures import fig2, fig3, fig6
from results.ledger import Ledger
from results.search import Search, load_search
from results.search_figures import contour, history, importance, parallel, slices

__all__ = ["FIGURES", "GRID_FIGURES", "SEARCH_FIGURES", "draw_figure"]

GRID_FIGURES: dict[str, Callable[..., Chart]] = {"fig2": fig2, "fig3": fig3, "fig6": fig6}
"""Each takes a grid, and the ledger where error bars are to be intervals."""

SEARCH_FIGURES: dict[str, Callable[[Search], Chart]] = {
    "fig4": fig4,
    "fig5": fig5,
    "history": history,
    "intermediate": intermediate,
    "rungs": rungs,
    "importance": importance,
    "parallel": parallel,
    "slice": slices,
    "contour": contour,
}

FIGURES = (*GRID_FIGURES, *SEARCH_FIGURES)


def draw_figure(ledger: Ledger, name: str, sweep_id: str | None = None) -> tuple[Chart, list[str]]:
    """The figure of that sweep, and what keeps it from being complete; without a sweep, of the newest grid or search.

    Raises:
        ValueError: there is no such figure.
        LedgerError: there is no such sweep, or the figure needs a package that is not installed.
    """
    if name in GRID_FIGURES:
        grid = load_grid(ledger, sweep_id)
        return GRID_FIGURES[name](grid, ledger), grid.missing()
    if name in SEARCH_FIGURES:
        return SEARCH_FIGURES[name](load_search(ledger, sweep_id)), []
    raise ValueError(f"figure must be one of {', '.join(FIGURES)}, got {name!r}")
