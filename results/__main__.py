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
    StorageOption,
    check_file,
    emit,
    one_line_errors,
    put,
    say_notes,
    store,
    write_file,
)
from results.guard import QueryLimits
from results.ledger import Ledger
from results.storage import Storage, open_storage
from results.table_commands import tables

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help=(__doc__ or "").split("\n")[0])
app.add_typer(tables, name="table")

_FIGURES = (
    "Of a grid: fig2 | fig3 | fig6. "
    "Of a search: fig4 | fig5 | history | intermediate | rungs | importance | parallel | slice | contour. "
    "Of either: ranking | routing | divergence | specialisation | efficiency | parameters | spending."
)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One reading statement; `columns` lists what it can use.")],
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = None,
    output: OutputOption = None,
    timeout: Annotated[float, typer.Option(help="Seconds that the query may take.")] = QueryLimits.seconds,
    memory: Annotated[str, typer.Option(help="Memory that it may take, a share or a size such as 2GiB.")] = QueryLimits.memory,
) -> None:
    """Answer one SQL query over the ledger.

    Example: python -m results sql "SELECT status, count(*) AS trials FROM trials GROUP BY ALL" --format csv
    """
    with one_line_errors():
        ledger = Ledger(storage, limits=QueryLimits(seconds=timeout, memory=memory))
        emit(ledger.sql(query), format_name, output)


@app.command()
def columns(
    table: Annotated[str | None, typer.Argument(help="A table; without one, all.")] = None,
    format_name: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """List the tables' columns with type and meaning, which names the unit.

    Example: python -m results columns trials
    """
    from results.views import columns_table

    with one_line_errors():
        emit(columns_table(table), format_name, output)


@app.command()
def figure(
    name: Annotated[str, typer.Argument(help=_FIGURES)],
    storage: StorageOption = DEFAULT_STORAGE,
    output: Annotated[Path | None, typer.Option("--output", "--out", "-o", help="FILE.html, .png, .svg or .pdf.")] = None,
    sweep: Annotated[
        str | None, typer.Option("--sweep", help="Sweep id; without one, the newest grid or search, as the figure needs.")
    ] = None,
    trial: Annotated[str | None, typer.Option(help="For routing: key of the trial; without one, the best.")] = None,
) -> None:
    """Draw a figure from the ledger: of the paper, of a search, of routing, of costs; prints the files written.

    Without --output: STORAGE/report/NAME.html and .png, with --sweep in a folder of its id.
    Example: python -m results figure fig6 --output fig6.pdf
    """
    with one_line_errors():
        ledger = Ledger(storage)
        from results.charts import encode_chart
        from results.figures import draw_figure

        if output is not None:
            check_file(output)
        chart, missing = draw_figure(ledger, name, sweep, trial)
        if output is not None:
            write_file(output, encode_chart(chart, output.suffix.removeprefix(".").lower()))
        else:
            folder = "report" if sweep is None else f"report/{sweep}"
            for suffix in ("html", "png"):
                store(ledger, f"{folder}/{name}.{suffix}", encode_chart(chart, suffix))
        say_notes(missing)


@app.command()
def report(
    storage: StorageOption = DEFAULT_STORAGE,
    output: Annotated[
        Path | None,
        typer.Option("--output", "--out", "-o", help="FILE.html, or a folder for index.html; else STORAGE/report."),
    ] = None,
    sweep: Annotated[
        str | None, typer.Option("--sweep", help="Id of a grid or a search; without one, the newest of both.")
    ] = None,
    watching: Annotated[
        bool, typer.Option("--watch", help="Write it again while a sweep runs; the page in the browser follows.")
    ] = False,
    every: Annotated[float, typer.Option("--every", min=1, help="Seconds between two versions with --watch.")] = 5,
) -> None:
    """Write the report, one self-contained HTML file; prints its path.

    Example: python -m results report --output ./report.html
    """
    with one_line_errors():
        ledger = Ledger(storage)
        from results.report import render_report
        from results.report_watch import watch

        place, path = _report_file(ledger, output)

        def write(reload_seconds: float | None) -> None:
            now = datetime.now(UTC)
            page = render_report(ledger, generated_at=now, sweep_id=sweep, reload_seconds=reload_seconds)
            put(place, path, page.encode())

        if watching:
            say_notes([f"writing {path} every {every:g} s until no driver runs a sweep; Ctrl-C ends it"])
            watch(ledger, write, every)
        else:
            write(None)
        typer.echo(path)


def _report_file(ledger: Ledger, output: Path | None) -> tuple[Storage, str]:
    """Where the page goes."""
    if output is None:
        return ledger.storage, ledger.storage.path("report/index.html")
    if output.suffix in (".html", ".htm"):
        check_file(output)
        place = open_storage(output)
        return place, place.root
    if output.suffix and not output.is_dir():
        raise ValueError(f"a report is an HTML file: --output must end with .html or be a folder, got {output}")
    place = open_storage(output)
    return place, place.path("index.html")


@app.command()
def verify(
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = None,
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
        ledger, now = Ledger(storage), datetime.now(UTC)
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
    format_name: FormatOption = None,
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
    target: Annotated[str, typer.Argument(help="Where to write: a folder, or a URL such as sqlite:///mlflow.db.")] = "",
    to: Annotated[str, typer.Option("--to", help="csv | mlflow | optuna | tensorboard | wandb")] = "",
    storage: StorageOption = DEFAULT_STORAGE,
    sweep: Annotated[str | None, typer.Option("--sweep", help="Id of a grid or a search; without one, the newest.")] = None,
) -> None:
    """Write a sweep for another tool, each trial a run; exporting again brings it up to date.

    Example: python -m results export --to mlflow sqlite:///mlflow.db
    """
    with one_line_errors():
        from results.exports import TARGETS, export_sweep

        done = export_sweep(Ledger(storage), to, target, sweep)
        unchanged = f", {done.num_unchanged} were there already" if done.num_unchanged else ""
        left_out = f", {done.num_left_out} that never started left out" if done.num_left_out else ""
        look = TARGETS[to].look.format(target=target, sweep=done.sweep.sweep_id)
        say_notes([f"{done.sweep.described}: {done.num_written} written{unchanged}{left_out}; look at it with: {look}"])


if __name__ == "__main__":
    app(prog_name="python -m results")
