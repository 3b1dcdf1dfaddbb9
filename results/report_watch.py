"""A report that is written again while a sweep runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from results.ledger import Ledger

__all__ = ["is_running", "watch"]

_SILENT_AFTER = timedelta(seconds=90)
"""A driver says every few seconds that it goes on; one that has been silent for so long is gone."""


def is_running(ledger: Ledger, now: datetime) -> bool:
    """Whether a driver runs a sweep of this ledger, by the rows of `runs`."""
    newest = ledger.sql("SELECT max(updated_at) AS at FROM runs WHERE finished_at IS NULL").column(0).to_pylist()[0]
    return newest is not None and now - newest < _SILENT_AFTER


def watch(
    ledger: Ledger, write: Callable[[float | None], None], seconds: float, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Writes the page every `seconds` while a driver runs, telling it when to load itself anew; once more when none does.

    `write` is given the seconds until the next version, None for the last one. Ctrl-C ends it, also with a last version.
    """
    try:
        while is_running(ledger, datetime.now(UTC)):
            write(seconds)
            sleep(seconds)
    except KeyboardInterrupt:
        pass
    write(None)
