"""Has any process with this folder on its PYTHONPATH append each training step to $STEP_CLOCK; `step_log` reads it.

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
            module.FineTuning._train_step = _timed(module.FineTuning._train_step)

        spec.loader.exec_module = load_and_time
        return spec


def _timed(step):
    from step_log import StepClock

    clock = StepClock()

    def timed(self, windows):
        with clock.step(self.step + 1):
            step(self, windows)

    return timed


if _LOOP not in sys.modules:
    sys.meta_path.insert(0, _Finder())
