"""Names that do not exist, in one line: what was given, the nearest, and all that there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from results.errors import QueryError

__all__ = ["nearest_of", "no_sweep", "one_of", "sweeps_line"]

_LIKENESS = 0.5  # of difflib, from which a name is taken for the one that was meant


def nearest_of(name: str, known: Iterable[str]) -> str:
    """The known name that is most like `name`, in words for a message; empty when none is."""
    close = get_close_matches(name, list(known), n=1, cutoff=_LIKENESS)
    return f", the nearest is {close[0]!r}" if close else ""


def one_of(what: str, name: str, known: Iterable[str]) -> str:
    """The message for a `name` of `what` that is not among the known ones."""
    names = list(known)
    return f"{what} must be one of {', '.join(names)}, got {name!r}{nearest_of(name, names)}"


def no_sweep(kind: str, sweep_id: str, known: Iterable[str]) -> QueryError:
    """The error for a sweep of that kind, `sweep` for any, that the ledger does not have."""
    names = list(known)
    return QueryError(f"no {kind} {sweep_id!r} in the ledger{nearest_of(sweep_id, names)}; it has {', '.join(names) or 'none'}")


def sweeps_line(
    sweep_ids: Sequence[str], num_trials: int, *, examples: int | None = None, kind: str = "", known: Sequence[str] = ()
) -> str:
    """Which sweeps a table is about, the newest first, and that there are others.

    `known` are all of that kind, of which the newest was taken; empty where a sweep was asked for.
    """
    first, *rest = sweep_ids
    lent = f", with models that it lacks from {' and '.join(rest)}" if rest else ""
    size = f"{num_trials:,} trial{'s' if num_trials != 1 else ''}" + (f", {examples:,} training examples" if examples else "")
    other = next((sweep_id for sweep_id in known if sweep_id != first), "")
    choice = f"; the newest of {len(known)} {kind}, --sweep {other} for another" if other else ""
    return f"{first}{lent}: {size}{choice}"
