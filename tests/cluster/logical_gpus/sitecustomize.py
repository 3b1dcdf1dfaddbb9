"""Lets trials that hold a GPU train on the CPU, in any process that has this folder on its PYTHONPATH.

For nodes that say that they have GPUs on a machine that has none: placement is Ray's arithmetic, and needs none. Nothing is
imported until the worker's code is.
"""

import importlib.abc
import importlib.util
import sys

_WORKER = "orchestrator.worker"


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the worker's module as everybody else does, and has it changed as soon as it is loaded."""

    def find_spec(self, name, path=None, target=None):
        if name != _WORKER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def load_and_change(module):
            load(module)
            module.RunSettings.device = property(lambda settings: "cpu")

        spec.loader.exec_module = load_and_change
        return spec


sys.meta_path.insert(0, _Finder())
