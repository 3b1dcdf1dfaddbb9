"""Dimensions as plain data and back, for whoever records a space or shows it.

{"model.n_layers": {"kind": "int", "low": 3, "high": 6, "step": 1, "log": False, "when": None},
 "model.moe_dropout": {"kind": "choice", "values": [0.1, 0.3], "when": {"dimension": "model.n_layers", "values": [3, 4]}}}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

from search_spaces.config_fields import nearest
from search_spaces.dimensions import Choice, Condition, Dimension, Float, Int

__all__ = ["check_keys", "dimensions_from_json", "dimensions_to_json"]

_KINDS: Mapping[str, type[Dimension]] = {kind.__name__.lower(): kind for kind in (Choice, Float, Int)}


def dimensions_to_json(dimensions: Mapping[str, Dimension]) -> dict[str, Any]:
    """The dimensions as JSON-ready values, in order."""
    return {name: _to_json(dimension) for name, dimension in dimensions.items()}


def dimensions_from_json(value: Mapping[str, Any]) -> dict[str, Dimension]:
    """The dimensions that `dimensions_to_json` described.

    They keep their order, but that one comes after the one on which it waits: JSON with sorted keys can be read too.

    Raises:
        ValueError: naming the dimension, and what it lacks or has too much.
    """
    dimensions: dict[str, Dimension] = {}
    for name, described in value.items():
        try:
            dimensions[name] = _from_json(described)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return _parents_first(dimensions)


def check_keys(value: Any, keys: Iterable[str]) -> None:
    """Raises ValueError where `value` is no mapping with these keys and no others."""
    known = list(keys)
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a mapping with {', '.join(known)}, got {value!r}")
    for key in value:
        if key not in known:
            raise ValueError(f"takes {', '.join(known)}, got {key!r}{nearest(str(key), known)}")
    if missing := [key for key in known if key not in value]:
        raise ValueError(f"must have {', '.join(known)}, but lacks {', '.join(missing)}")


def _to_json(dimension: Dimension) -> dict[str, Any]:
    return {"kind": type(dimension).__name__.lower(), **asdict(dimension, dict_factory=_with_lists)}


def _with_lists(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in items}


def _from_json(value: Any) -> Dimension:
    try:
        kind = _KINDS[value["kind"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"must be a mapping whose kind is one of {', '.join(_KINDS)}, got {value!r}") from error
    check_keys(value, ["kind", *(field.name for field in fields(kind))])
    settings = {name: part for name, part in value.items() if name != "kind"}
    if settings["when"] is not None:
        check_keys(settings["when"], [field.name for field in fields(Condition)])
        settings["when"] = Condition(**settings["when"])
    return kind(**settings)


def _parents_first(dimensions: Mapping[str, Dimension]) -> dict[str, Dimension]:
    ordered: dict[str, Dimension] = {}

    def add(name: str, waiting: tuple[str, ...] = ()) -> None:
        when = dimensions[name].when
        if when is not None and when.dimension in dimensions and when.dimension not in (*waiting, name):
            add(when.dimension, (*waiting, name))
        ordered.setdefault(name, dimensions[name])

    for name in dimensions:
        add(name)
    return ordered
