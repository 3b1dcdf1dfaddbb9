"""A report that is written again while a sweep runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from results.ledger import Ledger

__all__ = ["is_running", "watch"]

_SILENT_AFTER = timedelta(seconds=90)
"""A driver says every few seconds that it goes on; one that has been silent for so long is gone."""


_PAUSE_PER_WORK = 3


def is_running(ledger: Ledger, now: datetime) -> bool:
    """Whether a driver runs a sweep of this ledger, by the rows of `runs`."""
    newest = ledger.sql("SELECT max(updated_at) AS at FROM runs WHERE finished_at IS NULL").column(0).to_pylist()[0]
    return newest is not None and now - newest < _SILENT_AFTER


def watch(
    ledger: Ledger, write: Callable[[float | None], None], seconds: float, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Writes the page every `seconds` while a driver runs, telling it when to load itself anew; once more when none does.

    `write` is given the seconds until the next version, None for the last one. Where writing takes long the pauses are
    longer, so that the sweep keeps its processors. Ctrl-C ends it, also with a last version.
    """
    pause = seconds
    try:
        while is_running(ledger, datetime.now(UTC)):
            began = time.monotonic()
            write(pause)
            pause = max(seconds, _PAUSE_PER_WORK * (time.monotonic() - began))
            sleep(pause)
    except KeyboardInterrupt:
        pass
    write(None)
