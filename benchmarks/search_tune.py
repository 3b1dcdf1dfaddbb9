"""Ray Tune as its documentation has it: a function, `OptunaSearch`, `ASHAScheduler`, the default loggers.

    python benchmarks/search_tune.py FOLDER TRIALS

Run by `search_overhead.py`; the space is that of `search_spaces.embedded`.
"""

from __future__ import annotations

import sys
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from search_contenders import ETA
from search_replay import EPOCHS, replayed

SPACE = {
    "n_layers": tune.randint(1, 4),
    "num_experts": tune.randint(4, 9),
    "learning_rate": tune.loguniform(1e-4, 2e-3),
    "dropout_placement": tune.choice(["none", "before", "after", "both"]),
    "moe_dropout": tune.choice([0.1, 0.3]),
}


def train(config: dict[str, Any]) -> None:
    """Reports a curve."""
    for epoch, loss in replayed():
        tune.report({"epoch": epoch, "loss": loss})


def main() -> None:
    """Runs one search on two CPUs."""
    folder, trials = sys.argv[1:]
    ray.init(address="local", num_cpus=2, include_dashboard=False)  # the dashboard would cost it time
    scheduler = ASHAScheduler(time_attr="epoch", max_t=EPOCHS, grace_period=1, reduction_factor=ETA)
    tune_config = tune.TuneConfig(
        metric="loss", mode="min", search_alg=OptunaSearch(), scheduler=scheduler, num_samples=int(trials)
    )
    run_config = tune.RunConfig(storage_path=folder)
    tune.Tuner(train, param_space=SPACE, tune_config=tune_config, run_config=run_config).fit()


if __name__ == "__main__":
    main()
