"""Every figure by name, and what it is drawn from: a grid or a search."""

from __future__ import annotations

from collections.abc import Callable

from results.charts import Chart
from results.curve_figures import fig4, fig5, intermediate, rungs
from results.efficiency import load_efficiency
from results.efficiency_figures import efficiency, parameters
from results.grid import load_grid
from results.grid_figures import fig2, fig3, fig6
from results.ledger import Ledger
from results.naming import one_of
from results.ranking_figure import ranking
from results.routing import load_routing
from results.routing_figures import divergence, expert_loads, specialisation
from results.search import Search, load_search
from results.search_figures import contour, history, importance, parallel, slices
from results.spending import load_spendings
from results.spending_figure import spending
from results.sweep_trials import load_sweep_trials

__all__ = ["FIGURES", "GRID_FIGURES", "LEDGER_FIGURES", "SEARCH_FIGURES", "draw_figure"]

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
LEDGER_FIGURES: dict[str, Callable[[Ledger, str | None], Chart]] = {
    "ranking": lambda ledger, sweep_id: ranking(load_grid(ledger, sweep_id), ledger),
    "routing": lambda ledger, sweep_id: expert_loads(load_routing(ledger, sweep_id)),
    "divergence": lambda ledger, sweep_id: divergence(load_routing(ledger, sweep_id)),
    "specialisation": lambda ledger, sweep_id: specialisation(load_routing(ledger, sweep_id)),
    "efficiency": lambda ledger, sweep_id: efficiency(load_efficiency(ledger, sweep_id)),
    "parameters": lambda ledger, sweep_id: parameters(load_efficiency(ledger, sweep_id)),
    "spending": lambda ledger, sweep_id: spending(load_spendings(ledger, sweep_id)),
}
"""Of a grid or a search, whichever the sweep is; LedgerError where it has nothing to draw."""

FIGURES = (*GRID_FIGURES, *SEARCH_FIGURES, *LEDGER_FIGURES)


def draw_figure(
    ledger: Ledger, name: str, sweep_id: str | None = None, trial_key: str | None = None
) -> tuple[Chart, list[str]]:
    """The figure of that sweep, without one of the newest grid or search; and what keeps it from being complete, and which
    sweep it is of.

    `trial_key` chooses the trial that `routing` shows, which is else the best.

    Raises:
        ValueError: there is no such figure, or it is not of one trial.
        LedgerError: there is no such sweep, nothing to draw of it, or the figure needs a package that is not installed.
    """
    if trial_key is not None and name != "routing":
        raise ValueError(f"only the figure routing shows one trial, got the trial {trial_key!r} for {name!r}")
    if name in GRID_FIGURES:
        grid = load_grid(ledger, sweep_id)
        return GRID_FIGURES[name](grid, ledger), [*grid.missing(), *grid.described]
    if name in SEARCH_FIGURES:
        search = load_search(ledger, sweep_id)
        return SEARCH_FIGURES[name](search), search.described
    if name not in LEDGER_FIGURES:
        raise ValueError(one_of("figure", name, FIGURES))
    if trial_key is not None:
        chart = expert_loads(load_routing(ledger, sweep_id), trial_key)
    else:
        chart = LEDGER_FIGURES[name](ledger, sweep_id)
    return chart, [] if name == "spending" else load_sweep_trials(ledger, sweep_id).described
