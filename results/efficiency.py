"""What a score costs: hours of each trial, the Pareto set of hours and score, and hours or money per trial and per point.

An hour is a GPU-hour (wall hours x GPUs held) where every attempt held GPUs, else a slot-hour (wall hours of one attempt). The
*useful* hours of a trial, those in the trainable that its result rests on, are set against its score: that an attempt was lost
or waited for its start says nothing about the model. To be paid are all of its hours, and of a sweep its idle slots too.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from results.ledger import Ledger
from results.readable import significant_text
from results.spending import CHARGED, KINDS, Spending, load_spending
from results.sweep_trials import Metric, SweepTrial, SweepTrials, load_sweep_trials

__all__ = ["Efficiency", "TrialCost", "Unit", "efficiency_table", "efficiency_text", "load_efficiency", "pareto_set"]

Unit = Literal["gpu_hours", "slot_hours"]

_UNIT_WORDS: dict[Unit, str] = {"gpu_hours": "GPU-hours", "slot_hours": "slot-hours"}
_POINTS: dict[Metric, str] = {"em": "em_point", "val_qa_loss": "nat"}
_FACTS = ("trial_key", "trainable", "share", "order", "seed", "status")


@dataclass(frozen=True, kw_only=True)
class TrialCost:
    """What one trial took, over its attempts in all sweeps."""

    trial: SweepTrial
    attempts: int
    hours: float
    """Of all attempts, their start-up and what was lost included."""
    useful_hours: float
    """In the trainable, kept by the trial; of a trial that was stopped early, until then."""
    is_done: bool
    """Completed, with a score and its times."""
    is_pareto: bool
    """Done, and no trial that is done is better in hours or score without being worse in the other."""
    hours_per_point: float | None
    """Useful hours above the cheapest done trial's for each point of score above it; None where it scores no better."""


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """The trials of a sweep by their useful hours, and what the sweep's runs spent."""

    sweep: SweepTrials
    unit: Unit
    costs: tuple[TrialCost, ...]
    """The cheapest first; those that took no time yet last."""
    spent: tuple[Spending, ...]
    """One for each of the sweeps."""
    completed: dict[str, int]
    """Sweep to how many trials its runs completed."""
    is_mixed: bool
    """Some attempts held GPUs and some did not."""

    @property
    def unit_words(self) -> str:
        """The unit as text."""
        return _UNIT_WORDS[self.unit]

    def hours_spent(self, spending: Spending) -> dict[str, float]:
        """A sweep's hours by kind."""
        seconds = spending.gpu_seconds if self.unit == "gpu_hours" else spending.seconds
        return {kind: value / 3600 for kind, value in seconds.items()}


def pareto_set(points: Sequence[tuple[float, float]]) -> list[bool]:
    """For each (cost, badness), both to be low, whether no other point is lower in one and no higher in the other.

    Equal points stand or fall together.
    """
    front: set[tuple[float, float]] = set()
    best = math.inf
    for point in sorted(set(points)):
        # Sorted by cost, so that a point has to beat the badness of all cheaper ones, and of its equals only the first.
        if point[1] < best:
            front.add(point)
            best = point[1]
    return [point in front for point in points]


def load_efficiency(ledger: Ledger, sweep_id: str | None = None) -> Efficiency:
    """The costs of the trials that `load_sweep_trials` gives; raises what that raises."""
    sweep = load_sweep_trials(ledger, sweep_id)
    keys = {"keys": [trial.trial_key for trial in sweep.trials]}
    used = {row["trial_key"]: row for row in ledger.sql(_USED, keys).to_pylist()}
    held = [row["least_gpus"] > 0 for row in used.values()]
    unit: Unit = "gpu_hours" if held and all(held) else "slot_hours"
    counted = ledger.sql(_COMPLETED, {"sweeps": list(sweep.sweep_ids)}).to_pylist()
    return Efficiency(
        sweep=sweep,
        unit=unit,
        costs=_costs(sweep, used, unit),
        spent=tuple(load_spending(ledger, name) for name in sweep.sweep_ids),
        completed={row["sweep_id"]: row["trials"] for row in counted},
        is_mixed=unit == "slot_hours" and any(row["most_gpus"] > 0 for row in used.values()),
    )


def efficiency_table(
    ledger: Ledger, sweep_id: str | None = None, price: float | None = None, *, by: str = "trial"
) -> tuple[pa.Table, list[str]]:
    """One row a trial, the cheapest first, or one a model (means over its completed trials, sums over all); and the bill.

    `price` is that of one GPU-hour, or slot-hour where no GPUs were held, in whatever currency; it adds the columns of cost.

    Raises:
        ValueError: `price` is not a positive number, or `by` is neither trial nor model.
        QueryError: the ledger does not have the sweep.
    """
    if price is not None and not 0 < price < math.inf:
        raise ValueError(f"price must be a number above 0 for each GPU-hour or slot-hour, got {price}")
    if by not in ("trial", "model"):
        raise ValueError(f"by must be trial or model, got {by!r}")
    found = load_efficiency(ledger, sweep_id)
    rows = _trial_rows(found, price) if by == "trial" else _model_rows(found, price)
    table = pa.Table.from_pylist(rows, schema=_schema(found, price, by))
    return table, _notes(found, price, _extra_note(found, by, table))


