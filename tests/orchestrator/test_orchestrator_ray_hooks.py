"""Which trial Tune starts next: in the order that it is given, those under way before new ones, as many as there is room for.

Tune's own objects, without a Ray.
"""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.ray_environment import set_ray_environment

set_ray_environment(os.environ.get("RAY_ADDRESS", "none"))  # before Ray is imported

from ray.tune.experiment import Trial as TuneTrial  # noqa: E402

from orchestrator.estimate import Expected  # noqa: E402
from orchestrator.ray_hooks import Scheduler, Searcher  # noqa: E402
from orchestrator.trial import Trial  # noqa: E402
from orchestrator.work import FixedWork  # noqa: E402
from trainables.data.spec import DataSpec, DomainSpec  # noqa: E402
from trainables.distilbert.config import Config  # noqa: E402

DATA = DataSpec(encoder="/encoder", domains={"squad": DomainSpec(train="/squad.json")})
TRIALS = [
    Trial(trainable="distilbert", version=1, config=Config(), data=DATA, data_fingerprint="0" * 64, seed=seed)
    for seed in range(4)
]


@pytest.fixture
def tune_trials() -> list[TuneTrial]:
    return [TuneTrial("trainable", stub=True, trial_id=str(number)) for number in range(4)]


def test_tune_makes_its_trials_in_the_order_of_the_work() -> None:
    expected = {trial.key: Expected(float(trial.seed), "cpu") for trial in TRIALS}
    work = FixedWork(TRIALS, 0, 4, expected)
    searcher = Searcher(work, SimpleNamespace(trouble=None), lambda: False, lambda: 4)  # type: ignore[arg-type]
    assert [searcher.suggest(name)["trial"]["seed"] for name in "abcd"] == [3, 2, 1, 0]


def test_a_trial_that_was_under_way_goes_before_those_that_have_not_begun(tune_trials: list[TuneTrial]) -> None:
    controller = SimpleNamespace(get_trials=lambda: tune_trials)
    scheduler = Scheduler(relay=None)  # type: ignore[arg-type]
    assert scheduler.choose_trial_to_run(controller) is tune_trials[0]
    lost = tune_trials.pop(0)
    scheduler.on_trial_error(controller, lost)
    tune_trials.append(lost)  # which is where Tune puts it
    assert scheduler.choose_trial_to_run(controller) is lost
    lost.set_status(TuneTrial.RUNNING)
    assert scheduler.choose_trial_to_run(controller) is tune_trials[0]


def test_a_search_hands_out_as_many_trials_as_the_cluster_has_room_for_by_then(tmp_path: Path) -> None:
    room = [1]
    relay: Any = SimpleNamespace(trouble=None)
    searcher = Searcher(FixedWork(TRIALS, 0, 4), relay, lambda: False, lambda: room[0])
    first = searcher.suggest("a")
    assert first["trial"]["seed"] == 0
    assert searcher.suggest("b") is None
    room[0] = 3  # a node has joined
    assert [searcher.suggest(name)["trial"]["seed"] for name in "bc"] == [1, 2]
    assert searcher.suggest("d") is None
    searcher.on_trial_complete("a")
    assert searcher.suggest("d")["trial"]["seed"] == 3
    for name in "bcd":
        searcher.on_trial_complete(name)
    assert searcher.suggest("e") == Searcher.FINISHED
