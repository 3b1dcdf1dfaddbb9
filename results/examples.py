"""Scores by test example of the trials of a grid, side by side, and which examples belong together.

The examples of a group are no independent observations, so that intervals are drawn over groups: those that the data's split
keeps together. Ledgers of before schema 5 do not say which those are; there, examples that ask the same question form a group,
and intervals may be too narrow where several questions are asked about one context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from results.grid import Grid, GridTrial
from results.ledger import Ledger
from results.statistics import Integers, Reals, resampled_means

__all__ = ["MEASURES", "DomainExamples", "Examples", "load_examples"]

MEASURES = ("em", "answer_tokens", "wordy")
"""Exact match, percent; whitespace tokens of the answer; an answer that contains a gold answer and is not equal, percent."""


@dataclass(frozen=True)
class DomainExamples:
    """The test examples of one domain that all of its trials answered."""

    domain: str
    trial_keys: tuple[str, ...]
    scores: Mapping[str, Reals]
    """By measure: (examples, trials)."""
    groups: Integers
    """(examples,), 0 … number of groups − 1."""
    num_left_out: int
    """Examples that some trial did not answer."""
    is_split_known: bool
    """The groups are those of the data's split; else those of equal questions."""

    @property
    def num_groups(self) -> int:
        """How many groups the examples form."""
        return int(self.groups.max()) + 1 if len(self.groups) else 0

    def column(self, trial: GridTrial, measure: str = "em") -> Reals | None:
        """The trial's scores (examples,); None where it left no predictions."""
        if trial.trial_key not in self.trial_keys or not len(self.groups):
            return None
        return self.scores[measure][:, self.trial_keys.index(trial.trial_key)]


class Examples:
    """The examples of every domain, and means of trials with their resamples."""

    def __init__(self, domains: Mapping[str, DomainExamples]) -> None:
        self.domains = domains
        self._means: dict[tuple[str, str], Reals] = {}

    def means(self, trial: GridTrial, domain: str, measure: str = "em") -> Reals | None:
        """The trial's mean as measured, then resampled over groups: (1 + resamples,). None where it has no predictions.

        Trials of a domain see the same resamples, domains see different ones.
        """
        found = self.domains.get(domain)
        if found is None or found.column(trial, measure) is None:
            return None
        if (domain, measure) not in self._means:
            seed = sorted(self.domains).index(domain)
            self._means[domain, measure] = resampled_means(found.scores[measure], found.groups, seed=seed)
        return self._means[domain, measure][:, found.trial_keys.index(trial.trial_key)]

    def notes(self) -> list[str]:
        """What was resampled, one line per domain."""
        lines = [
            f"{found.domain}: {len(found.groups)} test examples in {found.num_groups} groups "
            + ("(of the data's split)" if found.is_split_known else "(by equal questions: no groups were recorded)")
            + (f"; {found.num_left_out} more left out, which some trial did not answer" if found.num_left_out else "")
            for found in self.domains.values()
        ]
        return lines or ["no trial of the grid left predictions: nothing can be paired by example"]


def load_examples(ledger: Ledger, grid: Grid) -> Examples:
    """The predictions of the grid's completed trials."""
    keys = [trial.trial_key for trial in grid.trials if trial.em]
    rows = ledger.sql(_SCORES, {"keys": keys}) if keys else None
    if rows is None or not rows.num_rows:
        return Examples({})
    columns = {name: rows.column(name).to_numpy() for name in ("trial", "example", "groups", "split", *MEASURES)}
    place = np.asarray(rows.column("domain").to_numpy(zero_copy_only=False))
    found = {}
    for domain in sorted(set(place)):
        mine = {name: values[place == domain] for name, values in columns.items()}
        found[str(domain)] = _domain_examples(str(domain), sorted(keys), mine)
    return Examples({domain: found[domain] for domain in grid.domains if domain in found})


def _domain_examples(domain: str, keys: list[str], rows: Mapping[str, np.ndarray]) -> DomainExamples:
    trials, trial_of_row = np.unique(rows["trial"], return_inverse=True)
    examples, first_row, example_of_row = np.unique(rows["example"], return_index=True, return_inverse=True)
    scores = {}
    for measure in MEASURES:
        scores[measure] = np.full((len(examples), len(trials)), np.nan)
        scores[measure][example_of_row, trial_of_row] = rows[measure]
    whole = ~np.isnan(scores["em"]).any(axis=1)
    _, groups = np.unique(rows["groups"][first_row][whole], return_inverse=True)
    return DomainExamples(
        domain=domain,
        trial_keys=tuple(keys[trial] for trial in trials),
        scores={measure: values[whole] for measure, values in scores.items()},
        groups=groups.astype(np.int64),
        num_left_out=int((~whole).sum()),
        is_split_known=bool(rows["split"].all()),
    )


def _normalised(text: str) -> str:
    """SQL of SQuAD's normalisation: lower case, without ASCII punctuation and articles, single spaces.

    Source: the official SQuAD v1.1 evaluation script, `normalize_answer`.
    """
    bare = f"regexp_replace(lower({text}), '[!-/:-@\\[-`{{-~]', '', 'g')"
    # Every word between two marks: RE2's \b takes a letter outside ASCII for the end of a word, Python's does not.
    marked = f"regexp_replace({bare}, '([\\p{{L}}\\p{{N}}_]+)', '\x01\\1\x02', 'g')"
    without_articles = f"regexp_replace({marked}, '\x01(a|an|the)\x02', ' ', 'g')"
    return f"trim(regexp_replace(regexp_replace({without_articles}, '[\x01\x02]', '', 'g'), '\\s+', ' ', 'g'))"


# A question that differs in white space and case alone is the same one, as where the data are split.
_SCORES = f"""
    WITH mine AS (
        SELECT domain, trial_key, example_id,
               coalesce(group_id, lower(trim(regexp_replace(question, '\\s+', ' ', 'g')))) AS group_id,
               predictions.group_id IS NOT NULL AS has_group,
               100 * em AS em, gold, prediction, {_normalised("prediction")} AS words
        FROM predictions WHERE list_contains($keys, trial_key) AND em IS NOT NULL
    ),
    judged AS (
        SELECT *, coalesce(list_aggregate(
            [contains(' ' || words || ' ', ' ' || {_normalised("answer")} || ' ') for answer in gold], 'bool_or'
        ), false) AS has_gold FROM mine
    )
    SELECT domain, list_position(list_sort($keys), trial_key) - 1 AS trial,
           dense_rank() OVER (PARTITION BY domain ORDER BY example_id) AS example,
           dense_rank() OVER (PARTITION BY domain ORDER BY group_id) AS groups,
           has_group::TINYINT AS split,
           em,
           len(regexp_extract_all(prediction, '[^\\s\\p{{Z}}]+'))::DOUBLE AS answer_tokens,
           CASE WHEN has_gold AND em = 0 THEN 100.0 ELSE 0.0 END AS wordy
    FROM judged ORDER BY domain, example, trial
"""
