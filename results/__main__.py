"""Ask the ledger: `python -m results sql | columns | table | figure | report | verify | compact | export`.

Data goes to stdout, talk to stderr. Exit 0: answered; 1: `verify` found something; 2: the question or the storage is at
fault (one line says how).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from results.commands import (
    DEFAULT_STORAGE,
    FormatOption,
    OutputOption,
    SearchOption,
    StorageOption,
    emit,
    existing_ledger,
    one_line_errors,
    say_notes,
    store,
    write_file,
)
from results.ledger import Ledger
from results.parts import open_storage
from results.table_commands import tables

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help=(__doc__ or "").split("\n")[0])
app.add_typer(tables, name="table")

_FIGURES = (
    "Of a grid: fig3 | fig6. "
    "Of a search: fig4 | fig5 | history | intermediate | rungs | importance | parallel | slice | contour."
)


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
    with one_line_errors():
        ledger = Ledger(storage)
        if ledger.tables_read(query):
            ledger.require()
        emit(ledger.sql(query), format_name, output)


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

    with one_line_errors():
        if table is not None and table not in COLUMNS:
            raise ValueError(f"table must be one of {', '.join(COLUMNS)}, got {table!r}")
        chosen = [table] if table else list(COLUMNS)
        rows = [(name, c.name, str(c.type), c.about) for name in chosen for c in COLUMNS[name]]
        names = ("table", "column", "type", "meaning")
        emit(pa.table([list(values) for values in zip(*rows, strict=True)], names=names), format_name, None)


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
    with one_line_errors():
        ledger = existing_ledger(storage)
        from results.charts import encode_chart
        from results.figures import draw_figure

        chart, missing = draw_figure(ledger, name, sweep)
        if output is not None:
            write_file(output, encode_chart(chart, output.suffix.removeprefix(".").lower()))
        else:
            for suffix in ("html", "png"):
                store(ledger, f"report/{name}.{suffix}", encode_chart(chart, suffix))
        say_notes(missing)


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
    with one_line_errors():
        ledger = existing_ledger(storage)
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
        say_notes(notes)


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

    with one_line_errors():
        ledger, now = existing_ledger(storage), datetime.now(UTC)
        # No writer is at work during a repair, so that every temporary file is one left behind.
        found = verify_storage(ledger, now, timedelta(0) if repair else ABANDONED_AFTER)
        moved = put_away(ledger, found.findings, now) if repair else []
        emit(found.to_arrow(), format_name, output)
        say_notes([f"put away: {path}" for path in moved])
        say_notes([f"{found.num_parts} parts read, {len(found.findings)} findings"])
    if found.findings:
        raise typer.Exit(1)


@app.command()
def compact(
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = "table",
    output: OutputOption = None,
) -> None:
    """Merge the ledger's many small parts into few large, sorted files; safe while sweeps run. Prints parts and bytes by table.

    Example: python -m results compact
    """
    from results.compact import compact as compact_ledger

    with one_line_errors():
        done = compact_ledger(storage)
        emit(done.to_arrow(), format_name, output)
        say_notes([f"left as it is, since it cannot be read: {path}: {reason}" for path, reason in sorted(done.left.items())])


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
    with one_line_errors():
        if to != "optuna":
            raise ValueError(f"--to must be optuna, got {to!r}")
        from results.optuna_bridge import export_study
        from results.search import load_search

        found = load_search(existing_ledger(storage), sweep)
        num_trials = export_study(found, target)
        say_notes([f"study {found.sweep_id} with {num_trials} trials written; look at it with: optuna-dashboard {target}"])


if __name__ == "__main__":
    app(prog_name="python -m results")
