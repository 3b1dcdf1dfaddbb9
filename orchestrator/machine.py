"""What this machine has for trials. Cheap: imports neither torch nor Ray."""

from __future__ import annotations

import os
import platform
from pathlib import Path

__all__ = ["num_cpus", "num_gpus", "processor_name"]


def num_cpus() -> int:
    """CPUs that this process may use, at least 1: its affinity, and a container's quota (cgroup v2) rounded down."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, int(quota) // int(period)))


def num_gpus() -> int:
    """NVIDIA GPUs that the system shows."""
    return sum(path.name.removeprefix("nvidia").isdecimal() for path in Path("/dev").glob("nvidia*"))


def processor_name() -> str:
    """The CPU's model, on which floating-point results can depend."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())
