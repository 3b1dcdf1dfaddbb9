"""What the commands of `python -m results` have in common: options, one-line errors, output."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from results.errors import LedgerError, LedgerWarning
from results.formats import FORMATS, SUFFIXES, encode, to_rich_text
from results.ledger import Ledger
from results.storage import open_storage

if TYPE_CHECKING:
    import pyarrow as pa

    from results.storage import Storage

__all__ = [
    "DEFAULT_STORAGE",
    "EitherOption",
    "FormatOption",
    "OutputOption",
    "SearchOption",
    "StorageOption",
    "SweepOption",
    "check_file",
    "emit",
    "format_of",
    "one_line_errors",
    "put",
    "say_notes",
    "store",
    "write_file",
]

DEFAULT_STORAGE = "./sweeps-data"

StorageOption = Annotated[
    str, typer.Option(envvar="SWEEPS_STORAGE", help="Local path or URI that holds the ledger.", show_default=True)
]
FormatOption = Annotated[
    str | None,
    typer.Option("--format", help=f"{' | '.join(FORMATS)}; without it, by the suffix of --output, else table."),
]
OutputOption = Annotated[Path | None, typer.Option("--output", "--out", "-o", help="Write to this file instead of stdout.")]
SweepOption = Annotated[str | None, typer.Option("--sweep", help="Sweep id; without one, the newest grid.")]
EitherOption = Annotated[
    str | None, typer.Option("--sweep", help="Sweep id; without one, the newest grid, or the newest search if there is none.")
]
SearchOption = Annotated[str | None, typer.Option("--sweep", help="Sweep id; without one, the newest search.")]


@contextmanager
def one_line_errors() -> Iterator[None]:
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


def format_of(format_name: str | None, output: Path | None) -> str:
    """The format asked for, else the one that the file's name says, else `table`.

    Raises:
        ValueError: the file's name says none that there is.
    """
    if format_name is not None or output is None or not output.suffix:
        return format_name or "table"
    if output.suffix.lower() not in SUFFIXES:
        raise ValueError(f"the output must end with one of {', '.join(SUFFIXES)}, got {output.name}; or add --format")
    return SUFFIXES[output.suffix.lower()]


def emit(table: pa.Table, format_name: str | None, output: Path | None) -> None:
    """Writes a table to stdout or a file: for a terminal as wide as that, else as `format_of` says."""
    format_name = format_of(format_name, output)
    if output is not None:
        write_file(output, encode(table, format_name))
    elif format_name == "table" and sys.stdout.isatty():
        typer.echo(to_rich_text(table, width=shutil.get_terminal_size().columns), nl=False)
    elif format_name == "parquet" and sys.stdout.isatty():
        raise ValueError("parquet is binary and stdout is a terminal; add --output FILE or redirect")
    else:
        sys.stdout.buffer.write(encode(table, format_name))
        sys.stdout.buffer.flush()


def write_file(path: Path, content: bytes) -> None:
    """Writes a file whole and names it on stderr.

    Raises:
        ValueError: it is a folder, or in none that there is.
    """
    check_file(path)
    place = open_storage(path)
    put(place, place.root, content)
    typer.echo(str(path), err=True)


def check_file(path: Path) -> None:
    """Sees to it that a file can be written there, before anything is computed for it.

    Raises:
        ValueError: it is a folder, or in none that there is.
    """
    if path.is_dir():
        raise ValueError(f"the output {path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent} to write {path.name} into; make it, or name another")


def store(ledger: Ledger, relative: str, content: bytes) -> None:
    """Writes a file of the storage and names it on stdout."""
    path = ledger.storage.path(relative)
    put(ledger.storage, path, content)
    typer.echo(path)


def put(place: Storage, path: str, content: bytes) -> None:
    """Writes a file.

    Raises:
        LedgerError: its folder cannot be written.
    """
    try:
        place.write(path, content)
    except OSError as error:
        folder = path.rpartition("/")[0]
        raise LedgerError(f"cannot write into {folder}: {error.strerror or error}; name another place with --output") from error


def say_notes(notes: Sequence[str]) -> None:
    """Talk goes to stderr."""
    for note in notes:
        typer.echo(note, err=True)
