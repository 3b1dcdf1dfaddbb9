"""Has any process with this folder on its PYTHONPATH report `search_replay`'s curve in place of training; so do Ray's workers.

As `tests/faults/faulty_site`: `trainables.registry` is changed when it is loaded, and nothing is imported before that.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys

_REGISTRY = "trainables.registry"


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != _REGISTRY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def load_and_replace(module):
            load(module)
            module.train_function = lambda trainable: _train

        spec.loader.exec_module = load_and_replace
        return spec


def _train(config, context):
    from search_replay import replayed

    from trainables.contract import Report
    from trainables.exbert.config import METRICS

    for step, (epoch, loss) in enumerate(replayed(), 1):
        metrics = {name: loss if name == "val_qa_loss" else None for name in METRICS}
        yield Report(
            step=step, epoch=epoch, samples_seen=step, metrics=metrics, params_total=1, params_active=1, params_trainable=1
        )


if _REGISTRY not in sys.modules:
    sys.meta_path.insert(0, _Finder())
