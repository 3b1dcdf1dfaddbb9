"""What a claim is judged on and how: the grid's trials with their resampled means, verdicts from intervals.

A published range is read twice, as absolute difference and as relative percent, since the paper's "%" may be either. Ours
has a 95 % interval over groups of test examples. The verdict on one reading:
    does not       the interval lies outside the published range
    within noise   it reaches the range and cannot be told from no difference: the interval holds zero, or the value is no
                   larger than what order-equivalent trials differ by
    holds          it reaches the range and can be told from zero
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from results import paper
from results.comparisons import ROUNDING, NoiseFloor, is_of_two_domains, noise_floor
from results.examples import Examples, load_examples
from results.grid import Grid, GridTrial, ratio
from results.ledger import Ledger
from results.search import Search
from results.single_domain import lent_by, load_single_domain
from results.statistics import Estimate, Reals, estimate
from results.trial_settings import TrialSettings

__all__ = [
    "LEVEL_UNITS",
    "Contrast",
    "Evidence",
    "Finding",
    "Verdict",
    "judge_contrast",
    "judge_inside",
    "judge_range",
    "not_measured",
]

Verdict = Literal["holds", "does not", "within noise", "not measured"]

LEVEL_UNITS = ("EM", "epochs", "% of 0:100", "times 2e-5")
"""Units of what is no difference, and so has no sign."""

_SHUFFLED, _CONCATENATED = "shuffled", "concatenated"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the ledger says on a claim, for one domain or all."""

    tested_on: str
    verdict: Verdict
    ours: str = ""
    unit: str = ""
    """Of `absolute`."""
    absolute: Estimate | None = None
    relative: Estimate | None = None
    """Percent."""
    holds_as: Literal["absolute", "relative", "both", ""] = ""
    rests_on_p: bool = False
    """A claim of a difference: it cannot hold where Holm's p says that there is none."""
    note: str = ""

    @property
    def p(self) -> float | None:
        """Of the difference being none."""
        found = self.absolute or self.relative
        return found.p if found else None


@dataclass(frozen=True)
class Contrast:
    """One quantity against another, on every resample."""

    absolute: Reals
    """(1 + resamples,), the measured value first."""
    base: Reals
    """What `absolute` is relative to, (1 + resamples,)."""
    num_pairs: float
    """Pairs of trials that its noise averages over."""
    cells: tuple[float, ...]
    """The measured difference in each cell."""

    @property
    def relative(self) -> Reals:
        """Percent of the base; not a number where the base is zero."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return 100 * self.absolute / self.base


class Evidence:
    """A grid, and what is measured on it once for all claims."""

    def __init__(self, ledger: Ledger, grid: Grid, search: Search | None) -> None:
        self.ledger, self.grid, self.search = ledger, grid, search

    @cached_property
    def examples(self) -> Examples:
        """Of the grid's trials."""
        return load_examples(self.ledger, self.grid)

    @cached_property
    def settings(self) -> TrialSettings:
        """Of the grid's trials."""
        return TrialSettings(self.ledger, self.grid)

    @cached_property
    def floor(self) -> NoiseFloor:
        """Of the grid, in EM points."""
        return noise_floor(self.grid)

    @cached_property
    def single_domain(self) -> dict[int, Evidence]:
        """By share, 100 and 0: the largest trials on one domain alone."""
        found = load_single_domain(self.ledger, self.grid)
        return {single.share: Evidence(self.ledger, single.grid, None) for single in found}

    @property
    def lenders(self) -> list[str]:
        """A line for each kind of claim that is judged on other sweeps than the grid's."""
        alone = (single.grid for single in self.single_domain.values()) if is_of_two_domains(self.grid) else ()
        lenders = lent_by(alone, self.grid)
        lines = [f"claims on full sets: on the largest trials on one domain alone, {lenders}'s"] if lenders else []
        return lines + ([f"claims on settings: on {self.search.sweep_id}"] if self.search else [])

    @property
    def tuned(self) -> str | None:
        """The tuned ExBERT of the grid."""
        return next((name for name in (paper.TUNED, paper.SEARCHED) if name in self.grid.trainables), None)

    @property
    def domains(self) -> tuple[str, ...]:
        """The two domains of the paper's mixtures, as far as the grid has them."""
        return self.grid.mixed

    def domain(self, index: int) -> str | None:
        """The domain that plays SQuAD's (0) or BioASQ's (1) part."""
        return self.domains[index] if index < len(self.domains) else None

    def trials(self, trainable: str, share: int, order: str | None = None) -> list[GridTrial]:
        """Completed trials of a cell, of one order or of all."""
        return [
            trial
            for trial in self.grid.trials
            if trial.em and (trial.trainable, trial.share) == (trainable, share) and order in (None, trial.order)
        ]

    def model_pairs(self, other: str, shares: Iterable[int]) -> list[tuple[GridTrial, GridTrial]]:
        """(baseline, other) on the same shuffled mixture and seed; the paper compares models on those only (§3.2)."""
        return self._pairs((paper.BASELINE, _SHUFFLED), (other, _SHUFFLED), shares)

    def order_pairs(self, trainable: str, shares: Iterable[int]) -> list[tuple[GridTrial, GridTrial]]:
        """(concatenated, shuffled) of the same trainable, share and seed."""
        return self._pairs((trainable, _CONCATENATED), (trainable, _SHUFFLED), shares)

    def share_pairs(self, trainable: str, shares: tuple[int, int], order: str | None) -> list[tuple[GridTrial, GridTrial]]:
        """(first share, second share) of the same order and seed."""
        base, other = (self.trials(trainable, share, order) for share in shares)
        return [(b, o) for b in base for o in other if (b.order, b.seed) == (o.order, o.seed)]

    def difference(
        self, pairs: Sequence[tuple[GridTrial, GridTrial]], domains: Sequence[str], measure: str = "em"
    ) -> Contrast | None:
        """Mean over pairs and domains of the second trial minus the first; None where no pair left predictions."""
        sides = [
            (base, other)
            for domain in domains
            for pair in pairs
            for base, other in [[self.examples.means(trial, domain, measure) for trial in pair]]
            if base is not None and other is not None
        ]
        if not sides:
            return None
        base, other = (np.mean([side[index] for side in sides], axis=0) for index in (0, 1))
        return Contrast(other - base, base, len(pairs), tuple(float(o[0] - b[0]) for b, o in sides))

    def weighted(self, trials: Sequence[tuple[GridTrial, float]], domain: str) -> Contrast | None:
        """The weighted sum of trials' EM on a domain, relative to their plain mean; None where one lacks predictions."""
        means = [(self.examples.means(trial, domain), weight) for trial, weight in trials]
        known = [(mean, weight) for mean, weight in means if mean is not None]
        if not known or len(known) < len(means):
            return None
        total = np.sum([weight * mean for mean, weight in known], axis=0)
        # The variance of a pair's difference is twice a trial's.
        num_pairs = 2 / math.fsum(weight**2 for _, weight in known)
        return Contrast(total, np.mean([mean for mean, _ in known], axis=0), num_pairs, ())

    def lacking(self, trainables: Sequence[str], shares: Sequence[int], order: str | None = _SHUFFLED) -> str:
        """Which trials a claim would need, for its note; empty where all are there."""
        without: dict[str, list[str]] = {}
        for name in trainables:
            missing = ", ".join(ratio(share) for share in shares if not self.trials(name, share, order))
            if missing:
                without.setdefault(missing, []).append(name)
        words = [f"{' and '.join(names)} at {missing}" for missing, names in without.items()]
        return f"no completed {f'{order} ' if order else ''}trial of {'; of '.join(words)}" if words else ""

    def _pairs(self, base: tuple[str, str], other: tuple[str, str], shares: Iterable[int]) -> list[tuple[GridTrial, GridTrial]]:
        return [
            (first, second)
            for share in shares
            for first in self.trials(base[0], share, base[1])
            for second in self.trials(other[0], share, other[1])
            if first.seed == second.seed
        ]


