"""The grid: which trials of the ledger form it, and their scores by trainable, order, share, domain and seed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from results import paper
from results.ledger import Ledger
from results.naming import no_sweep, sweeps_line

__all__ = ["METRICS", "Cell", "Grid", "GridTrial", "load_grid", "load_trials", "ratio", "require_sweep", "sides", "summarise"]

METRICS = ("em", "f1")


@dataclass(frozen=True)
class Cell:
    """A mean over seeds, with its sample standard deviation where there is more than one."""

    mean: float
    sd: float | None
    num: int


@dataclass(frozen=True)
class GridTrial:
    """One trial of the grid; its scores are test scores in percent, per domain, and empty until it completed."""

    trial_key: str
    sweep_id: str
    trainable: str
    order: str
    share: int
    seed: int
    status: str
    error_type: str | None
    em: dict[str, float]
    f1: dict[str, float]


@dataclass(frozen=True)
class Grid:
    """The trials that can be compared with one another, and the axes they span."""

    trials: tuple[GridTrial, ...]
    domains: tuple[str, ...]
    """In mixture order; domains that were only tested on come last."""
    preset: str | None
    mixture_size: int | None
    """Training examples."""
    num_mixed: int = 2
    """Domains that the preset names; more than two are in two groups, between which shares count."""
    unseen: tuple[str, ...] = ()
    """Domains of which no trial's mixture has examples."""
    known: tuple[str, ...] = ()
    """Every grid of the ledger, the newest first, where none was asked for."""

    @property
    def sweep_ids(self) -> tuple[str, ...]:
        """The sweeps that its trials are of, the newest first."""
        return tuple(dict.fromkeys(trial.sweep_id for trial in reversed(self.trials)))

    @property
    def described(self) -> list[str]:
        """A line on which sweeps it is of; none without trials."""
        if not self.trials:
            return []
        num, size = len(self.trials), self.mixture_size
        return [sweeps_line(self.sweep_ids, num, examples=size, kind="grids", known=self.known)]

    @property
    def mixed(self) -> tuple[str, ...]:
        """Domains that the preset names, without those that were only tested on."""
        return self.domains[: self.num_mixed or None]

    @property
    def sides(self) -> tuple[str, ...]:
        """What the two numbers of a mixture's ratio are of."""
        return sides(self.mixed)

    @property
    def trainables(self) -> tuple[str, ...]:
        """The baseline first, the others by name."""
        return tuple(sorted({trial.trainable for trial in self.trials}, key=lambda name: (name != paper.BASELINE, name)))

    @property
    def orders(self) -> tuple[str, ...]:
        """Orders of the mixture, by name."""
        return tuple(sorted({trial.order for trial in self.trials}))

    @property
    def shares(self) -> tuple[int, ...]:
        """Percent of the first domain, ascending."""
        return tuple(sorted({trial.share for trial in self.trials}))

    @property
    def has_points(self) -> bool:
        """Whether it has points of search spaces beside the models that the preset names."""
        return any("=" in trial.trainable for trial in self.trials)

    @property
    def plain(self) -> Grid:
        """Without the points of search spaces; as it is where there is nothing else."""
        named = tuple(trial for trial in self.trials if "=" not in trial.trainable)
        return replace(self, trials=named) if named else self

    @property
    def contender(self) -> str | None:
        """The trainable to set against the baseline: the tuned variant, else the untuned, else the first other one."""
        others = self.trainables[1:]
        return next((name for name in (paper.TUNED, paper.UNTUNED) if name in others), others[0] if others else None)

    def scores(self, trainable: str, order: str, domain: str, share: int, *, metric: str = "em") -> dict[int, float]:
        """Test score in percent by seed; a seed with several trials counts with their mean."""
        by_seed: dict[int, list[float]] = {}
        for trial in self.trials:
            value = getattr(trial, metric).get(domain)
            if (trial.trainable, trial.order, trial.share) == (trainable, order, share) and value is not None:
                by_seed.setdefault(trial.seed, []).append(value)
        return {seed: statistics.fmean(values) for seed, values in sorted(by_seed.items())}

    def cell(self, trainable: str, order: str, domain: str, share: int, *, metric: str = "em") -> Cell | None:
        """Mean test score over seeds; None where no trial completed."""
        return summarise(self.scores(trainable, order, domain, share, metric=metric).values())

    def missing(self) -> list[str]:
        """What keeps the grid from being complete, one line each; nothing when every trial completed."""
        if not self.trials:
            return ["no grid was planned in this ledger: run `python -m orchestrator.run grid`"]
        without = [trial for trial in self.trials if not trial.em]
        lines = [f"{len(without)} of {len(self.trials)} trials have no test scores"] if without else []
        return lines + [f"{_describe(trial)}: {trial.status}{_because(trial)}" for trial in without]


