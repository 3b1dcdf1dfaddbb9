"""A process that has imported everything and forks drivers, so that starting one costs a fork instead of eight seconds.

    python driver_server.py          requests on stdin, answers on stdout, a line of JSON each

    {"start": {...}}  ->  {"pid": 123}       see `_Start`
    {"reap": 123}     ->  {"status": -9}     waits for the driver's end; an exit code, or a signal as a negative number

A forked driver is `orchestrator.run.main()` itself with its own `sys.argv`, environment, files and process group: killing it is
killing driver and worker at once. The server starts no thread and computes nothing, so that a fork of it is like a new process.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import runpy
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boundaries import Boundaries, Point

__all__ = ["serve"]

ROOT = Path(__file__).resolve().parents[2]
_PR_SET_PDEATHSIG = 1
_IMPORTED = (
    "duckdb",
    "datasets",
    "orchestrator.run",
    "orchestrator.inline_backend",
    "trainables.data.build",
    "trainables.distilbert.train",
    "trainables.exbert.train",
)
"""Together these bring in all that a driver of the inline backend uses."""


@dataclass(frozen=True, kw_only=True)
class _Start:
    """A driver to fork."""

    arguments: list[str]  # of `python -m orchestrator.run`
    storage: str
    stdout: str
    stderr: str
    boundary_log: str
    kill_at: list[Any] | None = None  # fields of a Point
    environment: dict[str, str] | None = None  # added to the server's
    site: str | None = None  # a sitecustomize.py, run as an interpreter would that finds it


def serve() -> None:
    """Answers until stdin ends; drivers that are left then die with the server."""
    _import_everything()
    _answer({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            _answer({"pid": _fork(_Start(**request["start"]))})
        else:
            _, status = os.waitpid(request["reap"], 0)
            _answer({"status": os.waitstatus_to_exitcode(status)})


def _import_everything() -> None:
    sys.path.insert(0, str(ROOT))
    for name in _IMPORTED:
        importlib.import_module(name)


def _answer(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _fork(start: _Start) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = _drive(start)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.setpgid(pid, pid)  # here as well as there: whoever reads the answer may kill the group at once
    return pid


def _drive(start: _Start) -> int:
    _stand_alone(start)
    if start.site:
        runpy.run_path(start.site, run_name="sitecustomize")
    kill_at = Point(*start.kill_at) if start.kill_at else None
    Boundaries(Path(start.storage), Path(start.boundary_log), kill_at).install()
    import orchestrator.run

    try:
        orchestrator.run.main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _stand_alone(start: _Start) -> None:
    """Own group, files, arguments and environment; and no life beyond the server's."""
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in ((1, start.stdout), (2, start.stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
    os.environ.update(start.environment or {})
    sys.argv = ["orchestrator.run", *start.arguments]


if __name__ == "__main__":
    serve()
