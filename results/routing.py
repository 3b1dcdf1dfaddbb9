"""How expert layers spread the tokens: load, balance and what differs between the domains, over training and at its end.

Symbols: E = experts of a layer; p_e = share of the layer's assignments that expert e is given, before any capacity limit; g_e =
mean gate probability of expert e. Both sum to 1 over e. Where a token goes to K experts, no p_e is above 1 / K.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from results.ledger import Ledger
from results.sweep_trials import SweepTrial, SweepTrials, load_sweep_trials

__all__ = [
    "DEAD_BELOW",
    "Divergence",
    "LayerLoad",
    "Routing",
    "coefficient_of_variation",
    "divergences",
    "entropy",
    "jensen_shannon",
    "load_routing",
    "nothing_routed",
    "routing_table",
]

DEAD_BELOW = 0.01
"""An expert counts as dead on a domain where its load is below this share of an even load, 1 / E. Our own convention: papers
call an expert dead when it gets nothing, which a handful of tokens in a test split would hide."""


def entropy(shares: Sequence[float]) -> float:
    """-sum p ln p, in nats: 0 where one expert takes all, ln E where the load is even. Source: Shannon (1948)."""
    return max(0.0, -math.fsum(share * math.log(share) for share in shares if share > 0))


def coefficient_of_variation(shares: Sequence[float]) -> float:
    """Population standard deviation over mean: 0 where the load is even, sqrt(E - 1) where one expert takes all.

    Source: Shazeer et al. 2017 ("Outrageously Large Neural Networks"), §4, whose importance and load losses are its square.
    """
    mean = math.fsum(shares) / len(shares)
    return math.sqrt(math.fsum((share - mean) ** 2 for share in shares) / len(shares)) / mean


def jensen_shannon(distributions: Sequence[Sequence[float]]) -> float:
    """Jensen-Shannon divergence of equally weighted distributions over the same experts, in bits (base 2).

    The mean over them of sum p log2(p / m), m being their mean: 0 where all are equal, log2 of their number where no two share
    an expert, so at most 1 for two domains. Source: Lin 1991 ("Divergence measures based on the Shannon entropy"), §IV.
    """
    means = [math.fsum(column) / len(distributions) for column in zip(*distributions, strict=True)]
    terms = (p * math.log2(p / m) for shares in distributions for p, m in zip(shares, means, strict=True) if p > 0)
    # The divergence is never negative; the rounding of its terms may make it so.
    return max(0.0, math.fsum(terms) / len(distributions))


@dataclass(frozen=True, kw_only=True)
class LayerLoad:
    """How a trial's layer used its experts over one domain's split at one report; tuples are by expert."""

    trial_key: str
    split: str
    """val | test."""
    step: int
    epoch: float | None
    layer: int
    domain: str
    load: tuple[float, ...]
    """p_e."""
    gate: tuple[float, ...]
    """g_e."""
    dropped: tuple[float, ...]
    """Of the assignments to each expert, the share that found no room."""

    @property
    def normalised_entropy(self) -> float:
        """Entropy of the load over ln E, its largest value: 1 where the load is even; also 1 for a single expert."""
        return entropy(self.load) / math.log(len(self.load)) if len(self.load) > 1 else 1.0

    @property
    def drop_rate(self) -> float:
        """Of all assignments of the layer, the share that found no room: the experts' shares weighted by their load."""
        return math.fsum(load * dropped for load, dropped in zip(self.load, self.dropped, strict=True))

    @property
    def num_dead(self) -> int:
        """Experts with less than `DEAD_BELOW` of an even load."""
        return sum(load < DEAD_BELOW / len(self.load) for load in self.load)

    @property
    def balance(self) -> float:
        """E x sum p_e g_e over the whole split: 1 where both are even, E where one expert takes all.

        Source: the balance loss of Fedus et al. 2021 (Switch Transformer, eq. 4-6) and Zoph et al. 2022 (ST-MoE, appendix A)
        without its coefficient; there p_e counts first choices only, here all choices, and nothing is dropped before.
        """
        return len(self.load) * math.fsum(p * g for p, g in zip(self.load, self.gate, strict=True))


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """How differently a trial's layer treats the domains at one report, in bits: 0 alike, 1 for two domains without a common
    expert."""

    trial_key: str
    split: str
    step: int
    epoch: float | None
    layer: int
    load: float
    """Between the domains' loads p_e."""
    gate: float
    """Between the domains' mean gate probabilities g_e, which also tell of preferences that change no choice."""


@dataclass(frozen=True, kw_only=True)
class Routing:
    """All that the trials of a sweep left in `routing`."""

    sweep: SweepTrials
    loads: tuple[LayerLoad, ...]
    """By trial in the sweep's order, then split, step, layer and domain in mixture order."""

    @property
    def trials(self) -> tuple[SweepTrial, ...]:
        """Those with expert layers that were measured."""
        routed = {load.trial_key for load in self.loads}
        return tuple(trial for trial in self.sweep.trials if trial.trial_key in routed)

    @property
    def best(self) -> SweepTrial | None:
        """The completed one of the best score, else the first; None without any."""
        routed = self.trials
        keys = {trial.trial_key for trial in routed}
        completed = [trial for trial in self.sweep.completed if trial.trial_key in keys]
        return min(completed, key=self.sweep.badness) if completed else next(iter(routed), None)

    @property
    def final(self) -> tuple[LayerLoad, ...]:
        """Of each trial the test, or where it was not tested the last validation."""
        last: dict[str, tuple[bool, int]] = {}
        for load in self.loads:
            last[load.trial_key] = max(last.get(load.trial_key, (False, -1)), _standing(load))
        return tuple(load for load in self.loads if _standing(load) == last[load.trial_key])

    def of_trial(self, trial_key: str) -> tuple[LayerLoad, ...]:
        """The loads of one trial."""
        return tuple(load for load in self.loads if load.trial_key == trial_key)


