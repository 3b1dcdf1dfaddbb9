"""Checks of the paper's claims on settings, from the trials of a search or a narrowing: blocks, rate, dropout, experts.

A search varies several settings at once, so that its trials show a setting's influence on average, not alone; a narrowing
varies one at a time, with few trials.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from results import paper
from results.claims_evidence import Evidence, Finding, judge_range, not_measured
from results.search import Search, SearchTrial
from results.statistics import ALPHA, Estimate, relative_improvement, t_interval

__all__ = [
    "best_learning_rate",
    "best_over_random",
    "blocks_lower_loss",
    "dropout_before_helps",
    "experts_matter_little",
    "few_blocks_rise_less",
    "few_blocks_track_closely",
    "heavy_dropout_hurts",
    "high_rates_overfit",
]

_TRAINING = "validation loss"
_FEW_BLOCKS, _MANY_BLOCKS = (3, 4), (5, 6)

_LEAST_TRIALS = 4
"""Of three, even a perfect rank correlation has p = 0.33."""

_LEAST_RANDOM = 3
"""Random configurations for a mean with an interval worth printing."""

_TPE_STARTUP = 10
"""Trials that the TPE sampler draws at random before it models anything. Source: Optuna 5, TPESampler(n_startup_trials)."""

_Setting = Callable[[SearchTrial], float | str | None]
_Outcome = Callable[[SearchTrial], float | None]


def blocks_lower_loss(evidence: Evidence) -> Iterator[Finding]:
    """Removing blocks raises the validation loss: rank correlation over the search's completed trials."""
    yield _correlated(evidence, "model.n_layers", _blocks, _final_loss, sign=-1)


def few_blocks_track_closely(evidence: Evidence) -> Iterator[Finding]:
    """Validation minus training loss at the end, 5 or 6 blocks against 3 or 4."""
    yield _two_groups(evidence, "model.n_layers", _blocks, (_FEW_BLOCKS, _MANY_BLOCKS), _gap, (0, math.inf))


def few_blocks_rise_less(evidence: Evidence) -> Iterator[Finding]:
    """How far the validation loss rose above its lowest, 5 or 6 blocks against 3 or 4."""
    yield _two_groups(evidence, "model.n_layers", _blocks, (_FEW_BLOCKS, _MANY_BLOCKS), _rise, (0, math.inf))


def best_learning_rate(evidence: Evidence) -> Iterator[Finding]:
    """The rate of the lowest validation loss, in multiples of V-DB's: 3.2 to 7.9 count as 5."""
    trials = _completed(evidence, "training.learning_rate", _rate)
    if isinstance(trials, str):
        yield not_measured(_TRAINING, trials)
        return
    best = min(trials, key=lambda trial: trial.value or math.inf)
    multiple = (best.learning_rate or math.nan) / paper.LEARNING_RATE
    # Nearer, as a factor, to 5 than to 2, and no farther above than that.
    holds = abs(math.log(multiple / 5)) <= math.log(5 / 2) / 2
    yield Finding(
        tested_on=_TRAINING,
        verdict="holds" if holds else "does not",
        holds_as="absolute" if holds else "",
        ours=f"{best.learning_rate:.3g}",
        unit="times 2e-5",
        absolute=Estimate(multiple),
        note=f"the best of {len(trials)} trials; one trial has no interval",
    )


def high_rates_overfit(evidence: Evidence) -> Iterator[Finding]:
    """The higher the rate, the further the validation loss rose above its lowest."""
    yield _correlated(evidence, "training.learning_rate", _rate, _rise, sign=1)


def dropout_before_helps(evidence: Evidence) -> Iterator[Finding]:
    """A dropout layer before the experts against none: a loss lower by less than 0.5 %."""
    finding = _two_groups(evidence, "model.dropout_placement", _placement, (("before",), ("none",)), _final_loss, (0, math.inf))
    relative = finding.relative.value if finding.relative else 0.0
    if finding.verdict == "holds" and relative > 0.5:
        finding = replace(finding, verdict="does not", holds_as="", note=f"{finding.note}; better, and by more than 0.5 %")
    yield finding


