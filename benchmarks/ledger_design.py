"""The trials of a synthetic sweep and their attempts: what was planned, what became of it, who made which reports."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from results.identity import canonical_json, trial_key

__all__ = [
    "ARCHITECTURES",
    "EPOCHS",
    "FINGERPRINT",
    "REPORTS",
    "REPORTS_PER_EPOCH",
    "STEPS_PER_REPORT",
    "TRIALS",
    "Attempts",
    "Trials",
    "make_attempts",
    "make_trials",
    "planned_at",
    "sweep_id",
]

EPOCHS = 5
REPORTS_PER_EPOCH = 24
REPORTS = EPOCHS * REPORTS_PER_EPOCH
STEPS_PER_REPORT = 10
_CHECKPOINT_EVERY = 12  # reports
TRIALS = 96
_FATES = {"completed": 0.78, "stopped": 0.10, "failed": 0.07, "lost": 0.03, "running": 0.02}
_RETRIED = 0.1
_START = np.datetime64("2026-01-05T09:00:00", "us")
_SWEEP_SECONDS = 7200
FINGERPRINT = "f" * 64
ARCHITECTURES = np.array(["distilbert", "exbert"])
_ORDERS = np.array(["concatenated", "shuffled"])


@dataclass(frozen=True)
class Trials:
    """Columns of length 96, one row a trial."""

    number: int
    keys: pa.Array
    is_expert: np.ndarray
    order: np.ndarray
    share: np.ndarray
    seed: np.ndarray
    learning_rate: float
    configs: list[str]
    fate: np.ndarray
    last_report: np.ndarray


@dataclass(frozen=True)
class Attempts:
    """Columns with one row an attempt, sorted by trial and attempt; it made the reports after `begin` up to `end`."""

    trial: np.ndarray
    attempt: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    status: np.ndarray
    started_at: np.ndarray
    startup_seconds: np.ndarray
    train_seconds: np.ndarray

    @property
    def finished_at(self) -> np.ndarray:
        """When each ended, also for those that still run."""
        seconds = self.startup_seconds + self.train_seconds
        return self.started_at + (seconds * 1e6).astype("timedelta64[us]")


def make_trials(rng: np.random.Generator, number: int) -> Trials:
    """The plan of the sweep with this number."""
    index = np.arange(TRIALS)
    is_expert, order, share, seed = index % 2 == 1, _ORDERS[index // 2 % 2], 20 * (index // 4 % 6), index // 24
    learning_rate = float(10 ** rng.uniform(-5, -3.5))
    configs = [
        {"epochs": EPOCHS, "learning_rate": learning_rate, "order": str(o), "share": int(s), "sweep": number}
        for o, s in zip(order, share, strict=True)
    ]
    names = ARCHITECTURES[is_expert.astype(int)]
    keys = [trial_key(str(a), 1, c, FINGERPRINT, int(s), ()) for a, c, s in zip(names, configs, seed, strict=True)]
    fate = rng.choice(list(_FATES), TRIALS, p=list(_FATES.values()))
    last = np.where(fate == "completed", REPORTS, rng.integers(_CHECKPOINT_EVERY, REPORTS, TRIALS))
    texts = [canonical_json(config) for config in configs]
    return Trials(number, pa.array(keys), is_expert, order, share, seed, learning_rate, texts, fate, last)


def make_attempts(rng: np.random.Generator, trials: Trials) -> Attempts:
    """One attempt a trial, two where the first was preempted; the second began at the last checkpoint before that."""
    died_at = rng.integers(1, trials.last_report)
    retried = np.flatnonzero(rng.random(TRIALS) < _RETRIED)
    trial = np.concatenate([np.arange(TRIALS), retried])
    attempt = np.concatenate([np.ones(TRIALS, int), np.full(len(retried), 2)])
    row = np.lexsort([attempt, trial])
    trial, attempt = trial[row], attempt[row]
    is_lost = np.isin(trial, retried) & (attempt == 1)
    begin = np.where(attempt == 2, died_at[trial] - died_at[trial] % _CHECKPOINT_EVERY, 0)
    end = np.where(is_lost, died_at[trial], trials.last_report[trial])
    train = (end - begin) * 4.0 * rng.uniform(0.9, 1.1, len(trial))
    start = _START + np.timedelta64(trials.number * _SWEEP_SECONDS, "s") + (trial * 60 + attempt * 900).astype("timedelta64[s]")
    status = np.where(is_lost, "lost", trials.fate[trial])
    return Attempts(trial, attempt, begin, end, status, start, rng.uniform(1, 5, len(trial)), train)


def sweep_id(trials: Trials) -> str:
    """The sweep's id."""
    return f"grid-{trials.number:04d}"


def planned_at(trials: Trials) -> datetime:
    """When the sweep was planned."""
    moment: datetime = (_START + np.timedelta64(trials.number * _SWEEP_SECONDS, "s")).item()
    return moment.replace(tzinfo=UTC)
