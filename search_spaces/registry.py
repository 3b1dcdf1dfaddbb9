"""Finding spaces: those that ship, and one's own in a file that defines `SPACE`."""

from __future__ import annotations

import runpy
import traceback
from collections.abc import Mapping
from pathlib import Path

from search_spaces.config_fields import nearest
from search_spaces.distilbert import distilbert, distilbert_extended
from search_spaces.exbert import exbert, exbert_extended
from search_spaces.space import Space

__all__ = ["SHIPPED", "load_space"]

SHIPPED: Mapping[str, Space] = {space.name: space for space in (distilbert, distilbert_extended, exbert, exbert_extended)}
"""The spaces that ship, by name."""


def load_space(name_or_path: str) -> Space:
    """The shipped space of that name, or the `SPACE` of that Python file.

    Raises:
        ValueError: there is none; the file does not define one, or fails.
    """
    if name_or_path.endswith(".py"):
        return _from_file(Path(name_or_path))
    if name_or_path not in SHIPPED:
        raise ValueError(
            f"space must be one of {', '.join(SHIPPED)} or a file FILE.py that defines SPACE, "
            f"got {name_or_path!r}{nearest(name_or_path, SHIPPED)}"
        )
    return SHIPPED[name_or_path]


def _from_file(path: Path) -> Space:
    if not path.is_file():
        raise ValueError(f"there is no file {path} to read a space from; name one that defines SPACE = Space(...)")
    try:
        found = runpy.run_path(str(path)).get("SPACE")
    except ValueError as error:  # says what is wrong by itself
        raise ValueError(f"{path}{_line(error, path)}: {error}") from error
    except Exception as error:  # whatever the user's own code raises
        raise ValueError(f"{path}{_line(error, path)}: {type(error).__name__}: {error}") from error
    if not isinstance(found, Space):
        got = "defines none" if found is None else f"has {type(found).__name__}"
        raise ValueError(
            f"{path} must define SPACE = Space(...), but {got}; "
            "start with `from search_spaces.space import Choice, Float, Int, Space`"
        )
    return found


def _line(error: Exception, path: Path) -> str:
    """Where in the user's file it went wrong, for one who does not see the traceback."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""
