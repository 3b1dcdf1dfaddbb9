"""The other sides of `overhead.py`, each as its documentation shows it.

    python overhead_peers.py SIDE KIND ROWS TRIALS FOLDER

Run by the Python that has them. Imports nothing of this project but what the plain script does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from overhead_plain import run_trial

_PLAIN = Path(__file__).with_name("overhead_plain.py")


def tune_default(kind: str, rows: str, trials: int, folder: str) -> None:
    """Ray Tune with a function, all else by default."""
    from ray import tune

    def train(config: dict[str, Any]) -> None:
        tune.report({"loss": run_trial(kind, rows, config["number"])})

    _tune(train, trials, folder)


def tune_reusing(kind: str, rows: str, trials: int, folder: str) -> None:
    """Ray Tune with a class whose actors are used again."""
    from ray import tune

    class Trial(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.number = config["number"]

        def step(self) -> dict[str, Any]:
            return {"loss": run_trial(kind, rows, self.number), "done": True}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

    _tune(Trial, trials, folder, reuse_actors=True)


def _tune(trainable: Any, trials: int, folder: str, **settings: Any) -> None:
    import ray
    from ray import tune

    ray.init(address="local", num_cpus=2, include_dashboard=False)  # the dashboard would cost it time
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"number": tune.grid_search(list(range(trials)))},
        tune_config=tune.TuneConfig(metric="loss", mode="min", **settings),
        run_config=tune.RunConfig(
            storage_path=folder,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the model is saved
        ),
    )
    ended = tuner.fit()
    assert not ended.errors, ended.errors[0]


def optuna(kind: str, rows: str, trials: int, folder: str) -> None:
    """Optuna in two threads of one process, its study in memory."""
    import optuna

    if kind == "tiny":  # by one thread: two at once break transformers' imports
        from transformers import AutoModelForQuestionAnswering, Trainer  # noqa: F401
    study = optuna.create_study()
    for number in range(trials):
        study.enqueue_trial({"number": number})
    study.optimize(lambda trial: run_trial(kind, rows, trial.suggest_int("number", 0, trials - 1)), n_trials=trials, n_jobs=2)


def syne_tune(kind: str, rows: str, trials: int, folder: str) -> None:
    """Syne Tune's local backend: a process for each trial."""
    from syne_tune import StoppingCriterion, Tuner
    from syne_tune.backend import LocalBackend
    from syne_tune.config_space import randint
    from syne_tune.optimizer.baselines import RandomSearch

    space = {"kind": kind, "rows": rows, "number": randint(0, trials - 1), "syne": True}
    points = [{"number": number} for number in range(trials)]
    Tuner(
        trial_backend=LocalBackend(entry_point=str(_PLAIN)),
        scheduler=RandomSearch(space, metrics=["loss"], points_to_evaluate=points),
        stop_criterion=StoppingCriterion(max_num_trials_started=trials - 1),  # it stops once there are more
        wait_trial_completion_when_stopping=True,
        n_workers=2,
    ).run()


def bare_ray(kind: str, rows: str, trials: int, folder: str) -> None:
    """No side: a Ray is started, and one worker of it imports what training needs."""
    import ray

    @ray.remote(num_cpus=1)
    def imports() -> None:
        import torch  # noqa: F401
        from transformers import DistilBertForQuestionAnswering  # noqa: F401

    ray.init(address="local", num_cpus=2, include_dashboard=False)
    ray.get(imports.remote())


SIDES = {each.__name__: each for each in (tune_default, tune_reusing, optuna, syne_tune, bare_ray)}


if __name__ == "__main__":
    side, kind, rows, trials, folder = sys.argv[1:]
    SIDES[side](kind, rows, int(trials), folder)