def heavy_dropout_hurts(evidence: Evidence) -> Iterator[Finding]:
    """A rate of 0.3 beside the experts against 0.1: a higher loss."""
    yield _two_groups(evidence, "model.moe_dropout", _dropout, ((0.1,), (0.3,)), _final_loss, (0, math.inf))


def experts_matter_little(evidence: Evidence) -> Iterator[Finding]:
    """The number of experts makes a minimal difference: a rank correlation with the loss would refute it."""
    yield _correlated(evidence, "model.num_experts", _experts, _final_loss, sign=0)


def best_over_random(evidence: Evidence) -> Iterator[Finding]:
    """RI of the search's best trial over its random configurations that were trained to the end."""
    search = evidence.search
    losses = [trial.value for trial in _random_trials(search) if trial.value is not None] if search else []
    if search is None or search.best is None or search.best.value is None or len(losses) < _LEAST_RANDOM:
        has = f"{search.sweep_id} has {len(losses)} completed random configurations" if search else ""
        yield not_measured(_TRAINING, f"{has}; it takes {_LEAST_RANDOM}" if search else "no search in the ledger")
        return
    mean, interval = statistics.fmean(losses), t_interval(losses) or (math.nan, math.nan)
    low, high = (bound - search.best.value for bound in interval)
    yield Finding(
        tested_on=_TRAINING,
        verdict="holds" if low > 0 else "within noise" if high > 0 else "does not",
        holds_as="relative" if low > 0 else "",
        ours=f"{search.best.value:.3f} against {mean:.3f}",
        unit="nats",
        absolute=Estimate(mean - search.best.value, low, high),
        relative=Estimate(relative_improvement(search.best.value, mean), 100 * low / mean, 100 * high / mean),
        note=f"mean of {len(losses)} random configurations; early stopping spared the better ones, so at least",
    )


def _completed(evidence: Evidence, name: str, setting: _Setting) -> list[SearchTrial] | str:
    """The completed trials of an ExBERT search that varied a setting, or why there are none.

    Of a narrowing those of the stage that varied it: the others differ in something else as well.
    """
    search = evidence.search
    if search is None:
        return "no search in the ledger"
    if not search.trainable.startswith(paper.UNTUNED):
        return f"the search {search.sweep_id} is of {search.trainable}"
    trials = [trial for trial in search.trials if trial.state == "completed" and trial.value is not None]
    stages = {trial.stage for trial in trials if trial.stage}
    varied = [s for s in sorted(stages) if len({setting(t) for t in trials if t.stage == s} - {None}) > 1]
    chosen = [trial for trial in trials if trial.stage == varied[0]] if varied else [t for t in trials if not t.stage]
    chosen = [trial for trial in chosen if setting(trial) is not None]
    if len({setting(trial) for trial in chosen}) < 2:
        return f"the search {search.sweep_id} has no completed trials that differ in {name}"
    if len(chosen) < _LEAST_TRIALS:
        return f"the search {search.sweep_id} has {len(chosen)} completed trials with {name}; it takes {_LEAST_TRIALS}"
    return chosen


def _correlated(evidence: Evidence, name: str, setting: _Setting, outcome: _Outcome, *, sign: int) -> Finding:
    """Kendall's tau of a setting with an outcome; `sign` is the claimed one, 0 for none."""
    from scipy import stats

    trials = _completed(evidence, name, setting)
    if isinstance(trials, str):
        return not_measured(_TRAINING, trials)
    points = [(setting(trial), value) for trial in trials if (value := outcome(trial)) is not None]
    if len(points) < _LEAST_TRIALS or len({x for x, _ in points}) < 2 or len({y for _, y in points}) < 2:
        return not_measured(_TRAINING, f"too few trials with {name} and two validated epochs")
    test = stats.kendalltau([x for x, _ in points], [y for _, y in points])
    tau, p = float(test.statistic), float(test.pvalue)
    told = p < ALPHA
    holds = told and sign * tau > 0
    unproven = "" if sign or told else "; no sign of a difference is no proof of none"
    return Finding(
        tested_on=_TRAINING,
        verdict="holds" if holds else "does not" if told else "within noise",
        holds_as="both" if holds else "",
        ours=f"tau {tau:+.2f}",
        unit="Kendall's tau",
        absolute=Estimate(tau, p=p),
        rests_on_p=True,
        note=f"{len(points)} completed trials{unproven}",
    )


