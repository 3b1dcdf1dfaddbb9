"""Checks of the paper's claims that the mixture grid answers: levels, gains, mixtures, orders, answers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from results import paper
from results.claims_evidence import (
    Contrast,
    Evidence,
    Finding,
    Verdict,
    judge_contrast,
    judge_inside,
    judge_range,
    not_measured,
)
from results.comparisons import ROUNDING
from results.grid import GridTrial, ratio
from results.statistics import Estimate, estimate

__all__ = [
    "ahead_everywhere",
    "answers_contain_gold",
    "answers_longer",
    "best_alone",
    "check_gain",
    "check_level",
    "contest_on_full_sets",
    "gains_slow",
    "order_matters_little",
    "retained_share",
    "rises_with_share",
    "similar_untuned",
    "step_to_80",
]

_SHARES = (0, 20, 40, 60, 80, 100)
_STEP = 20
_SIMILAR = 2.0
"""Points or percent: the paper calls 2 % a slight improvement of a similar model. Source: §3.3."""

_NO_TUNED = f"the grid has neither {paper.TUNED} nor {paper.SEARCHED}"


def check_level(evidence: Evidence, level: paper.PublishedLevel) -> Iterator[Finding]:
    """An exact match that the paper states, judged only where ours was trained on as many examples."""
    domain = evidence.domain(level.domain_index)
    name = evidence.tuned if level.trainable == paper.TUNED else level.trainable
    if domain is None or name is None:
        yield not_measured(_titles([domain or ""]), _NO_TUNED if name is None else "the grid has no second domain")
        return
    source = evidence.single_domain.get(level.share) if level.full_set else evidence
    trials = source.trials(name, level.share, level.order) if source else []
    means = [mean for trial in trials if source and (mean := source.examples.means(trial, domain)) is not None]
    if not means or source is None:
        yield not_measured(paper.domain_title(domain), f"no completed trial of {name} at {ratio(level.share)} with predictions")
        return
    found = estimate(np.mean(means, axis=0))
    ours = replace(found, p=None) if found else None
    size = source.grid.mixture_size or 0
    wanted = paper.FULL_SET_SIZES[level.share] if level.full_set else paper.MIXTURE_SIZE
    finding = Finding(
        tested_on=paper.domain_title(domain),
        verdict=_level_verdict(ours, level),
        ours=f"{ours.value:.1f}" if ours else "",
        unit="EM",
        absolute=ours,
    )
    # A level depends on the size of the mixture; an equal share of another size says nothing on it.
    if size >= wanted if level.full_set else size == wanted:
        yield replace(finding, holds_as="absolute" if finding.verdict == "holds" else "")
    else:
        note = f"ours: {size:,} training examples, the paper's: {'at least ' if level.full_set else ''}{wanted:,}"
        yield replace(finding, verdict="not measured", note=note)


def check_gain(evidence: Evidence, gain: paper.PublishedGain) -> Iterator[Finding]:
    """A difference that the paper states, over all cells it speaks of."""
    domains = evidence.domains if gain.domain_index is None else evidence.domains[gain.domain_index :][:1]
    tested_on = _titles(domains)
    name = evidence.tuned if gain.trainable == paper.TUNED else gain.trainable
    if gain.trainable is not None and name is None:
        yield not_measured(tested_on, _NO_TUNED)
        return
    if name is None:
        pairs, lacks = evidence.order_pairs(paper.BASELINE, gain.shares), evidence.lacking([paper.BASELINE], gain.shares, None)
    else:
        pairs = evidence.model_pairs(name, gain.shares)
        lacks = evidence.lacking([paper.BASELINE, name], gain.shares)
    contrast = evidence.difference(pairs, domains)
    if contrast is None:
        yield not_measured(tested_on, lacks or "no two trials that differ in this alone left predictions")
        return
    finding = judge_contrast(evidence, contrast, tested_on, gain.low, gain.high)
    remark = "V-DB" if name is None else _shuffled(name)
    yield replace(finding, note=_both(remark, finding.note, lacks))


def ahead_everywhere(evidence: Evidence) -> Iterator[Finding]:
    """Tuned ExBERT above V-DB at every share: each cell must be, so that the smallest difference decides."""
    name = evidence.tuned
    if name is None:
        yield not_measured(_titles(evidence.domains), _NO_TUNED)
        return
    lacks = evidence.lacking([paper.BASELINE, name], _SHARES)
    cells = [
        contrast
        for share in _SHARES
        for domain in evidence.domains
        if (contrast := evidence.difference(evidence.model_pairs(name, [share]), [domain]))
    ]
    yield _smallest(evidence, cells, _titles(evidence.domains), lacks, "shuffled")


def rises_with_share(evidence: Evidence) -> Iterator[Finding]:
    """In-domain EM of V-DB rises with the domain's share: least-squares slope over all its trials, per 20 points."""
    for index, domain in enumerate(evidence.domains):
        trials = [trial for share in _SHARES for trial in evidence.trials(paper.BASELINE, share)]
        own = [trial.share if index == 0 else 100 - trial.share for trial in trials]
        if len(set(own)) < 3:
            yield not_measured(paper.domain_title(domain), f"needs {paper.BASELINE} at three shares or more")
            continue
        centre = sum(own) / len(own)
        spread = sum((x - centre) ** 2 for x in own)
        slopes = [(trial, _STEP * (x - centre) / spread) for trial, x in zip(trials, own, strict=True)]
        yield _judged_weights(evidence, slopes, domain, (0, math.inf), "V-DB, per 20 points of share")


