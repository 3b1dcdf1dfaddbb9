"""Sweeps of simulated trials: through all of the orchestrator (plan, backend, recorder, ledger), and on Ray Tune alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from scale_trial import REPORTS, SECONDS, STAMPS

from results.ledger import Ledger

__all__ = ["Ended", "Ran", "Trials", "child", "inline", "ours", "tunes"]

_HERE = Path(__file__).parent

_PRESET = """
encoder: embedded
domains: {{squad: embedded, bioasq: embedded}}
trainables: [distilbert]
mixture_size: 20
shares: [60]
orders: [shuffled]
training: {{epochs: 1}}
evaluation: {{validation_examples: 4, test_examples: 4, reports_per_epoch: {reports}}}
resources: {{cpus_per_trial: 1, gpus_per_trial: 0}}
"""


class Trials(NamedTuple):
    """What is run: each trial takes `seconds` and makes `reports` reports."""

    number: int
    seconds: float
    reports: int


class Ended(NamedTuple):
    """A command that went well."""

    seconds: float
    peak_bytes: int  # of its process alone
    cpu_seconds: float  # of its process alone
    stdout: str


class Ran(NamedTuple):
    """A sweep."""

    trials: Trials
    slots: int
    seconds: float  # from the first thing that the run does to its last, Ray being there
    whole_seconds: float  # of the command, imports and planning included
    peak_bytes: int  # of the driver's process
    cpu_seconds: float  # of the driver's process
    reports_per_second: float  # over the second half of them, when all workers have started

    @property
    def least_seconds(self) -> float:
        """What the waiting alone takes."""
        return self.trials.number * self.trials.seconds / self.slots


def child(command: Sequence[str]) -> Ended:
    """Runs a command; ends this program with its last words when it fails."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=out, stderr=said, cwd=_HERE.parent)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        out.seek(0), said.seek(0)
        if process.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{said.read()[-3000:]}")
        return Ended(seconds, usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime, out.read())


def ours(trials: Trials, slots: int) -> Ran:
    """By this project on Ray."""
    with _folder(trials) as folder, _ray(folder, slots) as address:
        return _ours(trials, slots, folder, ["--address", address])


def inline(trials: Trials) -> Ran:
    """By this project without Ray, one trial after the other."""
    with _folder(trials) as folder:
        return _ours(trials, 1, folder, ["--backend", "inline"])


def _ours(trials: Trials, slots: int, folder: Path, where: Sequence[str]) -> Ran:
    preset, storage = folder / "preset.yaml", folder / "storage"
    preset.write_text(_PRESET.format(reports=min(100, trials.reports)), encoding="utf-8")
    command = [sys.executable, "-m", "orchestrator.run", "grid", "--preset", str(preset), "--storage", str(storage)]
    ended = child([*command, "--seeds", str(trials.number), "--yes", *where])
    completed = "SELECT count(*) FROM trials WHERE status = 'completed' AND params_total = 1"  # of a real training: more
    found = f"SELECT ({completed}) AS trials, (SELECT count(*) FROM reports) AS reports"
    [row] = Ledger(storage).sql(f"{found}, wall_seconds FROM runs").to_pylist()
    if (row["trials"], row["reports"]) != (trials.number, trials.number * trials.reports):
        sys.exit(f"the ledger should have {trials}, has {row}")
    return _ran(trials, slots, row["wall_seconds"], ended)


def tunes(trials: Trials, slots: int) -> Ran:
    """By Ray Tune alone."""
    with _folder(trials) as folder, _ray(folder, slots) as address:
        ended = child([sys.executable, str(_HERE / "scale_tune.py"), str(folder / "x"), str(trials.number), address])
        return _ran(trials, slots, float(ended.stdout.split()[-1]), ended)


def _ran(trials: Trials, slots: int, seconds: float, ended: Ended) -> Ran:
    stamps = sorted(float(line) for line in Path(os.environ[STAMPS]).read_text(encoding="ascii").splitlines())
    if len(stamps) != trials.number * trials.reports:
        sys.exit(f"{trials} should make {trials.number * trials.reports} reports, made {len(stamps)}")
    half = stamps[len(stamps) // 2 :]
    rate = (len(half) - 1) / (half[-1] - half[0])
    return Ran(trials, slots, seconds, ended.seconds, ended.peak_bytes, ended.cpu_seconds, rate)


@contextmanager
def _folder(trials: Trials) -> Iterator[Path]:
    """A folder for one sweep, and the environment in which its processes, Ray's workers included, run such trials."""
    path = os.pathsep.join(map(str, (_HERE / "search_site", _HERE, _HERE.parent)))
    os.environ |= {"SIMULATED_TRAINING": "scale_trial", "PYTHONPATH": path}
    os.environ |= {SECONDS: str(trials.seconds), REPORTS: str(trials.reports)}
    with tempfile.TemporaryDirectory(prefix="scale-") as name:  # short: Ray's sockets lie below it
        os.environ[STAMPS] = str(Path(name) / "stamps")
        yield Path(name)


@contextmanager
def _ray(folder: Path, slots: int) -> Iterator[str]:
    """A Ray of this machine that lets `slots` trials run at a time, whatever cores there are: they wait."""
    os.environ |= {"HOME": str(folder), "RAY_TMPDIR": str(folder), "RAY_AUTH_MODE": "disabled"}
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": slots, "include_dashboard": False})
    try:
        yield cluster.address
    finally:
        cluster.shutdown()
