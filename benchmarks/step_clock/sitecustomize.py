"""Has any process with this folder on its PYTHONPATH append its training steps and evaluations to $STEP_CLOCK, for `step_log`.

As `tests/faults/faulty_site`: `trainables.training.loop` is changed when it is loaded, and nothing is imported before that.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys

_LOOP = "trainables.training.loop"


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != _LOOP:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def load_and_time(module):
            load(module)
            training = module.FineTuning
            training._train_step = _timed(training._train_step, lambda run: run.step + 1)
            training._evaluate = _timed(training._evaluate, lambda run: 0)

        spec.loader.exec_module = load_and_time
        return spec


def _timed(call, number_of):
    from step_log import StepClock

    clock = StepClock()

    def timed(self, what):
        with clock.step(number_of(self)):
            return call(self, what)

    return timed


if _LOOP not in sys.modules:
    sys.meta_path.insert(0, _Finder())
