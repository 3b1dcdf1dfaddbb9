"""The Parquet ledger: its schema, writing and reading, SQL, tables and figures. Knows neither torch nor Ray nor Optuna.

    from results import Ledger

    ledger = Ledger("./sweeps-data")            # in a notebook: its tables and how many rows they have
    ledger.columns("trials")                    # what each column holds, with its unit
    ledger.sql("SELECT trainable, avg(train_seconds) FROM trials GROUP BY ALL").to_pandas()

Everything named here is imported when it is first used, so that `import results` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from results.errors import LedgerError, LedgerWarning
    from results.exports import export_sweep
    from results.figures import draw_figure
    from results.grid import load_grid
    from results.guard import QueryLimits
    from results.ledger import Ledger
    from results.report import render_report
    from results.search import load_search
    from results.verify import verify as verify_ledger

__all__ = [
    "Ledger",
    "LedgerError",
    "LedgerWarning",
    "QueryLimits",
    "draw_figure",
    "export_sweep",
    "load_grid",
    "load_search",
    "render_report",
    "verify_ledger",
]

_HOMES = {
    "Ledger": ("results.ledger", "Ledger"),
    "LedgerError": ("results.errors", "LedgerError"),
    "LedgerWarning": ("results.errors", "LedgerWarning"),
    "QueryLimits": ("results.guard", "QueryLimits"),
    "draw_figure": ("results.figures", "draw_figure"),
    "export_sweep": ("results.exports", "export_sweep"),
    "load_grid": ("results.grid", "load_grid"),
    "load_search": ("results.search", "load_search"),
    "render_report": ("results.report", "render_report"),
    # `results.verify` is the module, and importing it makes that name its own.
    "verify_ledger": ("results.verify", "verify"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'results' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
