"""Ask the ledger: `python -m results sql | columns | table | figure | report | verify | export`.

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
    StorageOption,
    emit,
    existing_ledger,
    one_line_errors,
    say_notes,
    store,
    write_file,
)
from results.guard import QueryLimits
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
    timeout: Annotated[float, typer.Option(help="Seconds that the query may take.")] = QueryLimits.seconds,
    memory: Annotated[str, typer.Option(help="Memory that it may take, a share or a size such as 2GiB.")] = QueryLimits.memory,
) -> None:
    """Answer one SQL query over the ledger.

    Example: python -m results sql "SELECT status, count(*) AS trials FROM trials GROUP BY ALL" --format csv
    """
    with one_line_errors():
        ledger = Ledger(storage, limits=QueryLimits(seconds=timeout, memory=memory))
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
    from results.views import columns_table

    with one_line_errors():
        emit(columns_table(table), format_name, None)


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
def export(
    target: Annotated[str, typer.Argument(help="Where to write: a folder, or a URL such as sqlite:///mlflow.db.")],
    to: Annotated[str, typer.Option("--to", help="csv | mlflow | optuna | tensorboard | wandb")],
    storage: StorageOption = DEFAULT_STORAGE,
    sweep: Annotated[str | None, typer.Option("--sweep", help="Id of a grid or a search; without one, the newest.")] = None,
) -> None:
    """Write a sweep for another tool, each trial a run; exporting again brings it up to date.

    Example: python -m results export --to mlflow sqlite:///mlflow.db
    """
    with one_line_errors():
        from results.exports import TARGETS, export_sweep

        done = export_sweep(existing_ledger(storage), to, target, sweep)
        unchanged = f", {done.num_unchanged} were there already" if done.num_unchanged else ""
        left_out = f", {done.num_left_out} that never started left out" if done.num_left_out else ""
        look = TARGETS[to].look.format(target=target, sweep=done.sweep.sweep_id)
        say_notes([f"{done.sweep.described}: {done.num_written} written{unchanged}{left_out}; look at it with: {look}"])


if __name__ == "__main__":
    app(prog_name="python -m results")
