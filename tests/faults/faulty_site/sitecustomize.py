"""Makes trials go wrong in any process that has this folder on its PYTHONPATH; Ray's workers inherit it.

    SWEEP_FAULT=kind[:architecture[:report]]    at that report (from 1) of an attempt, of that architecture or of all:
        hang      sleeps for ever
        nan       sets a parameter of the model to NaN, when the model is next called
        raise     raises a RuntimeError whose message is another each time
        memory    takes memory without end, 64 MiB at a time
        exit      ends the process at once
        slow      sleeps 0.2 s, at this report and all later ones; crawl 2 s
    SWEEP_FAULT_COUNT=file                      gets a byte for each fault
    SWEEP_FAULT_TIMES=n                         the first n times only, over all processes that share the file
    SWEEP_FAULT_WHILE=file                      only as long as there is this file
    SWEEP_ON_CPU=1                              trials that hold a GPU train on the CPU: for nodes that only say they have one

The fault happens when the report is asked for, before it is computed. Nothing is imported until a trainable is.
"""

from __future__ import annotations

import fcntl
import importlib.abc
import importlib.util
import itertools
import os
import sys
import time
from pathlib import Path

_REGISTRY = "trainables.registry"
_WORKER = "orchestrator.worker"


class _Finder(importlib.abc.MetaPathFinder):
    """Finds a module as everybody else does, and has it patched as soon as it is loaded."""

    def __init__(self, module, patch):
        self._module, self._patch = module, patch

    def find_spec(self, name, path=None, target=None):
        if name != self._module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def load_and_patch(module):
            load(module)
            self._patch(module)

        spec.loader.exec_module = load_and_patch
        return spec


def _install(fault):
    if fault and _REGISTRY in sys.modules:
        _patch(sys.modules[_REGISTRY])
    elif fault:
        sys.meta_path.insert(0, _Finder(_REGISTRY, _patch))


def _compute_on_cpu(worker):
    """Placement is Ray's arithmetic, and needs no GPU."""
    worker.RunSettings.device = property(lambda settings: "cpu")


def _patch(registry):
    """Also where the function was imported from the registry already, as in a forked process."""
    real = registry.train_function

    def train_function(name):
        train = real(name)
        return lambda *arguments, **options: _reports(name, train(*arguments, **options))

    for module in list(sys.modules.values()):
        if getattr(module, "train_function", None) is real:
            module.train_function = train_function


def _reports(name, reports):
    kind, architecture, report = [*os.environ["SWEEP_FAULT"].split(":"), "", ""][:3]
    at = int(report or 1)
    try:
        for number in itertools.count(1):
            due = number >= at if kind in ("slow", "crawl") else number == at
            if due and architecture in ("", name) and _is_counted():
                _FAULTS[kind]()
            try:
                yield next(reports)
            except StopIteration:
                return
    finally:
        reports.close()


def _is_counted():
    """Counts a fault; False when there is to be none now, or were enough."""
    if (needed := os.environ.get("SWEEP_FAULT_WHILE")) and not Path(needed).exists():
        return False
    path, times = os.environ.get("SWEEP_FAULT_COUNT"), os.environ.get("SWEEP_FAULT_TIMES")
    if not path:
        return True
    with Path(path).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if times and os.fstat(file.fileno()).st_size >= int(times):
            return False
        file.write(b".")
    return True


def _hang():
    while True:
        time.sleep(3600)


def _poison():
    """The outermost module is called first, so it is the model."""
    import torch

    def poison(module, _):
        handle.remove()
        with torch.no_grad():
            next(parameter for parameter in module.parameters() if parameter.requires_grad).fill_(float("nan"))

    handle = torch.nn.modules.module.register_module_forward_pre_hook(poison)


def _raise():
    raise RuntimeError(f"made to fail, number {time.time_ns()} of process {os.getpid()}")


def _fill_memory():
    held = []
    while True:
        held.append(b"\1" * (64 * 2**20))


_FAULTS = {
    "hang": _hang,
    "nan": _poison,
    "raise": _raise,
    "memory": _fill_memory,
    "exit": lambda: os._exit(1),
    "slow": lambda: time.sleep(0.2),
    "crawl": lambda: time.sleep(2),
}

_install(os.environ.get("SWEEP_FAULT"))
if os.environ.get("SWEEP_ON_CPU"):
    sys.meta_path.insert(0, _Finder(_WORKER, _compute_on_cpu))