def ratio(share: int) -> str:
    """The mixture as the paper writes it, e.g. 80:20."""
    return f"{share}:{100 - share}"


def sides(mixed: Sequence[str]) -> tuple[str, ...]:
    """What a ratio's two numbers are of: the domains, or groups of them where there are more than two."""
    return tuple(map(paper.domain_title, mixed)) if len(mixed) <= _DOMAINS_OF_A_RATIO else ("first", "second group")


_DOMAINS_OF_A_RATIO = 2


def summarise(values: Iterable[float]) -> Cell | None:
    """Mean and sample standard deviation; None for no values."""
    seen = list(values)
    if not seen:
        return None
    return Cell(statistics.fmean(seen), statistics.stdev(seen) if len(seen) > 1 else None, len(seen))


def load_grid(ledger: Ledger, sweep_id: str | None = None) -> Grid:
    """The grid of `sweep_id`; without one, the newest grid, and for a trainable it lacks the newest grid that has it over the
    same data and mixture size (points of search spaces are of the newest grid alone).

    No trials where none was planned. Raises QueryError for an unknown sweep."""
    plans = ledger.sql("SELECT * EXCLUDE (config) FROM plans ORDER BY planned_at, sweep_id, trial_key").to_pylist()
    if sweep_id is None:
        chosen = _comparable(plans)
    else:
        require_sweep(ledger, sweep_id)
        chosen = _of_whole_mixtures([plan for plan in plans if plan["sweep_id"] == sweep_id])
    trials = load_trials(ledger, chosen)
    latest = chosen[-1] if chosen else {}
    return Grid(
        trials=trials,
        domains=_domains(chosen, trials),
        preset=latest.get("preset"),
        mixture_size=latest.get("mixture_size"),
        num_mixed=len(latest.get("domains") or ()),
        unseen=_unseen(chosen),
        known=_grid_ids(plans) if sweep_id is None else (),
    )


def load_trials(ledger: Ledger, plans: Sequence[dict[str, Any]]) -> tuple[GridTrial, ...]:
    """The trials of these rows of `plans`, each once, with their status and test scores."""
    if not plans:
        return ()
    states, scores = _states(ledger), _test_scores(ledger)
    return tuple(_trial(plan, states, scores) for plan in {plan["trial_key"]: plan for plan in plans}.values())


def require_sweep(ledger: Ledger, sweep_id: str) -> None:
    """Raises QueryError, which names the nearest, for a sweep that the ledger does not have."""
    known = ledger.sql("SELECT DISTINCT sweep_id FROM plans ORDER BY sweep_id").column(0).to_pylist()
    if sweep_id not in known:
        raise no_sweep("sweep", sweep_id, known)


def _grid_ids(plans: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(plan["sweep_id"] for plan in reversed(plans) if plan["sweep_kind"] == "grid"))


