"""Syne Tune's side of the benchmark, run by the Python that has it: a line of JSON in, a line of JSON out.

Imports nothing of this project. The calls are those of `syne_tune.tuner.Tuner` (0.16.0), in its order.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime
from typing import Any

from syne_tune.backend.trial_status import Trial
from syne_tune.config_space import choice, loguniform, randint, uniform
from syne_tune.optimizer.baselines import ASHA, BOHB
from syne_tune.optimizer.scheduler import SchedulerDecision


def domain(dimension: dict[str, Any]) -> Any:
    """A dimension as Syne Tune has it."""
    if "values" in dimension:
        return choice(dimension["values"])
    low, high = dimension["low"], dimension["high"]
    if dimension["kind"] == "int":
        return randint(low, high)
    return loguniform(low, high) if dimension["log"] else uniform(low, high)


class Side:
    """One search at a time."""

    def start(self, scheduler: str, dimensions: Any, settings: dict[str, Any]) -> None:
        space = {name: domain(dimension) for name, dimension in dimensions.items()}
        self.scheduler = {"ASHA": ASHA, "BOHB": BOHB}[scheduler](space, metric="loss", time_attr="epoch", **settings)
        self.trials: dict[int, Trial] = {}

    def suggest(self, number: int) -> dict[str, Any]:
        config = self.scheduler.suggest().config
        self.trials[number] = Trial(trial_id=number, config=config, creation_time=datetime.now())
        self.scheduler.on_trial_add(self.trials[number])
        return config

    def report(self, number: int, epoch: float, loss: float) -> str:
        trial, result = self.trials[number], {"loss": loss, "epoch": epoch}
        if self.scheduler.on_trial_result(trial, result) == SchedulerDecision.CONTINUE:
            return "go on"
        self.scheduler.on_trial_remove(trial)  # also of one at its last epoch, where it says to stop
        return "stop"


def main() -> None:
    """Answers until the input ends."""
    logging.disable(logging.WARNING)
    side = Side()
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever it prints is no answer
    for line in sys.stdin:
        asked = json.loads(line)
        answer = getattr(side, asked.pop("do"))(**asked)
        answers.write(json.dumps(answer, default=lambda value: value.item()) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