def not_measured(tested_on: str, why: str) -> Finding:
    """A claim that the ledger cannot judge, and what it lacks."""
    return Finding(tested_on=tested_on, verdict="not measured", note=why)


def judge_range(found: Estimate | None, low: float, high: float, noise: float = 0.0) -> Verdict:
    """The verdict on one reading; see the module. `noise` is in the unit of `found`."""
    if found is None:
        return "not measured"
    lower, upper = _interval(found)
    # Zero is no rounded number: it says on which side the difference lies.
    if upper < low - (ROUNDING if low else 0) or lower > high + (ROUNDING if high else 0):
        return "does not"
    if lower <= 0 <= upper or abs(found.value) <= noise:
        return "within noise"
    return "holds"


def judge_inside(found: Estimate | None, low: float, high: float) -> Verdict:
    """For claims that something is small, or at least so large: the whole interval must lie in the range."""
    if found is None:
        return "not measured"
    lower, upper = _interval(found)
    if lower >= low and upper <= high:
        return "holds"
    return "does not" if upper < low or lower > high else "within noise"


def judge_contrast(
    evidence: Evidence, contrast: Contrast, tested_on: str, low: float, high: float, *, inside: bool = False
) -> Finding:
    """Both readings of an EM difference against a published range; with `inside` the claim is that it stays in there."""
    absolute, relative = estimate(contrast.absolute), estimate(contrast.relative)
    noise = evidence.floor.margin(contrast.num_pairs) or 0.0
    base = float(contrast.base[0])
    if inside:
        verdicts = [judge_inside(found, low, high) for found in (absolute, relative)]
    else:
        verdicts = [
            judge_range(absolute, low, high, noise),
            judge_range(relative, low, high, 100 * noise / base if base else math.inf),
        ]
    finding = Finding(
        tested_on=tested_on,
        verdict=_best(verdicts),
        holds_as=_readings(verdicts),
        ours=f"{base + contrast.absolute[0]:.1f} against {base:.1f}",
        unit="EM points",
        absolute=absolute,
        relative=relative,
        rests_on_p=not inside,
        note=_spread(contrast.cells),
    )
    if finding.verdict == "within noise" and not inside and absolute and abs(absolute.value) <= noise:
        return replace(finding, note="; ".join(filter(None, (finding.note, f"noise of such a mean: ±{noise:.1f} points"))))
    return finding


def _interval(found: Estimate) -> tuple[float, float]:
    """A value that no resample changes is its own interval."""
    return (found.value if found.low is None else found.low, found.value if found.high is None else found.high)


def _best(verdicts: Sequence[Verdict]) -> Verdict:
    """A claim holds if one of its readings does."""
    order: tuple[Verdict, ...] = ("holds", "within noise", "does not", "not measured")
    return min(verdicts, key=order.index)


def _readings(verdicts: Sequence[Verdict]) -> Literal["absolute", "relative", "both", ""]:
    absolute, relative = (verdict == "holds" for verdict in verdicts)
    if absolute and relative:
        return "both"
    return "absolute" if absolute else "relative" if relative else ""


def _spread(cells: Sequence[float]) -> str:
    return f"{len(cells)} cells, {min(cells):+.1f} to {max(cells):+.1f}" if len(cells) > 1 else ""
