"""Finding spaces and narrowings: those that ship, and one's own in a file that defines `SPACE` or `NARROWING`."""

from __future__ import annotations

import runpy
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from search_spaces import adapters, distilbert, embedded, exbert, gated_ensemble, moe_variants, stages
from search_spaces.config_fields import nearest
from search_spaces.space import Space
from search_spaces.stages import Narrowing

__all__ = ["NARROWINGS", "SHIPPED", "load_narrowing", "load_space"]

_MODULES = (adapters, distilbert, embedded, exbert, gated_ensemble, moe_variants, stages)
"""What ships: every space and narrowing that one of these defines."""

Found = TypeVar("Found", Space, Narrowing)


def _shipped(kind: type[Found]) -> dict[str, Found]:
    found = [value for module in _MODULES for value in vars(module).values() if isinstance(value, kind)]
    return {each.name: each for each in sorted(found, key=lambda each: each.name)}


SHIPPED: Mapping[str, Space] = _shipped(Space)
"""The spaces that ship, by name."""

NARROWINGS: Mapping[str, Narrowing] = _shipped(Narrowing)
"""The narrowings that ship, by name."""


def load_space(name_or_path: str) -> Space:
    """The shipped space of that name, or the `SPACE` of that Python file.

    Raises:
        ValueError: there is none; the file does not define one, or fails.
    """
    return _load(name_or_path, SHIPPED, Space, "start with `from search_spaces.space import Choice, Float, Int, Space`")


def load_narrowing(name_or_path: str) -> Narrowing:
    """The shipped narrowing of that name, or the `NARROWING` of that Python file.

    Raises:
        ValueError: there is none; the file does not define one, or fails.
    """
    return _load(name_or_path, NARROWINGS, Narrowing, "start with `from search_spaces.stages import Narrowing, Stage`")


def _load(name_or_path: str, shipped: Mapping[str, Found], kind: type[Found], hint: str) -> Found:
    what = kind.__name__.lower()
    if name_or_path.endswith(".py"):
        return _from_file(Path(name_or_path), kind, hint)
    if name_or_path not in shipped:
        raise ValueError(
            f"{what} must be one of {', '.join(shipped)} or a file FILE.py that defines {what.upper()}, "
            f"got {name_or_path!r}{nearest(name_or_path, shipped)}"
        )
    return shipped[name_or_path]


def _from_file(path: Path, kind: type[Found], hint: str) -> Found:
    what, variable = kind.__name__.lower(), kind.__name__.upper()
    asked = f"{variable} = {kind.__name__}(...)"
    if not path.is_file():
        raise ValueError(f"there is no file {path} to read a {what} from; name one that defines {asked}")
    try:
        found = runpy.run_path(str(path)).get(variable)
    except ValueError as error:  # says what is wrong by itself
        raise ValueError(f"{path}{_line(error, path)}: {error}") from error
    except Exception as error:  # whatever the user's own code raises
        raise ValueError(f"{path}{_line(error, path)}: {type(error).__name__}: {error}") from error
    if not isinstance(found, kind):
        got = "defines none" if found is None else f"has {type(found).__name__}"
        raise ValueError(f"{path} must define {asked}, but {got}; {hint}")
    return found


def _line(error: Exception, path: Path) -> str:
    """Where in the user's file it went wrong, for one who does not see the traceback."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""
