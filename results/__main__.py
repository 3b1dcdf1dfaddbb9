"""Ask the ledger: `python -m results sql | columns | table | figure | report | verify | export`.

Data goes to stdout, talk to stderr. Exit 0: answered; 1: `verify` found something; 2: the question or the storage is at
fault (one line says how).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from results.errors import LedgerError, LedgerWarning
from results.formats import FORMATS, encode, to_rich_text
from results.ledger import Ledger
from results.parts import open_storage

if TYPE_CHECKING:
    import pyarrow as pa

    from results.grid import Grid

__all__ = ["app"]

DEFAULT_STORAGE = "./sweeps-data"

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help=(__doc__ or "").split("\n")[0])
tables = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Tables: the grid, predictions, a search, spending, trials."
)
app.add_typer(tables, name="table")

StorageOption = Annotated[
    str, typer.Option(envvar="SWEEPS_STORAGE", help="Local path or URI that holds the ledger.", show_default=True)
]
FormatOption = Annotated[str, typer.Option("--format", help=" | ".join(FORMATS))]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file instead of stdout.")]
SweepOption = Annotated[str | None, typer.Option("--sweep", help="Sweep id; without one, the newest grid.")]
_FIGURES = (
    "Of a grid: fig3 | fig6. "
    "Of a search: fig4 | fig5 | history | intermediate | rungs | importance | parallel | slice | contour."
)
SearchOption = Annotated[str | None, typer.Option("--sweep", help="Sweep id; without one, the newest search.")]


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One reading statement; `columns` lists what it can use.")],
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = "table",
    output: OutputOption = None,
) -> None:
    """Answer one SQL query over the ledger.

    Example: python -m results sql "SELECT status, count(*) AS trials FROM trials GROUP BY ALL" --format csv
    """
    with _one_line_errors():
        ledger = Ledger(storage)
        if ledger.tables_read(query):
            ledger.require()
        _emit(ledger.sql(query), format_name, output)


@app.command()
def columns(
    table: Annotated[str | None, typer.Argument(help="A table; without one, all.")] = None,
    format_name: FormatOption = "table",
) -> None:
    """List the tables' columns with type, meaning and unit.

    Example: python -m results columns trials
    """
    import pyarrow as pa

    from results.views import COLUMNS

    with _one_line_errors():
        if table is not None and table not in COLUMNS:
            raise ValueError(f"table must be one of {', '.join(COLUMNS)}, got {table!r}")
        chosen = [table] if table else list(COLUMNS)
        rows = [(name, c.name, str(c.type), c.about) for name in chosen for c in COLUMNS[name]]
        names = ("table", "column", "type", "meaning")
        _emit(pa.table([list(values) for values in zip(*rows, strict=True)], names=names), format_name, None)


@tables.command()
def grid(
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = "table",
    metric: Annotated[str, typer.Option(help="em | f1, in percent.")] = "em",
    sweep: SweepOption = None,
    output: OutputOption = None,
) -> None:
    """Scores by share of the mixture, differences, noise floor, and the paper's values.

    Example: python -m results table grid --format markdown
    """
    from results.tables import grid_table

    with _one_line_errors():
        table = grid_table(_load_grid(_existing(storage), sweep), metric=metric)
        _emit(table.to_arrow() if format_name in ("csv", "json", "parquet") else table.to_text(), format_name, output)
        _say(table.notes)


@tables.command()
def predictions(
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = "table",
    limit: Annotated[int, typer.Option(min=1, help="Most rows, evenly over the domains.")] = 8,
    domain: Annotated[str | None, typer.Option(help="Only this domain.")] = None,
    share: Annotated[int, typer.Option(min=0, max=100, help="Percent of the first domain; the nearest is taken.")] = 80,
    sweep: SweepOption = None,
    output: OutputOption = None,
) -> None:
    """Questions, true answers and what two models answered (the paper's Table 1).

    Example: python -m results table predictions --limit 20 --domain bioasq
    """
    from results.predictions import predictions_table

    with _one_line_errors():
        ledger = _existing(storage)
        found = predictions_table(ledger, _load_grid(ledger, sweep), limit=limit, domain=domain, share=share)
        _emit(found.rows, format_name, output)
        _say(found.notes)


@tables.command()
def search(
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = "table",
    sweep: SearchOption = None,
    output: OutputOption = None,
) -> None:
    """The trials of a search, best first, with their settings; what stopping trials early saved.

    Example: python -m results table search --format csv
    """
    from results.search import load_search
    from results.search_tables import search_summary, search_table

    with _one_line_errors():
        found = load_search(_existing(storage), sweep)
        _emit(search_table(found), format_name, output)
        _say([search_summary(found)])


@tables.command()
def trials(
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = "table",
    sweep: Annotated[str | None, typer.Option("--sweep", help="Sweep id; without one, all trials.")] = None,
    output: OutputOption = None,
) -> None:
    """One row per trial: what it is, how it stands, test EM per domain, seconds.

    Example: python -m results table trials --format csv
    """
    from results.tables import trials_table

    with _one_line_errors():
        _emit(trials_table(_existing(storage), sweep), format_name, output)


@tables.command()
def spending(
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = "table",
    by: Annotated[str, typer.Option(help="sweep | trial; only sweeps show idle time.")] = "sweep",
    sweep: Annotated[str | None, typer.Option("--sweep", help="Sweep id; without one, all sweeps.")] = None,
    output: OutputOption = None,
) -> None:
    """What the slots' seconds were spent on: start-up, useful, stopped early, failed, lost, idle; and GPU-hours.

    Example: python -m results table spending --by trial --format csv
    """
    from results.spending import spending_by_trial, spending_table

    with _one_line_errors():
        if by not in ("sweep", "trial"):
            raise ValueError(f"by must be sweep or trial, got {by!r}")
        ledger = _existing(storage)
        table, notes = spending_table(ledger, sweep) if by == "sweep" else (spending_by_trial(ledger, sweep), [])
        _emit(table, format_name, output)
        _say(notes)


@app.command()
def figure(
    name: Annotated[str, typer.Argument(help=_FIGURES)],
    storage: StorageOption = DEFAULT_STORAGE,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="FILE.html, .png, .svg or .pdf.")] = None,
    sweep: Annotated[
        str | None, typer.Option("--sweep", help="Sweep id; without one, the newest grid or search, as the figure needs.")
    ] = None,
) -> None:
    """Draw a figure from the ledger, of the paper or of a search; prints the files written.

    Without --output: STORAGE/report/NAME.html and .png. Example: python -m results figure fig6 --output fig6.pdf
    """
    with _one_line_errors():
        ledger = _existing(storage)
        from results.charts import encode_chart
        from results.figures import draw_figure

        chart, missing = draw_figure(ledger, name, sweep)
        if output is not None:
            _write_file(output, encode_chart(chart, output.suffix.removeprefix(".").lower()))
        else:
            for suffix in ("html", "png"):
                _store(ledger, f"report/{name}.{suffix}", encode_chart(chart, suffix))
        _say(missing)


@app.command()
def report(
    storage: StorageOption = DEFAULT_STORAGE,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder; without one, STORAGE/report.")] = None,
    sweep: Annotated[
        str | None, typer.Option("--sweep", help="Id of a grid or a search; without one, the newest of both.")
    ] = None,
) -> None:
    """Write index.html (self-contained) and its figures as PNG; prints the page's path.

    Example: python -m results report --output ./report
    """
    with _one_line_errors():
        ledger = _existing(storage)
        from results.charts import encode_chart
        from results.report import draw_report, render_report

        page = render_report(ledger, generated_at=datetime.now(UTC), sweep_id=sweep)
        charts, notes = draw_report(ledger, sweep)
        place = ledger.storage if output is None else open_storage(output)
        folder = "report/" if output is None else ""
        for name, chart in charts.items():
            place.write(place.path(f"{folder}{name}.png"), encode_chart(chart, "png"))
        place.write(place.path(f"{folder}index.html"), page.encode())
        typer.echo(place.path(f"{folder}index.html"))
        _say(notes)


@app.command()
def verify(
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = "table",
    repair: Annotated[bool, typer.Option("--repair", help="Put what is wrong away under STORAGE/quarantine.")] = False,
    output: OutputOption = None,
) -> None:
    """Check every part, plan, trial and checkpoint: one finding a line, with what to do. Exit 1 when there are any.

    --repair deletes nothing; a trial whose completion can no longer be shown is run again by its sweep's command.
    Example: python -m results verify --repair
    """
    from results.quarantine import put_away
    from results.verify import ABANDONED_AFTER
    from results.verify import verify as verify_storage

    with _one_line_errors():
        ledger, now = _existing(storage), datetime.now(UTC)
        # No writer is at work during a repair, so that every temporary file is one left behind.
        found = verify_storage(ledger, now, timedelta(0) if repair else ABANDONED_AFTER)
        moved = put_away(ledger, found.findings, now) if repair else []
        _emit(found.to_arrow(), format_name, output)
        _say([f"put away: {path}" for path in moved])
        _say([f"{found.num_parts} parts read, {len(found.findings)} findings"])
    if found.findings:
        raise typer.Exit(1)


@app.command()
def export(
    target: Annotated[str, typer.Argument(help="Where to write, e.g. sqlite:///study.db.")],
    to: Annotated[str, typer.Option("--to", help="optuna")] = "optuna",
    storage: StorageOption = DEFAULT_STORAGE,
    sweep: SearchOption = None,
) -> None:
    """Write a search as an Optuna study, which optuna-dashboard shows.

    Example: python -m results export --to optuna sqlite:///study.db
    """
    with _one_line_errors():
        if to != "optuna":
            raise ValueError(f"--to must be optuna, got {to!r}")
        from results.optuna_bridge import export_study
        from results.search import load_search

        found = load_search(_existing(storage), sweep)
        num_trials = export_study(found, target)
        _say([f"study {found.sweep_id} with {num_trials} trials written; look at it with: optuna-dashboard {target}"])


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """What a user can act on becomes one line on stderr and exit 2; skipped parts become warning lines."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", LedgerWarning)
        warnings.showwarning = lambda message, *_args, **_rest: typer.echo(f"warning: {message}", err=True)
        try:
            yield
        except BrokenPipeError:
            # The reader left early (`| head`); Click ends quietly.
            raise
        except (LedgerError, ValueError, OSError) as error:
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from error


