"""Ray Tune alone on the same trials, as Ray's own scalability tests run it: a function, and actors that are used again.

    python benchmarks/scale_tune.py FOLDER TRIALS ADDRESS

Run by `scale.py`, on a Ray that is there.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import ray
from ray import tune
from scale_trial import waits


def train(config: dict[str, Any]) -> None:
    """Waits and reports."""
    for share in waits():
        tune.report({"loss": 1.0 - share / 2})


def main() -> None:
    """Runs the trials and prints for how many seconds."""
    folder, trials, address = sys.argv[1:]
    ray.init(address)
    tuner = tune.Tuner(
        train,
        param_space={"number": tune.grid_search(list(range(int(trials))))},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(storage_path=folder, verbose=0),
    )
    began = time.perf_counter()
    ended = tuner.fit()
    print(time.perf_counter() - began)
    if len(ended) != int(trials) or ended.errors:
        sys.exit(f"{len(ended)} of {trials} trials ended, {len(ended.errors)} with an error")


if __name__ == "__main__":
    main()
