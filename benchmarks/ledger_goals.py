"""The goals, and how far what was found is from them."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

__all__ = ["goals"]

_APPEND_MS = 5.0
_WARM_SECONDS = 0.5
_TIMES = 10.0
"""Smaller than CSV, faster than the peers."""


def goals(found: dict[str, Any]) -> Iterator[str]:
    """One line a goal: whether it is met, and the figures."""
    ours = {size["rows"]: size for size in found["sizes"] if size["contender"] == "ledger"}
    yield from _append_goals([told for told in found["appends"] if told["contender"] == "ledger" and told["per_second"]])
    if ours:
        yield _warm_goal(ours[max(ours)])
    last: dict[str, dict[str, Any]] = {size["contender"]: size for size in found["sizes"] if size["contender"] != "ledger"}
    for name, size in last.items():
        if name == "Ray CSV":
            times = size["bytes"] / ours[size["rows"]]["bytes"]
            yield f"{_met(times >= _TIMES)} a tenth of the bytes of {name}, {size['rows']:,} report rows: 1 to {times:.1f}"
    for name, size in last.items():
        yield from _speed_goal(name, size, ours[size["rows"]])


def _append_goals(appends: list[dict[str, Any]]) -> Iterator[str]:
    by_writers: dict[int, dict[str, float]] = {}
    for told in appends:
        by_writers.setdefault(told["writers"], {})[told["store"]] = told["median_ms"]
    for writers, medians in sorted(by_writers.items()):
        shown = ", ".join(f"{store} {value:.1f} ms" for store, value in medians.items())
        worst = max(medians.values())
        yield f"{_met(worst <= _APPEND_MS)} an append of {writers} writers takes {_APPEND_MS:g} ms, median: {shown}"


def _warm_goal(size: dict[str, Any]) -> str:
    warm = {name: told["warm_seconds"] for name, told in size["questions"].items() if "failed" not in told}
    slow = {name: seconds for name, seconds in warm.items() if seconds > _WARM_SECONDS}
    missing = len(size["questions"]) - len(warm)
    shown = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in slow.items()) or f"slowest {max(warm.values()):.2f} s"
    verdict = _met(not slow and not missing)
    return f"{verdict} each question within {_WARM_SECONDS:g} s, warm, at {size['rows']:,} report rows: {shown}"


def _speed_goal(name: str, peer: dict[str, Any], ours: dict[str, Any]) -> Iterator[str]:
    for what in ("warm_seconds", "cold_seconds"):
        ratios = [
            told[what] / ours["questions"][question][what]
            for question, told in peer["questions"].items()
            if "failed" not in told and "failed" not in ours["questions"][question]
        ]
        if ratios:
            reached = sum(ratio >= _TIMES for ratio in ratios)
            yield (
                f"{_met(reached == len(ratios))} ten times as fast as {name}, {what.partition('_')[0]}, at {peer['rows']:,} "
                f"report rows: {reached} of {len(ratios)} questions; median {median(ratios):.2g} times, "
                f"from {min(ratios):.2g} to {max(ratios):.2g}"
            )


def _met(is_met: bool) -> str:
    return "met:" if is_met else "NOT met:"
