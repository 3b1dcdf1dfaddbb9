"""Running a recorded trial again from its provenance, and comparing what it measures with what the ledger says."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.errors import SweepError
from orchestrator.machine import num_gpus
from orchestrator.node_files import NodeFiles, node_files
from orchestrator.preset import Recovery
from orchestrator.trial import Trial
from orchestrator.worker import Attempt, Ended, RunSettings
from results.ledger import Ledger
from results.storage import StorageLike
from trainables.data.sources import data_fingerprint
from trainables.registry import settings_of

__all__ = ["RELATIVE_TOLERANCE", "Replay", "compare_rows", "replay_trial"]

RELATIVE_TOLERANCE = 1e-3
"""On other hardware or packages: of losses, as float32 rounding adds up over a fine-tuning's steps."""

_ABSOLUTE_TOLERANCE_PERCENT = 2.0
"""On other hardware: of scores in percent, where a logit that moves a little can change a few answers."""

_TABLES = {
    "reports": "SELECT * EXCLUDE (attempt, wall_seconds) FROM reports WHERE trial_key = $key ORDER BY ALL",
    "evaluations": "SELECT * EXCLUDE (attempt) FROM evaluations WHERE trial_key = $key ORDER BY ALL",
    "predictions": "SELECT * EXCLUDE (attempt) FROM predictions WHERE trial_key = $key ORDER BY domain, example_id",
    "routing": "SELECT * EXCLUDE (attempt) FROM routing WHERE trial_key = $key ORDER BY ALL",
}
_PERCENTAGES = {"em", "f1", "em_raw", "contains_gold"}


@dataclass(frozen=True, kw_only=True)
class Replay:
    """How a trial that was run again compares with its record."""

    trial_key: str
    rows: Mapping[str, int]  # rows of the record, by table
    differing: Mapping[str, int]  # rows that are not equal to the bit, by table
    beyond: tuple[str, ...]  # what differs by more than the tolerance
    changed: Mapping[str, tuple[str, str]]  # provenance that is another now: (recorded, now)

    @property
    def is_identical(self) -> bool:
        """Every row is equal to the bit."""
        return not any(self.differing.values())

    @property
    def is_same(self) -> bool:
        """Identical; or within the tolerance, where the hardware or the packages are others than they were."""
        return self.is_identical or (bool(self.changed) and not self.beyond)

    def describe(self) -> Iterator[str]:
        """The comparison in lines."""
        for table, count in self.rows.items():
            differing = self.differing[table]
            yield f"{table}: {count} rows, " + (f"{differing} differ" if differing else "identical")
        for name, (recorded, now) in self.changed.items():
            yield f"{name} was {recorded}, is {now}"
        yield from self.beyond
        yield f"{self.trial_key}: {self._verdict()}"

    def _verdict(self) -> str:
        if self.is_identical:
            return "identical to the bit"
        if self.is_same:
            return f"the same within the tolerance ({RELATIVE_TOLERANCE:g} relative) on other hardware or packages"
        return "DIFFERENT, and nothing that was recorded explains it" if not self.changed else "DIFFERENT beyond the tolerance"

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "trial_key": self.trial_key,
            "identical": self.is_identical,
            "same": self.is_same,
            "rows": dict(self.rows),
            "differing": dict(self.differing),
            "beyond_tolerance": list(self.beyond),
            "changed": {name: list(pair) for name, pair in self.changed.items()},
        }


def replay_trial(trial_key: str, storage: StorageLike, say: Callable[[str], None]) -> Replay:
    """Runs the completed trial `trial_key` of `storage` in a folder of its own and compares; the storage stays as it is.

    Raises:
        SweepError: there is no such trial, it has not completed, or its data or its trainable's version are others now.
    """
    ledger = Ledger(storage, must_exist=False)
    recorded = _recorded(ledger, trial_key)
    trial = _trial(recorded, storage)
    if recorded["device"] != "cpu" and not num_gpus():
        raise SweepError(
            f"{trial_key} was run on {recorded['device']}, and this machine has no GPU; replay it where there is one"
        )
    with tempfile.TemporaryDirectory(prefix="replay-") as folder:
        say(f"running {trial.summary} again, {recorded['num_threads']} threads")
        _run(trial, recorded, Path(folder), node_files(storage), say)
        again = Ledger(folder)
        before, after = ({name: _rows(each, query, trial_key) for name, query in _TABLES.items()} for each in (ledger, again))
        changed = _changed(recorded, _attempt(again, trial_key))
    pairs = {name: compare_rows(name, before[name], after[name]) for name in _TABLES}
    return Replay(
        trial_key=trial_key,
        rows={name: len(rows) for name, rows in before.items()},
        differing={name: differing for name, (differing, _) in pairs.items()},
        beyond=tuple(line for _, beyond in pairs.values() for line in beyond),
        changed=changed,
    )


