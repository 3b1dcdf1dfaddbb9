"""Has any process with this folder on its PYTHONPATH append the seconds of each training step to $STEP_CLOCK, a line each.

As `tests/faults/faulty_site`: `trainables.training.loop` is changed when it is loaded, and nothing is imported before that.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys
import time

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
    log = os.open(os.environ["STEP_CLOCK"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def timed(self, windows):
        began = time.perf_counter()
        step(self, windows)
        os.write(log, b"%.6f\n" % (time.perf_counter() - began))

    return timed


if _LOOP not in sys.modules:
    sys.meta_path.insert(0, _Finder())