def _existing(storage: str) -> Ledger:
    ledger = Ledger(storage)
    ledger.require()
    return ledger


def _load_grid(ledger: Ledger, sweep: str | None) -> Grid:
    from results.grid import load_grid

    return load_grid(ledger, sweep)


def _emit(table: pa.Table, format_name: str, output: Path | None) -> None:
    if output is not None:
        _write_file(output, encode(table, format_name))
    elif format_name == "table" and sys.stdout.isatty():
        import shutil

        typer.echo(to_rich_text(table, width=shutil.get_terminal_size().columns), nl=False)
    elif format_name == "parquet" and sys.stdout.isatty():
        raise ValueError("parquet is binary and stdout is a terminal; add --output FILE or redirect")
    else:
        sys.stdout.buffer.write(encode(table, format_name))
        sys.stdout.buffer.flush()


def _write_file(path: Path, content: bytes) -> None:
    place = open_storage(path)
    place.write(place.root, content)
    typer.echo(str(path), err=True)


def _store(ledger: Ledger, relative: str, content: bytes) -> None:
    path = ledger.storage.path(relative)
    ledger.storage.write(path, content)
    typer.echo(path)


def _say(notes: list[str] | tuple[str, ...]) -> None:
    for note in notes:
        typer.echo(note, err=True)


if __name__ == "__main__":
    app(prog_name="python -m results")