def compare_rows(table: str, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> tuple[int, list[str]]:
    """How many rows are not equal, and what differs by more than the tolerance, a line each."""
    if len(before) != len(after):
        return max(len(before), len(after)), [f"{table}: {len(before)} rows were recorded, {len(after)} now"]
    differing = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    beyond = [
        f"{table}.{name}: {old[name]} was recorded, {new[name]} now"
        for old, new in differing
        for name in old
        if table != "predictions" and not _is_close(name, old[name], new[name])
    ]
    return len(differing), beyond


def _is_close(name: str, old: Any, new: Any) -> bool:
    if not isinstance(old, float) or not isinstance(new, float):
        return bool(old == new)
    absolute = _ABSOLUTE_TOLERANCE_PERCENT if name in _PERCENTAGES else RELATIVE_TOLERANCE
    return math.isclose(old, new, rel_tol=RELATIVE_TOLERANCE, abs_tol=absolute)


def _recorded(ledger: Ledger, trial_key: str) -> dict[str, Any]:
    """The trial's plan and its completed attempt."""
    query = """
        SELECT plans.*, attempts.num_threads, attempts.device, attempts.gpu_seconds, attempts.host, attempts.code_hash,
               attempts.git_commit, attempts.versions, attempts.micro_batches
        FROM plans JOIN attempts USING (trial_key)
        WHERE trial_key = $key AND attempts.status = 'completed' ORDER BY planned_at, attempt LIMIT 1
    """
    rows = ledger.sql(query, {"key": trial_key}).to_pylist()
    if not rows:
        known = ledger.sql("SELECT status FROM trials WHERE trial_key = $key", {"key": trial_key}).to_pylist()
        what = f"is {known[0]['status']}, and only a completed trial can be compared" if known else "is not in the ledger"
        listing = "python -m results table trials"
        raise SweepError(f"trial {trial_key} {what}; `{listing}` lists the keys")
    found: dict[str, Any] = rows[0]
    return found


def _trial(recorded: Mapping[str, Any], storage: StorageLike) -> Trial:
    name, version = recorded["architecture"], settings_of(recorded["architecture"]).version
    if version != recorded["trainable_version"]:
        raise SweepError(
            f"{recorded['trial_key']} was run with {name} version {recorded['trainable_version']}, and this is version "
            f"{version}: check out commit {recorded['git_commit'] or 'of that version'} to replay it"
        )
    ledger = Ledger(storage)
    parents = [_trial(_recorded(ledger, key), storage) for key in recorded["parent_keys"]]
    trial = Trial.from_json(
        {
            "key": recorded["trial_key"],
            "trainable": name,
            "variant": recorded["variant"],
            "version": version,
            "config": json.loads(recorded["config"]),
            "data": _in_order(json.loads(recorded["data"]), recorded["domains"]),
            "data_fingerprint": recorded["data_fingerprint"],
            "seed": recorded["seed"],
            "parent_trials": [parent.to_json() for parent in parents],
        }
    )
    trial = replace(trial, data=node_files(storage).local(trial.data))
    if data_fingerprint(trial.data) != trial.data_fingerprint:
        raise SweepError(f"the data of {trial.key} has changed since it was run; put it back to replay the trial")
    return trial


def _in_order(data: dict[str, Any], domains: list[str]) -> dict[str, Any]:
    """The ledger's JSON has sorted keys, but which domain comes first decides what shares mean."""
    return {**data, "domains": {name: data["domains"][name] for name in domains}}


def _run(trial: Trial, recorded: Mapping[str, Any], folder: Path, origin: NodeFiles, say: Callable[[str], None]) -> None:
    """`origin`: the files of the storage that has the trial."""
    (folder / "sweeps" / "replay").mkdir(parents=True)
    if origin.prepared_dir.exists():
        (folder / "prepared").symlink_to(origin.prepared_dir, target_is_directory=True)
    for key in trial.parent_keys:
        weights = origin.final_weights(key)
        (folder / "checkpoints" / key).mkdir(parents=True)
        (folder / "checkpoints" / key / weights.name).symlink_to(weights.resolve())
    settings = RunSettings(
        storage=folder,
        sweep_id="replay",
        run_id="replay",
        cpus=recorded["num_threads"],
        gpus=float(recorded["device"] != "cpu"),
        memory_bytes=None,
        recovery=Recovery(max_retries=0),
        micro_batches=recorded["micro_batches"] or 1,
    )
    attempt = Attempt(trial, settings, launched_at=time.monotonic())
    try:
        while not isinstance(result := attempt.advance(), Ended):
            say(f"epoch {result['epoch']:g}")
    finally:
        attempt.close()


def _rows(ledger: Ledger, query: str, trial_key: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = ledger.sql(query, {"key": trial_key}).to_pylist()
    return rows


def _attempt(ledger: Ledger, trial_key: str) -> dict[str, Any]:
    row: dict[str, Any] = ledger.sql("SELECT * FROM attempts WHERE trial_key = $key", {"key": trial_key}).to_pylist()[0]
    return row


def _changed(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Provenance that may explain a difference, where it is another now."""
    pairs = {name: (str(recorded[name]), str(now[name])) for name in ("host", "device", "code_hash", "micro_batches")}
    old, new = json.loads(recorded["versions"]), json.loads(now["versions"])
    pairs |= {package: (old.get(package, "absent"), new.get(package, "absent")) for package in {*old, *new}}
    return {name: pair for name, pair in sorted(pairs.items()) if pair[0] != pair[1]}