def divergences(loads: Iterable[LayerLoad]) -> list[Divergence]:
    """One for each report and layer that has more than one domain."""
    grouped: dict[tuple[str, str, int, int], list[LayerLoad]] = {}
    for load in loads:
        grouped.setdefault((load.trial_key, load.split, load.step, load.layer), []).append(load)
    return [
        Divergence(
            trial_key=trial_key,
            split=split,
            step=step,
            epoch=domains[0].epoch,
            layer=layer,
            load=jensen_shannon([domain.load for domain in domains]),
            gate=jensen_shannon([domain.gate for domain in domains]),
        )
        for (trial_key, split, step, layer), domains in grouped.items()
        if len(domains) > 1
    ]


def load_routing(ledger: Ledger, sweep_id: str | None = None) -> Routing:
    """The routing of the trials that `load_sweep_trials` gives; raises what that raises."""
    sweep = load_sweep_trials(ledger, sweep_id)
    trials = {trial.trial_key: number for number, trial in enumerate(sweep.trials)}
    domains = {domain: number for number, domain in enumerate(sweep.domains)}
    loads = [_layer_load(row) for row in ledger.sql(_LOADS, {"keys": list(trials)}).to_pylist()]

    def place(load: LayerLoad) -> tuple[Any, ...]:
        # A domain that is in no mixture and was never tested comes last.
        domain = domains.get(load.domain, len(domains))
        return trials[load.trial_key], load.split == "test", load.step, load.layer, domain, load.domain

    return Routing(sweep=sweep, loads=tuple(sorted(loads, key=place)))


def routing_table(ledger: Ledger, sweep_id: str | None = None) -> tuple[pa.Table, list[str]]:
    """One row a trial, expert layer and domain, at the end of training; and what the columns mean.

    No rows for a sweep without expert layers; a note says so. Raises QueryError for a sweep that the ledger does not have.
    """
    found = load_routing(ledger, sweep_id)
    trials = {trial.trial_key: trial for trial in found.trials}
    between = {(one.trial_key, one.layer): one for one in divergences(found.final)}
    rows = [_row(trials[load.trial_key], load, between.get((load.trial_key, load.layer))) for load in found.final]
    return pa.Table.from_pylist(rows, schema=_SCHEMA), _notes(found)


def nothing_routed(sweep: SweepTrials) -> str:
    """Why there is nothing to show of a sweep's routing, and what to do."""
    return (
        f"no trial of {sweep.name} has measured expert layers: routing is recorded at each validation of models with experts, "
        "such as the trainable exbert"
    )


_LOADS = """
    WITH grouped AS (
        SELECT trial_key, split, step, layer, domain, list(load_share ORDER BY expert) AS load,
               list(mean_gate ORDER BY expert) AS gate, list(dropped_share ORDER BY expert) AS dropped
        FROM routing WHERE trial_key IN (SELECT unnest($keys::VARCHAR[])) GROUP BY ALL
    )
    SELECT grouped.*, reports.epoch FROM grouped LEFT JOIN reports USING (trial_key, step)
"""

_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("trial_key", "trainable")),
        ("share", pa.int64()),
        ("order", pa.string()),
        ("seed", pa.int64()),
        *((name, pa.string()) for name in ("status", "split")),
        *((name, pa.int64()) for name in ("step", "layer")),
        ("domain", pa.string()),
        ("experts", pa.int64()),
        *((name, pa.float64()) for name in ("entropy", "normalised_entropy", "cv", "max_load")),
        ("dead", pa.int64()),
        *((name, pa.float64()) for name in ("dropped", "balance", "js_load", "js_gate")),
    ]
)


def _layer_load(row: dict[str, Any]) -> LayerLoad:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    return LayerLoad(**values)


def _standing(load: LayerLoad) -> tuple[bool, int]:
    return load.split == "test", load.step


def _row(trial: SweepTrial, load: LayerLoad, between: Divergence | None) -> dict[str, Any]:
    return {
        **{name: getattr(trial, name) for name in ("trial_key", "trainable", "share", "order", "seed", "status")},
        **{name: getattr(load, name) for name in ("split", "step", "layer", "domain", "balance")},
        "experts": len(load.load),
        "entropy": entropy(load.load),
        "normalised_entropy": load.normalised_entropy,
        "cv": coefficient_of_variation(load.load),
        "max_load": 100 * max(load.load),
        "dead": load.num_dead,
        "dropped": 100 * load.drop_rate,
        "js_load": between.load if between else None,
        "js_gate": between.gate if between else None,
    }


def _notes(found: Routing) -> list[str]:
    if not found.loads:
        return [nothing_routed(found.sweep), *found.sweep.described]
    return [
        f"{len(found.trials)} of {len(found.sweep.trials)} trials have measured expert layers",
        "of each the test, or the last validation where it was not tested: entropy of the load in nats and over ln(experts), "
        "cv its coefficient of variation, max_load and dropped in percent of the layer's assignments, "
        f"dead the experts below {DEAD_BELOW:.0%} of an even load, balance 1 where even",
        "js_load and js_gate: Jensen-Shannon divergence between the domains in bits, 0 alike, 1 for two that share no expert",
        *found.sweep.described,
    ]