def efficiency_text(table: pa.Table) -> pa.Table:
    """The table for people: EM as elsewhere, other numbers in three digits."""
    for place, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            is_em = field.name.split()[0] == "em"
            texts = [f"{v:.1f}" if is_em and v is not None else significant_text(v) for v in table.column(place).to_pylist()]
            table = table.set_column(place, pa.field(field.name, pa.string(), metadata={"align": "right"}), [texts])
    return table


_SECONDS = " + ".join(KINDS)

_USED = f"""
    SELECT trial_key, count(*) AS attempts, sum({_SECONDS}) AS seconds, sum(useful_seconds + stopped_seconds) AS useful,
           sum(gpus_per_trial * ({_SECONDS})) AS gpu_seconds,
           sum(gpus_per_trial * (useful_seconds + stopped_seconds)) AS gpu_useful,
           min(gpus_per_trial) AS least_gpus, max(gpus_per_trial) AS most_gpus
    FROM ({CHARGED}) WHERE trial_key IN (SELECT unnest($keys::VARCHAR[])) GROUP BY trial_key
"""

_COMPLETED = f"""
    SELECT charged_to AS sweep_id, count(DISTINCT trial_key) AS trials
    FROM ({CHARGED}) AS charged JOIN attempts USING (trial_key, attempt)
    WHERE attempts.status = 'completed' AND charged_to IN (SELECT unnest($sweeps::VARCHAR[])) GROUP BY charged_to
"""


def _costs(sweep: SweepTrials, used: dict[str, dict[str, Any]], unit: Unit) -> tuple[TrialCost, ...]:
    all_of, useful_of = ("gpu_seconds", "gpu_useful") if unit == "gpu_hours" else ("seconds", "useful")
    nothing = {all_of: 0.0, useful_of: 0.0, "attempts": 0}
    took = {trial.trial_key: used.get(trial.trial_key, nothing) for trial in sweep.trials}
    # A completed trial whose times were not recorded would be the cheapest of all.
    rated = [trial for trial in sweep.completed if took[trial.trial_key][useful_of] > 0]
    points = [(took[trial.trial_key][useful_of] / 3600, sweep.badness(trial)) for trial in rated]
    pareto = {trial.trial_key for trial, is_in in zip(rated, pareto_set(points), strict=True) if is_in}
    point_of = {trial.trial_key: point for trial, point in zip(rated, points, strict=True)}
    costs = [
        TrialCost(
            trial=trial,
            attempts=took[trial.trial_key]["attempts"],
            hours=took[trial.trial_key][all_of] / 3600,
            useful_hours=took[trial.trial_key][useful_of] / 3600,
            is_done=trial.trial_key in point_of,
            is_pareto=trial.trial_key in pareto,
            hours_per_point=_per_point(min(points, default=(0.0, 0.0)), point_of.get(trial.trial_key)),
        )
        for trial in sweep.trials
    ]
    return tuple(sorted(costs, key=lambda cost: (cost.useful_hours or math.inf, sweep.badness(cost.trial))))


def _per_point(cheapest: tuple[float, float], point: tuple[float, float] | None) -> float | None:
    """Extra cost over extra score, the incremental cost-effectiveness ratio of health economics."""
    if point is None or point[1] >= cheapest[1]:
        return None
    return (point[0] - cheapest[0]) / (cheapest[1] - point[1])


def _trial_rows(found: Efficiency, price: float | None) -> list[dict[str, Any]]:
    return [
        {
            **{name: getattr(cost.trial, name) for name in _FACTS},
            "attempts": cost.attempts,
            "params_total": cost.trial.params_total,
            "params_active": cost.trial.params_active,
            **{f"em {domain}": cost.trial.em.get(domain) for domain in found.sweep.domains},
            "em": cost.trial.mean_em,
            "val_qa_loss": cost.trial.val_qa_loss,
            **_hour_cells(found, price, by="trial", useful=cost.useful_hours, hours=cost.hours, per_point=cost.hours_per_point),
            "pareto": "yes" if cost.is_pareto else "",
        }
        for cost in found.costs
    ]


@dataclass(frozen=True)
class _Model:
    """The trials of one trainable."""

    name: str
    costs: list[TrialCost]
    done: list[TrialCost]
    """The means are over them."""
    point: tuple[float, float] | None
    """Mean useful hours and mean badness; None where none is done."""


def _models(found: Efficiency) -> list[_Model]:
    """By mean useful hours, those without a completed trial last."""
    models = []
    for name in dict.fromkeys(cost.trial.trainable for cost in found.costs):
        costs = [cost for cost in found.costs if cost.trial.trainable == name]
        done = [cost for cost in costs if cost.is_done]
        badness = _mean([found.sweep.badness(cost.trial) for cost in done])
        hours = _mean([cost.useful_hours for cost in done])
        models.append(_Model(name, costs, done, None if hours is None or badness is None else (hours, badness)))
    return sorted(models, key=lambda model: model.point or (math.inf, math.inf))


