"""How often checkpoints are made."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trainable_case import TrainableCase

from trainables.config import QAConfig
from trainables.contract import TrialContext
from trainables.training import checkpoints, loop


class TestSaving(TrainableCase):
    trainable = "distilbert"
    model = {"n_layers": 1}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("asked", "saving", "saved"),
        [
            (10.0, 0.1, [3, 5, 8]),  # reports are 20 to 30 s apart
            (25.0, 0.1, [3, 8]),
            (10.0, 0.35, [3, 5, 8]),  # a fiftieth of 17.5 s
            (10.0, 0.8, [3, 8]),  # of 40 s
            (10.0, 60.0, [3]),  # of 3,000 s
            (2.0, 60.0, [3, 8]),  # but not over 20 times as rarely as asked for
            (0.0, 60.0, [3, 5, 8]),
        ],
    )
    def test_they_take_at_most_a_fiftieth_of_the_time(
        self,
        asked: float,
        saving: float,
        saved: list[int],
        config: QAConfig,
        context: TrialContext,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        now, steps = [0.0], []

        def a_step_takes_ten_seconds() -> bool:
            now[0] += 10.0
            return False

        def slowly(directory: Path, step: int, state: dict[str, Any]) -> Path:
            now[0] += saving
            steps.append(step)
            return save(directory, step, state)

        def after_an_hour(write: Callable[[], Path]) -> Path:  # for which the storage was away: that takes no time of saving
            now[0] += 3600.0
            path = write()
            now[0] -= 3600.0
            return path

        save = checkpoints.save
        monkeypatch.setattr(checkpoints, "save", slowly)
        monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))
        here = replace(context, checkpoint_seconds=asked, stop_requested=a_step_takes_ten_seconds, persist=after_an_hour)
        list(self.reports(config, here))
        assert steps == saved
