"""`python -m results table NAME`: one command a table."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from results.commands import (
    DEFAULT_STORAGE,
    EitherOption,
    FormatOption,
    OutputOption,
    SearchOption,
    StorageOption,
    SweepOption,
    emit,
    format_of,
    one_line_errors,
    say_notes,
)
from results.formats import DATA_FORMATS
from results.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pyarrow as pa

    from results.grid import Grid

__all__ = ["tables"]

tables = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Tables: grid, ranking, claims, effects, pairs, predictions, search, trials, spending, efficiency, routing, "
    "ensembles, gates, experts.",
)


@tables.command()
def grid(
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = None,
    metric: Annotated[str, typer.Option(help="em | f1, in percent.")] = "em",
    sweep: SweepOption = None,
    output: OutputOption = None,
) -> None:
    """Scores by share of the mixture, differences, noise floor, and the paper's values.

    Example: python -m results table grid --format markdown
    """
    from results.tables import grid_table

    with _grid_of(storage, sweep) as (_, found):
        table = grid_table(found, metric=metric)
        emit(table.to_arrow() if format_of(format_name, output) in DATA_FORMATS else table.to_text(), format_name, output)
        say_notes(table.notes)


@tables.command()
def ranking(
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = None,
    sweep: SweepOption = None,
    output: OutputOption = None,
) -> None:
    """Models by their mean test EM on the mixtures that all were trained on, with intervals, trained parameters and hours.

    Example: python -m results table ranking --format markdown
    """
    from results.ranking import ranking_table, ranking_text

    with _grid_of(storage, sweep) as (ledger, found):
        table, notes = ranking_table(ledger, found)
        emit(table if format_of(format_name, output) in DATA_FORMATS else ranking_text(table), format_name, output)
        say_notes(notes)


@tables.command()
def ensembles(
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = None,
    sweep: SweepOption = None,
    output: OutputOption = None,
) -> None:
    """Gated ensembles and what they are compared with, beside the paper's Tables 1 and 2.

    Example: python -m results table ensembles --format markdown
    """
    from results.ensembles import ensembles_table

    _emit_of_grid(ensembles_table, storage, sweep, format_name, output)


@tables.command()
def gates(
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = None,
    sweep: SweepOption = None,
    output: OutputOption = None,
) -> None:
    """Each ensemble by domain: beside its best expert, and an oracle that always asks the right one.

    Example: python -m results table gates --format csv
    """
    from results.ensembles import gates_table

    _emit_of_grid(gates_table, storage, sweep, format_name, output)


@tables.command()
def experts(
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = None,
    sweep: SweepOption = None,
    output: OutputOption = None,
) -> None:
    """Every example of an ensemble with each expert's weight, start word and answer.

    Example: python -m results table experts --output experts.parquet
    """
    from results.ensembles import expert_answers_table

    _emit_of_grid(expert_answers_table, storage, sweep, format_name, output)


@tables.command()
def claims(
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = None,
    sweep: SweepOption = None,
    output: OutputOption = None,
) -> None:
    """The paper's claims beside ours: both readings of a percentage, intervals, p, verdict.

    Claims on settings are checked on the newest search of ExBERT. Example: python -m results table claims --format latex
    """
    from results.claims import claims_table, claims_text, exbert_search

    with _grid_of(storage, sweep) as (ledger, found):
        table, notes = claims_table(ledger, found, exbert_search(ledger))
        emit(table if format_of(format_name, output) in DATA_FORMATS else claims_text(table), format_name, output)
        say_notes(notes)


@tables.command()
def effects(
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = None,
    metric: Annotated[str, typer.Option(help="em | f1, in percent.")] = "em",
    sweep: SweepOption = None,
    output: OutputOption = None,
) -> None:
    """Main effects and interactions of trainable, share and order on the test scores (analysis of variance).

    Example: python -m results table effects --metric f1
    """
    from results.effects import effects_table, effects_text

    with _grid_of(storage, sweep) as (_, found):
        table, notes = effects_table(found, metric=metric)
        emit(table if format_of(format_name, output) in DATA_FORMATS else effects_text(table), format_name, output)
        say_notes(notes)


@tables.command()
def pairs(
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = None,
    sweep: SweepOption = None,
    output: OutputOption = None,
) -> None:
    """Models and orders compared example by example: difference, interval, McNemar, p, Holm's p.

    Example: python -m results table pairs --format csv
    """
    from results.pairs import pairs_table, pairs_text

    with _grid_of(storage, sweep) as (ledger, found):
        table, notes = pairs_table(ledger, found)
        emit(table if format_of(format_name, output) in DATA_FORMATS else pairs_text(table), format_name, output)
        say_notes(notes)


@tables.command()
def predictions(
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = None,
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

    with _grid_of(storage, sweep) as (ledger, found):
        answers = predictions_table(ledger, found, limit=limit, domain=domain, share=share)
        emit(answers.rows, format_name, output)
        say_notes(answers.notes)


@tables.command()
def search(
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = None,
    sweep: SearchOption = None,
    output: OutputOption = None,
) -> None:
    """The trials of a search, best first, with their settings; what stopping trials early saved.

    Example: python -m results table search --format csv
    """
    from results.search import load_search
    from results.search_tables import search_summary, search_table

    with one_line_errors():
        found = load_search(Ledger(storage), sweep)
        emit(search_table(found), format_name, output)
        say_notes([search_summary(found), *found.described])


@tables.command()
def trials(
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = None,
    sweep: Annotated[str | None, typer.Option("--sweep", help="Sweep id; without one, all trials.")] = None,
    output: OutputOption = None,
) -> None:
    """One row per trial: what it is, how it stands, test EM per domain, seconds.

    Example: python -m results table trials --format csv
    """
    from results.tables import trials_table

    with one_line_errors():
        emit(trials_table(Ledger(storage), sweep), format_name, output)


@tables.command()
def spending(
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = None,
    by: Annotated[str, typer.Option(help="sweep | trial; only sweeps show idle time.")] = "sweep",
    sweep: Annotated[str | None, typer.Option("--sweep", help="Sweep id; without one, all sweeps.")] = None,
    output: OutputOption = None,
) -> None:
    """What the slots' seconds were spent on: start-up, useful, stopped early, failed, lost, idle; and GPU-hours.

    The same by attempt, without idle slots, is the view `spending` of `sql`.
    Example: python -m results table spending --by trial --format csv
    """
    from results.spending import spending_by_trial, spending_table

    with one_line_errors():
        if by not in ("sweep", "trial"):
            raise ValueError(f"by must be sweep or trial, got {by!r}")
        ledger = Ledger(storage)
        table, notes = spending_table(ledger, sweep) if by == "sweep" else (spending_by_trial(ledger, sweep), [])
        emit(table, format_name, output)
        say_notes(notes)


@tables.command()
def routing(
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = None,
    sweep: EitherOption = None,
    output: OutputOption = None,
) -> None:
    """How each trial's expert layers spread the tokens of each domain at its end: balance, drops, divergence of the domains.

    Example: python -m results table routing --format csv
    """
    from results.routing import routing_table

    with one_line_errors():
        table, notes = routing_table(Ledger(storage), sweep)
        emit(table, format_name, output)
        say_notes(notes)


@tables.command()
def efficiency(
    storage: StorageOption = DEFAULT_STORAGE,
    format_name: FormatOption = None,
    by: Annotated[str, typer.Option(help="trial | model.")] = "trial",
    price: Annotated[
        float | None, typer.Option(help="Of one GPU-hour, or one slot-hour where no GPUs were held; in any currency.")
    ] = None,
    sweep: EitherOption = None,
    output: OutputOption = None,
) -> None:
    """What scores cost, the cheapest first: hours of each trial or model, the Pareto set, hours or money per point.

    Useful hours are those that a result rests on.
    Example: python -m results table efficiency --by model --price 2.5
    """
    from results.efficiency import efficiency_table, efficiency_text

    with one_line_errors():
        table, notes = efficiency_table(Ledger(storage), sweep, price, by=by)
        emit(table if format_of(format_name, output) in DATA_FORMATS else efficiency_text(table), format_name, output)
        say_notes(notes)


def _emit_of_grid(
    build: Callable[[Ledger, Grid], tuple[pa.Table, list[str]]],
    storage: str,
    sweep: str | None,
    format_name: str | None,
    output: Path | None,
) -> None:
    with _grid_of(storage, sweep) as (ledger, found):
        table, notes = build(ledger, found)
        emit(table, format_name, output)
        say_notes(notes)


@contextmanager
def _grid_of(storage: str, sweep: str | None) -> Iterator[tuple[Ledger, Grid]]:
    """The ledger and the grid that a table is about; which one it was is said at the end."""
    from results.grid import load_grid

    with one_line_errors():
        ledger = Ledger(storage)
        found = load_grid(ledger, sweep)
        yield ledger, found
        say_notes(found.described)
