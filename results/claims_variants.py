"""Checks of the papers' claims on gated ensembles, expert layers and adapters: trials that differ in stated settings alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from results import paper
from results.claims_evidence import Contrast, Evidence, Finding, judge_contrast, not_measured
from results.ensembles import find_baseline, row_settings, tested_domains
from results.grid import GridTrial
from results.paper_variants import ENSEMBLE_ROWS, EnsembleRow
from results.trial_settings import Settings

__all__ = ["between", "ensemble_row", "extremes", "long_training", "stages_pay_more"]

Range = tuple[float, float]


def ensemble_row(evidence: Evidence, row: EnsembleRow, published: Range, *, inside: bool = False) -> Iterator[Finding]:
    """A system of document B against its baseline, in EM out of domain."""
    domains, baseline = tested_domains(evidence.grid), find_baseline(evidence.settings)
    if not evidence.grid.unseen:
        yield not_measured(_titles(domains), "it is of domains that nothing was trained on, as with the preset robustqa")
        return
    if baseline is None:
        yield not_measured(_titles(domains), "no completed trial of the baseline, a plain distilbert on the same mixture")
        return
    base, other = (row_settings(each, baseline) for each in (ENSEMBLE_ROWS[0], row))
    yield _judged(evidence, evidence.settings.pairs(base, other, {}), domains, published, inside, row.title)


def between(
    evidence: Evidence, where: Settings, base: Settings, other: Settings, published: Range, *, inside: bool = False
) -> Iterator[Finding]:
    """Trials that have `other` against those that have `base`, both as `where` says and equal in all else."""
    pairs = evidence.settings.pairs(base, other, where)
    yield _judged(evidence, pairs, evidence.grid.domains, published, inside, f"{_words(base)} and {_words(other)}")


def extremes(evidence: Evidence, where: Settings, setting: str, published: Range) -> Iterator[Finding]:
    """Trials with the largest value of a setting against those with the smallest, equal in all else."""
    values = evidence.settings.values(setting, where)
    if len(values) < 2:
        yield not_measured(_titles(evidence.grid.domains), f"needs trials with two values of {setting}, equal in all else")
        return
    yield from between(evidence, where, {setting: values[0]}, {setting: values[-1]}, published)


def long_training(evidence: Evidence, where: Settings, least_steps: int) -> Iterator[Finding]:
    """Trials of the most epochs against the best of those of fewer, equal in all else; only where they took enough steps."""
    titles, name = _titles(evidence.grid.domains), "training.epochs"
    values = evidence.settings.values(name, where)
    longest = [trial for trial, _ in evidence.settings.matching({**where, name: values[-1]})] if len(values) > 1 else []
    steps = evidence.ledger.sql(_STEPS, {"keys": [trial.trial_key for trial in longest]}).column(0)[0].as_py() if longest else 0
    if not steps or steps <= least_steps:
        yield not_measured(
            titles, f"needs trials of more than {least_steps:,} steps, and shorter ones equal in all else; got {steps}"
        )
        return
    shorter = [evidence.settings.pairs({name: value}, {name: values[-1]}, where) for value in values[:-1]]
    contrasts = [evidence.difference(pairs, evidence.grid.domains) for pairs in shorter]
    best = max(filter(None, contrasts), key=lambda each: float(each.base[0]), default=None)
    if best is None:
        yield not_measured(titles, f"needs completed trials that differ in nothing but {name}")
    else:
        yield judge_contrast(evidence, best, titles, -math.inf, 0)


_STEPS = "SELECT max(step) FROM reports WHERE list_contains($keys, trial_key)"


def stages_pay_more(evidence: Evidence, experts: Settings, dense: Settings) -> Iterator[Finding]:
    """What a stage on the mixture adds with experts, less what it adds without (FLAN-MoE's Figure 6): points above zero."""
    stages: tuple[Settings, Settings] = ({"model.start_from": "base"}, {"model.start_from": "mixed"})
    ours, plain = (evidence.settings.pairs(*stages, where) for where in (experts, dense))
    quadruples = [
        (mine, theirs)
        for mine in ours
        for theirs in plain
        if (mine[0].share, mine[0].order, mine[0].seed) == (theirs[0].share, theirs[0].order, theirs[0].seed)
    ]
    found = [
        contrast
        for domain in evidence.grid.domains
        for mine, theirs in quadruples
        if (contrast := evidence.weighted([(mine[1], 1), (mine[0], -1), (theirs[1], -1), (theirs[0], 1)], domain))
    ]
    titles = _titles(evidence.grid.domains)
    if not found:
        yield not_measured(titles, "needs dense and expert models, each from the encoder and from a stage on the mixture")
        return
    cells = tuple(float(each.absolute[0]) for each in found)
    total, base = (np.mean([getattr(each, name) for each in found], axis=0) for name in ("absolute", "base"))
    yield judge_contrast(evidence, Contrast(total, base, len(quadruples) / 2, cells), titles, 0, math.inf)


def _judged(
    evidence: Evidence,
    pairs: Sequence[tuple[GridTrial, GridTrial]],
    domains: Sequence[str],
    published: Range,
    inside: bool,
    what: str,
) -> Finding:
    contrast = evidence.difference(pairs, domains)
    if contrast is None:
        return not_measured(_titles(domains), f"needs completed trials that differ in nothing but {what}")
    return judge_contrast(evidence, contrast, _titles(domains), *published, inside=inside)


def _titles(domains: Sequence[str]) -> str:
    return ", ".join(map(paper.domain_title, domains))


def _words(settings: Settings) -> str:
    return " ".join(f"{name.rpartition('.')[2]}={_value(value)}" for name, value in settings.items())


def _value(value: object) -> str:
    return "any" if isinstance(value, frozenset) else str(value)