def _comparable(plans: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    grids = _of_whole_mixtures([plan for plan in plans if plan["sweep_kind"] == "grid"])
    if not grids:
        return []
    setting, latest = _setting(grids[-1]), grids[-1]["sweep_id"]
    alike = [
        plan for plan in grids if _setting(plan) == setting and (plan["sweep_id"] == latest or "=" not in plan["trainable"])
    ]
    newest = {plan["trainable"]: plan["sweep_id"] for plan in alike}  # by time, so that the last one seen is the newest
    return [plan for plan in alike if newest[plan["trainable"]] == plan["sweep_id"]]


def _of_whole_mixtures(plans: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without experts of one domain among those of a group: no models of the mixture, but what others begin from."""
    most: dict[tuple[Any, ...], int] = {}
    for plan in plans:
        cell = plan["sweep_id"], plan["squad_share"]
        most[cell] = max(most.get(cell, 0), _num_trained(plan))
    return [plan for plan in plans if _num_trained(plan) == most[plan["sweep_id"], plan["squad_share"]]]


def _num_trained(plan: dict[str, Any]) -> int:
    """Domains with training examples; 0 in ledgers of before schema 7, which had two domains."""
    return sum(count > 0 for count in plan["domain_examples"] or ())


def _setting(plan: dict[str, Any]) -> tuple[Any, ...]:
    return (plan["data_fingerprint"], plan["mixture_size"], tuple(plan["domains"] or ()))


def _states(ledger: Ledger) -> dict[str, dict[str, Any]]:
    rows = ledger.sql("SELECT trial_key, status, error_type FROM trials").to_pylist()
    return {row["trial_key"]: row for row in rows}


def _test_scores(ledger: Ledger) -> dict[str, dict[str, dict[str, float]]]:
    """Trial key to metric to domain to the score of the last test, in percent."""
    rows = ledger.sql("""
        SELECT trial_key, domain, em, f1 FROM evaluations WHERE split = 'test'
        QUALIFY row_number() OVER (PARTITION BY trial_key, domain ORDER BY step DESC) = 1
        ORDER BY trial_key, domain
    """).to_pylist()
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        for metric in METRICS:
            if row[metric] is not None:
                scores.setdefault(row["trial_key"], {}).setdefault(metric, {})[row["domain"]] = row[metric]
    return scores


def _trial(
    plan: dict[str, Any], states: dict[str, dict[str, Any]], scores: dict[str, dict[str, dict[str, float]]]
) -> GridTrial:
    state = states.get(plan["trial_key"], {"status": "planned", "error_type": None})
    tested = scores.get(plan["trial_key"], {}) if state["status"] == "completed" else {}
    return GridTrial(
        trial_key=plan["trial_key"],
        sweep_id=plan["sweep_id"],
        trainable=plan["trainable"] or "?",
        order=plan["data_order"] or "?",
        share=plan["squad_share"] if plan["squad_share"] is not None else 0,
        seed=plan["seed"] if plan["seed"] is not None else 0,
        status=state["status"],
        error_type=state["error_type"],
        em=tested.get("em", {}),
        f1=tested.get("f1", {}),
    )


def _domains(plans: Sequence[dict[str, Any]], trials: Sequence[GridTrial]) -> tuple[str, ...]:
    mixed = [domain for plan in plans for domain in plan["domains"] or ()]
    tested = sorted({domain for trial in trials for domain in trial.em})
    return tuple(dict.fromkeys([*mixed, *tested]))


def _unseen(plans: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Domains without an example in the mixture of any of these plans; of ledgers before schema 7 nobody knows."""
    most: dict[str, int] = {}
    for plan in plans:
        for domain, count in zip(plan["domains"] or (), plan["domain_examples"] or (), strict=False):
            most[domain] = max(most.get(domain, 0), count)
    return tuple(domain for domain, count in most.items() if not count)


def _describe(trial: GridTrial) -> str:
    return f"{trial.trial_key} ({trial.trainable} {ratio(trial.share)} {trial.order} seed {trial.seed})"


def _because(trial: GridTrial) -> str:
    return f" ({trial.error_type})" if trial.error_type else ""
