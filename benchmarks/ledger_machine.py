"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil

__all__ = ["machine"]

_PACKAGES = ("pyarrow", "duckdb", "mlflow-skinny", "optuna", "tensorboard", "ray")


def machine() -> dict[str, Any]:
    """Cores, memory, load average, Python and the packages that are installed."""
    found: dict[str, Any] = {
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