def _model_rows(found: Efficiency, price: float | None) -> list[dict[str, Any]]:
    models = _models(found)
    points = [model.point for model in models if model.point]
    pareto = {point for point, is_in in zip(points, pareto_set(points), strict=True) if is_in}
    return [
        {
            "trainable": model.name,
            "trials": len(model.costs),
            "completed": len(model.done),
            **_mean_facts(found, [cost.trial for cost in model.done]),
            **_hour_cells(
                found,
                price,
                by="model",
                useful=model.point[0] if model.point else None,
                hours=math.fsum(cost.hours for cost in model.costs),
                per_point=_per_point(points[0], model.point) if points else None,
            ),
            "pareto": "yes" if model.point in pareto else "",
        }
        for model in models
    ]


def _mean_facts(found: Efficiency, trials: Sequence[SweepTrial]) -> dict[str, float | None]:
    """Means over `trials` of what `_trial_rows` has of each; parameters rounded to whole ones."""
    sizes = {name: _mean([getattr(trial, name) for trial in trials]) for name in ("params_total", "params_active")}
    return {
        **{name: None if size is None else round(size) for name, size in sizes.items()},
        **{f"em {domain}": _mean([trial.em.get(domain) for trial in trials]) for domain in found.sweep.domains},
        "em": _mean([trial.mean_em for trial in trials]),
        "val_qa_loss": _mean([trial.val_qa_loss for trial in trials]),
    }


def _hour_cells(
    found: Efficiency, price: float | None, *, by: str, useful: float | None, hours: float, per_point: float | None
) -> dict[str, float | None]:
    mean, total = ("mean_", "total_") if by == "model" else ("", "")
    cells: dict[str, float | None] = {
        f"{mean}useful_{found.unit}": useful,
        f"{total}{found.unit}": hours,
        _per_point_column(found): per_point,
    }
    if price is not None:
        cells[f"{total}cost"] = price * hours
        cells[f"cost_per_{_POINTS[found.sweep.metric]}"] = None if per_point is None else price * per_point
    return cells


def _per_point_column(found: Efficiency) -> str:
    return f"{found.unit}_per_{_POINTS[found.sweep.metric]}"


def _schema(found: Efficiency, price: float | None, by: str) -> pa.Schema:
    names = ["trainable", "trials", "completed"] if by == "model" else [*_FACTS, "attempts"]
    counts = {"trials", "completed", "attempts", "share", "seed", "params_total", "params_active"}
    scores = [*(f"em {domain}" for domain in found.sweep.domains), "em", "val_qa_loss"]
    reals = [*scores, *_hour_cells(found, price, by=by, useful=None, hours=0.0, per_point=None)]
    fields = [(name, pa.int64() if name in counts else pa.string()) for name in (*names, "params_total", "params_active")]
    return pa.schema([*fields, *((name, pa.float64()) for name in reals), ("pareto", pa.string())])


def _extra_note(found: Efficiency, by: str, table: pa.Table) -> str:
    """What the column of extra hours for each point holds, or why it is empty."""
    name = _per_point_column(found)
    meaning = f"{name}: useful hours above those of the cheapest completed {by}, for each point that it scores better"
    if table.column(name).null_count < table.num_rows:
        return meaning
    return f"{meaning}; empty, since none scores better than the cheapest"


def _notes(found: Efficiency, price: float | None, extra: str) -> list[str]:
    if not found.sweep.trials:
        return ["no sweep was planned in this ledger: run `python -m orchestrator.run grid`"]
    notes = []
    if found.unit == "gpu_hours":
        notes.append("GPU-hours are wall hours x GPUs held; useful ones are those that the trial's result rests on")
    else:
        why = "not every attempt held GPUs" if found.is_mixed else "no attempt held a GPU"
        notes.append(f"slot-hours are wall hours of an attempt ({why}); useful ones are those that the trial's result rests on")
    notes.append(extra)
    notes += [_bill(found, spending, price) for spending in found.spent]
    notes += [note for spending in found.spent for note in spending.notes]
    return notes + found.sweep.described


def _bill(found: Efficiency, spending: Spending, price: float | None) -> str:
    """What the runs of one sweep spent, by kind, and for each trial that they completed."""
    hours = found.hours_spent(spending)
    total, completed = math.fsum(hours.values()), found.completed.get(spending.sweep_id, 0)
    if not total:
        return f"{spending.sweep_id}: its runs took no {found.unit_words} of their own"
    kinds = ", ".join(f"{kind} {value / total:.1%}" for kind, value in hours.items() if value)
    cost = f" at {price:g} cost {price * total:.4g}" if price is not None else ""
    each = f"{total / completed:.4g} {found.unit_words}" if completed else "none"
    if completed and price is not None:
        each += f", {price * total / completed:.4g}"
    return f"{spending.sweep_id}: {total:.4g} {found.unit_words}{cost} ({kinds}); per completed trial ({completed}): {each}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
