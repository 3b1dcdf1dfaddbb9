"""What a sweep may cost: limits over all its runs, checked while it runs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import SweepError
from results.ledger import Ledger
from results.storage import StorageLike

__all__ = ["Budget", "Spent", "StopAt", "goal_reached", "parse_stop_at", "spent_so_far"]


_SPENT = """
    SELECT coalesce((SELECT sum(wall_seconds) FROM runs WHERE sweep_id = $sweep), 0) / 3600 AS hours,
           coalesce((SELECT sum(gpu_seconds) FROM attempts WHERE sweep_id = $sweep), 0) / 3600 AS gpu_hours,
           (
               SELECT count(*) FROM trials
               WHERE (status IN ('completed', 'failed') OR stop_reason LIKE 'asha%')
                 AND trial_key IN (SELECT trial_key FROM plans WHERE sweep_id = $sweep)
           ) AS trials
"""


@dataclass(frozen=True)
class StopAt:
    """A goal: the sweep is done as soon as one trial's validation reaches it."""

    metric: str  # val_qa_loss, or em_<domain>
    value: float

    def is_reached(self, shown: Mapping[str, Any]) -> bool:
        """True when a report's metrics reach the goal: losses from above, scores from below."""
        measured = shown.get(self.metric)
        if measured is None:
            return False
        return bool(measured <= self.value if self.metric.endswith("loss") else measured >= self.value)


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a sweep's runs have cost."""

    hours: float = 0.0  # wall
    gpu_hours: float = 0.0
    trials: int = 0  # run to their end


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of a sweep, over all its runs; None: no limit."""

    hours: float | None = None
    gpu_hours: float | None = None
    trials: int | None = None
    stop_at: StopAt | None = None

    def reached(self, spent: Spent) -> str | None:
        """Which limit is reached, as a reason to stop; None while there is budget left."""
        if self.hours is not None and spent.hours >= self.hours:
            return f"budget (--max-hours {self.hours:g})"
        if self.gpu_hours is not None and spent.gpu_hours >= self.gpu_hours:
            return f"budget (--max-gpu-hours {self.gpu_hours:g})"
        return None

    @property
    def goal(self) -> str:
        """The reason to stop when a trial reaches `stop_at`."""
        assert self.stop_at is not None
        return f"budget (--stop-at {self.stop_at.metric}={self.stop_at.value:g})"


def parse_stop_at(text: str, domains: Sequence[str]) -> StopAt:
    """`METRIC=VALUE` as a goal.

    Raises:
        SweepError: another form, or a metric that validation does not give.
    """
    known = ["val_qa_loss", *(f"em_{domain}" for domain in domains)]
    name, equals, number = text.partition("=")
    if not equals or not re.fullmatch(r"-?\d+(\.\d*)?(e-?\d+)?", number.strip()):
        raise SweepError(f"--stop-at takes METRIC=NUMBER, for example em_{domains[0]}=70, got {text!r}")
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise SweepError(f"--stop-at: the metric must be one of {', '.join(known)}, got {name!r}{hint}")
    return StopAt(name, float(number))


def goal_reached(storage: StorageLike, goal: StopAt, keys: Iterable[str]) -> bool:
    """True when one of the trials has reached the goal in an earlier run."""
    ledger, wanted = Ledger(storage, must_exist=False), set(keys)
    if goal.metric.startswith("em_"):
        query = "SELECT trial_key, em AS value FROM evaluations WHERE split = 'val' AND domain = $domain"
        rows = ledger.sql(query, {"domain": goal.metric.removeprefix("em_")})
    else:
        rows = ledger.sql("SELECT trial_key, val_qa_loss AS value FROM reports WHERE val_qa_loss IS NOT NULL")
    return any(goal.is_reached({goal.metric: row["value"]}) for row in rows.to_pylist() if row["trial_key"] in wanted)


def spent_so_far(storage: StorageLike, sweep_id: str) -> Spent:
    """What the sweep's earlier runs have cost, as the ledger says."""
    [row] = Ledger(storage, must_exist=False).sql(_SPENT, {"sweep": sweep_id}).to_pylist()
    return Spent(**row)
