"""Checks of the paper's claims on when training is best: the epoch of the lowest validation loss."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping

import numpy as np

from results import paper
from results.claims_evidence import Evidence, Finding, judge_range, not_measured
from results.comparisons import ROUNDING
from results.statistics import Estimate, estimate, resampled_means, t_interval

__all__ = ["lowest_loss_earlier", "lowest_loss_epoch"]

_TRAINING = "validation loss"


def lowest_loss_epoch(evidence: Evidence, *, tuned: bool, epoch: float) -> Iterator[Finding]:
    """The epoch of the lowest validation loss of V-DB or of ExBERT, over its trials of the grid."""
    name = (evidence.tuned or paper.UNTUNED) if tuned else paper.BASELINE
    epochs = [found for key, found in _epochs(evidence).items() if key[0] == name]
    if not epochs:
        yield not_measured(_TRAINING, f"no trial of {name} has two validated epochs or more: train it for 3 epochs or more")
        return
    values = [lowest for lowest, _ in epochs]
    interval = t_interval(values) or (None, None)
    found = Estimate(statistics.fmean(values), *interval)
    low, high = (found.value if bound is None else bound for bound in interval)
    holds = low <= epoch + ROUNDING and high >= epoch - ROUNDING
    at_end = sum(1 for lowest, last in epochs if lowest >= last)
    # A loss that still fell at the end has its lowest point later: that refutes an early one, and proves nothing else.
    is_open = at_end > len(epochs) / 2 and low <= epoch + ROUNDING
    yield Finding(
        tested_on=_TRAINING,
        verdict="not measured" if is_open else "holds" if holds else "does not",
        holds_as="absolute" if holds and not is_open else "",
        ours=f"epoch {found.value:.2f}",
        unit="epochs",
        absolute=found,
        note=f"{name}, {len(values)} trials" + (f"; {at_end} of them still falling at the end" if at_end else ""),
    )


def lowest_loss_earlier(evidence: Evidence) -> Iterator[Finding]:
    """How much earlier ExBERT's loss is lowest, over pairs of trials that differ in the model alone."""
    name = evidence.tuned or paper.UNTUNED
    epochs = _epochs(evidence)
    keys = [key for key in epochs if key[0] == paper.BASELINE and (name, *key[1:]) in epochs]
    pairs = [(epochs[key], epochs[(name, *key[1:])]) for key in keys]
    if len(pairs) < 2:
        why = f"needs {paper.BASELINE} and {name} with two validated epochs or more on the same mixtures"
        yield not_measured(_TRAINING, why)
        return
    at_end = sum(1 for (lowest, last), _ in pairs if lowest >= last)
    if at_end > len(pairs) / 2:
        why = f"V-DB's loss was still falling at the last epoch in {at_end} of {len(pairs)} trials: train for more epochs"
        yield not_measured(_TRAINING, why)
        return
    values = np.array([[base, other] for (base, _), (other, _) in pairs])
    draws = resampled_means(values, np.arange(len(pairs)))
    absolute, relative = draws[:, 0] - draws[:, 1], 100 * (1 - draws[:, 1] / draws[:, 0])
    found = estimate(relative)
    verdict = judge_range(found, 33, 33)
    yield Finding(
        tested_on=_TRAINING,
        verdict=verdict,
        holds_as="relative" if verdict == "holds" else "",
        ours=f"epoch {draws[0, 1]:.2f} against {draws[0, 0]:.2f}",
        unit="epochs earlier",
        absolute=estimate(absolute),
        relative=found,
        rests_on_p=True,
        note=f"{name}, {len(pairs)} pairs of trials",
    )


def _epochs(evidence: Evidence) -> Mapping[tuple[str, str, int, int], tuple[float, float]]:
    """(trainable, order, share, seed) to the epoch of the lowest validation loss and the last validated one."""
    trials = {trial.trial_key: trial for trial in evidence.grid.trials if trial.em}
    rows = evidence.ledger.sql(_LOWEST, {"keys": list(trials)}).to_pylist() if trials else []
    found = [(trials[row["trial_key"]], row) for row in rows]
    return {(t.trainable, t.order, t.share, t.seed): (row["lowest"], row["last"]) for t, row in found}


_LOWEST = """
    SELECT trial_key, arg_min(epoch, val_qa_loss) AS lowest, max(epoch) AS last
    FROM reports WHERE list_contains($keys, trial_key) AND isfinite(val_qa_loss) AND epoch IS NOT NULL
    GROUP BY trial_key HAVING count(DISTINCT epoch) > 1 AND max(epoch) >= 2 ORDER BY trial_key
"""