def best_alone(evidence: Evidence) -> Iterator[Finding]:
    """V-DB's best EM on the second domain comes from that domain alone: 0:100 minus every other share."""
    domain = evidence.domain(1)
    lacks = evidence.lacking([paper.BASELINE], _SHARES, None)
    cells = [
        contrast
        for share in _SHARES[1:]
        if domain and (contrast := evidence.difference(evidence.share_pairs(paper.BASELINE, (share, 0), None), [domain]))
    ]
    yield _smallest(evidence, cells, paper.domain_title(domain or ""), lacks, "V-DB")


def retained_share(evidence: Evidence) -> Iterator[Finding]:
    """V-DB's EM on the second domain at 60:40 in percent of its EM at 0:100."""
    domain = evidence.domain(1)
    pairs = evidence.share_pairs(paper.BASELINE, (0, paper.RETAINED_SHARE), None)
    contrast = evidence.difference(pairs, [domain]) if domain else None
    if contrast is None:
        lacks = evidence.lacking([paper.BASELINE], (0, paper.RETAINED_SHARE), None)
        yield not_measured(paper.domain_title(domain or ""), lacks or "these trials left no predictions")
        return
    kept = estimate(100 + contrast.relative)
    yield Finding(
        tested_on=paper.domain_title(domain or ""),
        verdict=judge_inside(kept, paper.RETAINED_PERCENT - ROUNDING, math.inf),
        ours=f"{contrast.base[0] + contrast.absolute[0]:.1f} of {contrast.base[0]:.1f}",
        unit="% of 0:100",
        absolute=replace(kept, p=None) if kept else None,
        note="read as at least",
    )


def gains_slow(evidence: Evidence) -> Iterator[Finding]:
    """V-DB's step from 80:20 to 100:0 on the first domain minus its mean step before."""
    domain, shares = evidence.domain(0), (0, 80, 100)
    groups = [evidence.trials(paper.BASELINE, share) for share in shares]
    if domain is None or not all(groups):
        yield not_measured(paper.domain_title(domain or ""), evidence.lacking([paper.BASELINE], shares, None))
        return
    # (EM_100 - EM_80) - (EM_80 - EM_0) / 4: four steps of 20 lie between 0:100 and 80:20.
    weights = (0.25, -1.25, 1.0)
    trials = [(trial, weight / len(group)) for group, weight in zip(groups, weights, strict=True) for trial in group]
    yield _judged_weights(evidence, trials, domain, (-math.inf, 0), "V-DB, last step minus the mean step before")


def step_to_80(evidence: Evidence, *, domain_index: int, low: float, high: float) -> Iterator[Finding]:
    """Untuned ExBERT from 60:40 to 80:20, shuffled, on one domain.

    The paper does not say what it compares 80:20 with; the mixture next to it is taken.
    """
    domain = evidence.domain(domain_index)
    pairs = evidence.share_pairs(paper.UNTUNED, (60, 80), "shuffled")
    contrast = evidence.difference(pairs, [domain]) if domain else None
    if contrast is None:
        lacks = evidence.lacking([paper.UNTUNED], (60, 80))
        yield not_measured(paper.domain_title(domain or ""), lacks or "these trials left no predictions")
        return
    finding = judge_contrast(evidence, contrast, paper.domain_title(domain or ""), low, high)
    yield replace(finding, note=_both("80:20 against 60:40, shuffled", finding.note))


def similar_untuned(evidence: Evidence) -> Iterator[Finding]:
    """Untuned ExBERT minus V-DB over all shares stays within 2 points."""
    contrast = evidence.difference(evidence.model_pairs(paper.UNTUNED, _SHARES), evidence.domains)
    lacks = evidence.lacking([paper.BASELINE, paper.UNTUNED], _SHARES)
    yield _within(evidence, contrast, evidence.domains, _SIMILAR, lacks, "shuffled")


def order_matters_little(evidence: Evidence) -> Iterator[Finding]:
    """Shuffled minus concatenated of V-DB over all mixed shares stays within 1 point."""
    contrast = evidence.difference(evidence.order_pairs(paper.BASELINE, _SHARES[1:-1]), evidence.domains)
    yield _within(evidence, contrast, evidence.domains, 1.0, evidence.lacking([paper.BASELINE], _SHARES[1:-1], None), "V-DB")