def _two_groups(
    evidence: Evidence,
    name: str,
    setting: _Setting,
    groups: tuple[Sequence[float | str], Sequence[float | str]],
    outcome: _Outcome,
    wanted: tuple[float, float],
) -> Finding:
    """The second group's mean minus the first one's, nats, by Welch's t."""
    from scipy import stats

    trials = _completed(evidence, name, setting)
    if isinstance(trials, str):
        return not_measured(_TRAINING, trials)
    sides = [[v for t in trials if setting(t) in group and (v := outcome(t)) is not None] for group in groups]
    if min(map(len, sides)) < 2:
        counts = [f"{len(side)} with {' or '.join(map(str, group))}" for side, group in zip(sides, groups, strict=True)]
        return not_measured(_TRAINING, f"completed trials by {name}: {' and '.join(counts)}; it takes two of each")
    test = stats.ttest_ind(sides[1], sides[0], equal_var=False)
    interval, means = test.confidence_interval(), [statistics.fmean(side) for side in sides]
    absolute = Estimate(means[1] - means[0], float(interval.low), float(interval.high), float(test.pvalue))
    verdict = judge_range(absolute, *wanted)
    return Finding(
        tested_on=_TRAINING,
        verdict=verdict,
        holds_as="both" if verdict == "holds" else "",
        ours=f"{means[1]:.3f} against {means[0]:.3f}",
        unit="nats",
        absolute=absolute,
        relative=Estimate(100 * absolute.value / means[1]) if means[1] else None,
        rests_on_p=True,
        note=f"{len(sides[1])} and {len(sides[0])} completed trials",
    )


def _random_trials(search: Search) -> list[SearchTrial]:
    """Completed trials whose configurations were drawn at random."""
    sampler = search.settings.get("sampler")
    if search.strategy != "asha" or sampler not in ("random", "tpe"):
        return []
    # A sampler that was told of earlier trials models from the first suggestion on.
    first = len(search.trials) if sampler == "random" else 0 if search.warm else _TPE_STARTUP
    return [trial for trial in search.trials if trial.number < first and trial.state == "completed"]


def _final_loss(trial: SearchTrial) -> float | None:
    return trial.value


def _gap(trial: SearchTrial) -> float | None:
    """Validation minus training loss of the last report that has both."""
    both = [report for report in trial.reports if report.train is not None and report.val is not None]
    return both[-1].val - both[-1].train if both and both[-1].val is not None and both[-1].train is not None else None


def _rise(trial: SearchTrial) -> float | None:
    """The last validation loss above the lowest; None with fewer than two."""
    losses = [report.val for report in trial.reports if report.val is not None]
    return losses[-1] - min(losses) if len(losses) > 1 else None


def _blocks(trial: SearchTrial) -> float | None:
    return trial.n_layers


def _rate(trial: SearchTrial) -> float | None:
    return trial.learning_rate


def _experts(trial: SearchTrial) -> float | str | None:
    return _parameter(trial, "model.num_experts")


def _dropout(trial: SearchTrial) -> float | str | None:
    return _parameter(trial, "model.moe_dropout")


def _placement(trial: SearchTrial) -> float | str | None:
    return _parameter(trial, "model.dropout_placement")


def _parameter(trial: SearchTrial, name: str) -> float | str | None:
    value = trial.parameters.get(name)
    return value if isinstance(value, (int, float, str)) else None
