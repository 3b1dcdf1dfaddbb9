"""The report's first section: the question, the answer in three lines, how the trials stand, what is missing."""

from __future__ import annotations

import statistics
from typing import Any

from results import comparisons, paper
from results.grid import Grid, ratio
from results.report_frame import Section, Subject

__all__ = ["answer_lines", "question", "summary_section"]

_MOST_MISSING = 12


def summary_section(subject: Subject) -> Section:
    """Always there: also a ledger without any trial has a question."""
    counts = subject.ledger.sql("""
        SELECT status, count(*) AS trials, coalesce(sum(gpu_seconds), 0) / 3600 AS gpu_hours,
               coalesce(sum(cpu_seconds), 0) / 3600 AS cpu_hours, coalesce(sum(attempts), 0)::BIGINT AS attempts
        FROM trials GROUP BY status ORDER BY status
    """).to_pylist()
    [num_sweeps] = subject.ledger.sql("SELECT count(DISTINCT sweep_id) FROM plans").column(0).to_pylist()
    missing = subject.grid.missing()
    values = {
        "question": question(subject.grid),
        "answers": [*_best(subject), *answer_lines(subject.grid.plain)],
        "counts": {row["status"]: row["trials"] for row in counts},
        "cards": _cards(counts, ", all sweeps" if num_sweeps > 1 else ""),
        "missing": missing[:_MOST_MISSING],
        "num_more_missing": max(0, len(missing) - _MOST_MISSING),
        "skipped": dict(subject.ledger.skipped),
    }
    return Section(name="summary", title="Question and answer", values=values)


def question(grid: Grid) -> str:
    """What the sweep asks."""
    domains = " and ".join(paper.domain_title(domain) for domain in grid.mixed)
    if not grid.trials:
        return "Which settings answer questions best?"
    across = f"across {domains}" if domains else "on the test set"
    if grid.has_points:
        return f"Which of {len(grid.trainables)} models answers best {across}, trained on the same mixture?"
    if grid.contender is None:
        return f"How does {paper.model_title(grid.trainables[0])} do {across}, by the mixture that it was trained on?"
    names = f"{paper.model_title(grid.contender)} answer better than {paper.model_title(grid.trainables[0])}"
    return f"Does {names} {across}, and what do the mixture and the order of its training data do?"


def answer_lines(grid: Grid) -> list[str]:
    """The answer in up to three lines: the models, the mixture, the order; each against the noise floor."""
    if not any(trial.em for trial in grid.trials):
        return ["No trial has test scores yet."]
    floor = comparisons.noise_floor(grid)
    lines = [_models(grid, floor), _mixture(grid), _order(grid, floor)]
    return [line for line in lines if line]


def _best(subject: Subject) -> list[str]:
    """Of the points of search spaces and the models beside them the best one, and the baseline."""
    if not subject.grid.has_points:
        return []
    ranked = subject.ranking[0].to_pylist()
    if not ranked:
        return []
    best, baseline = ranked[0], next((row for row in ranked if row["trainable"] == paper.BASELINE), None)
    line = f"Best of {len(ranked)}: {paper.model_title(best['trainable'])} with {best['em']:.1f} % EM, the mean of the domains"
    beside = "" if baseline is None or baseline is best else f"; {paper.model_title(paper.BASELINE)} has {baseline['em']:.1f} %"
    equal = sum(row["em"] == best["em"] for row in ranked) - 1
    tied = f", as have {equal} more" if equal else ""
    return [f"{line}{tied}{beside}. Intervals are under Models ranked."]


def _models(grid: Grid, floor: comparisons.NoiseFloor) -> str:
    pairs = [
        cell.mean
        for difference in comparisons.trainable_differences(grid)
        if difference.trainable == grid.contender
        for cell in difference.points.values()
    ]
    if not pairs or grid.contender is None:
        return ""
    names = f"{paper.model_title(grid.contender)} minus {paper.model_title(grid.trainables[0])}"
    return f"{names}: {_spread(pairs)} over {_cells(len(pairs), 'order, mixture and domain')}. {_beyond(pairs, floor)}"


def _mixture(grid: Grid) -> str:
    """How each domain's EM goes from its least to its largest share."""
    parts = []
    for domain in grid.mixed:
        first, last = (_over_all(grid, domain, share) for share in (grid.shares[0], grid.shares[-1]))
        if len(grid.shares) > 1 and first is not None and last is not None:
            parts.append(f"{paper.domain_title(domain)} from {first:.1f} to {last:.1f} % EM")
    if not parts:
        return ""
    return (
        f"From {ratio(grid.shares[0])} to {ratio(grid.shares[-1])} the mixture takes {', '.join(parts)} (mean of all models)."
    )


def _order(grid: Grid, floor: comparisons.NoiseFloor) -> str:
    pairs = [cell.mean for difference in comparisons.order_differences(grid) for cell in difference.points.values()]
    if not pairs:
        return ""
    of = _cells(len(pairs), "model, mixture and domain")
    return f"Shuffled minus concatenated: {_spread(pairs)} over {of}. {_beyond(pairs, floor)}"


def _over_all(grid: Grid, domain: str, share: int) -> float | None:
    values = [t.em[domain] for t in grid.trials if t.share == share and domain in t.em]
    return statistics.fmean(values) if values else None


def _cells(count: int, what: str) -> str:
    return f"{count} pairs of equal {what}" if count != 1 else f"one pair of equal {what}"


def _spread(pairs: list[float]) -> str:
    mean, low, high = statistics.fmean(pairs), min(pairs), max(pairs)
    return f"{mean:+z.1f} EM points on average ({low:+z.1f} to {high:+z.1f})".replace("-", "−")


def _beyond(pairs: list[float], floor: comparisons.NoiseFloor) -> str:
    if floor.max is None:
        return "The noise floor is unknown, so how much of this is chance is too."
    up, down = sum(pair > floor.max for pair in pairs), sum(pair < -floor.max for pair in pairs)
    if not up + down:
        return f"None is beyond the noise floor of {floor.max:.1f} points."
    return f"{up} above and {down} below the noise floor of ±{floor.max:.1f} points, {len(pairs) - up - down} within it."


def _cards(counts: list[dict[str, Any]], of: str) -> list[tuple[str, str]]:
    """(number, what it counts, and of what): trials by status, hours, attempts."""
    hours = {name: sum(row[name] for row in counts) for name in ("gpu_hours", "cpu_hours")}
    cards = [(f"{row['trials']:,}", row["status"]) for row in counts] or [("0", "trials")]
    cards += [(f"{hours['gpu_hours']:,.2f}", "GPU hours")] if hours["gpu_hours"] else []
    cards += [(f"{hours['cpu_hours']:,.2f}", "CPU hours"), (f"{sum(row['attempts'] for row in counts):,}", "attempts")]
    return [(number, f"{what}{of}") for number, what in cards]