def contest_on_full_sets(evidence: Evidence) -> Iterator[Finding]:
    """V-DB and untuned ExBERT after fine-tuning on one whole data set: no significant difference on either domain."""
    for share, alone in evidence.single_domain.items():
        size, wanted = alone.grid.mixture_size or 0, paper.FULL_SET_SIZES[share]
        trained_on = paper.domain_title(evidence.domains[0 if share else -1])
        if size < wanted:
            why = f"{trained_on} alone: ours {size:,} training examples, the paper's at least {wanted:,}"
            yield not_measured(_titles(evidence.domains), why)
            continue
        contrast = alone.difference(alone.model_pairs(paper.UNTUNED, [share]), alone.domains)
        yield _within(alone, contrast, alone.domains, _SIMILAR, "", f"trained on {trained_on} alone")
    if not evidence.single_domain:
        yield not_measured(_titles(evidence.domains), "no completed trial on one domain alone")


def answers_longer(evidence: Evidence) -> Iterator[Finding]:
    """V-DB's answers minus ExBERT's, whitespace tokens."""
    yield _answers(evidence, "answer_tokens", "tokens")


def answers_contain_gold(evidence: Evidence) -> Iterator[Finding]:
    """V-DB's rate of answers that contain a gold answer and are longer, minus ExBERT's."""
    yield _answers(evidence, "wordy", "points")


def _answers(evidence: Evidence, measure: str, unit: str) -> Finding:
    name = evidence.tuned or paper.UNTUNED
    contrast = evidence.difference(evidence.model_pairs(name, _SHARES), evidence.domains, measure)
    if contrast is None:
        lacks = evidence.lacking([paper.BASELINE, name], _SHARES)
        return not_measured(_titles(evidence.domains), lacks or "these trials left no predictions")
    ours, base = contrast.base + contrast.absolute, contrast.base
    turned = Contrast(-contrast.absolute, ours, contrast.num_pairs, ())
    found = estimate(turned.absolute)
    verdict = judge_range(found, 0, math.inf)
    return Finding(
        tested_on=_titles(evidence.domains),
        verdict=verdict,
        holds_as="both" if verdict == "holds" else "",
        ours=f"{base[0]:.2f} against {ours[0]:.2f}",
        unit=unit,
        absolute=found,
        relative=estimate(turned.relative),
        rests_on_p=True,
        note=f"V-DB against {_shuffled(name)}",
    )


def _level_verdict(ours: Estimate | None, level: paper.PublishedLevel) -> Verdict:
    if level.at_least:
        return judge_inside(ours, level.em - ROUNDING, math.inf)
    verdict = judge_range(ours, level.em, level.em)
    return "holds" if verdict == "within noise" else verdict


def _smallest(evidence: Evidence, cells: Sequence[Contrast], tested_on: str, lacks: str, scope: str) -> Finding:
    """A claim on every cell holds if its smallest difference is above zero; no correction is due for such a claim.

    Source: Berger, "Multiparameter hypothesis testing and acceptance sampling" (1982), intersection-union test.
    """
    if not cells:
        return not_measured(tested_on, lacks or "no two trials to compare left predictions")
    worst = min(cells, key=lambda cell: float(cell.absolute[0]))
    finding = judge_contrast(evidence, worst, tested_on, 0, math.inf)
    above = sum(1 for cell in cells if cell.absolute[0] > 0)
    finding = replace(finding, note=_both(scope, f"above zero in {above} of {len(cells)} cells, the smallest is shown", lacks))
    # What was not run can still refute a claim on all cells.
    return replace(finding, verdict="not measured", holds_as="") if finding.verdict == "holds" and lacks else finding


def _within(
    evidence: Evidence, contrast: Contrast | None, domains: Sequence[str], margin: float, lacks: str, scope: str
) -> Finding:
    if contrast is None:
        return not_measured(_titles(domains), lacks or "no two trials to compare left predictions")
    finding = judge_contrast(evidence, contrast, _titles(domains), -margin, margin, inside=True)
    return replace(finding, note=_both(scope, f"read as within ±{margin:g}", finding.note, lacks))


def _judged_weights(
    evidence: Evidence, trials: Sequence[tuple[GridTrial, float]], domain: str, wanted: tuple[float, float], note: str
) -> Finding:
    contrast = evidence.weighted(trials, domain)
    if contrast is None:
        return not_measured(paper.domain_title(domain), "some of these trials left no predictions")
    finding = judge_contrast(evidence, contrast, paper.domain_title(domain), *wanted)
    return replace(finding, ours="", note=_both(note, finding.note))


def _shuffled(name: str) -> str:
    """What models are compared on: see `Evidence.model_pairs`."""
    return f"{name}, shuffled"


def _titles(domains: Sequence[str]) -> str:
    return " and ".join(paper.domain_title(domain) for domain in domains)


def _both(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
