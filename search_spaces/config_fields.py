"""The settings of a trainable by their dotted names, what each of them takes, and nested settings from dotted ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

__all__ = ["allowed", "fields_of", "nearest", "nested", "reasons", "refused"]

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "null"}


def fields_of(config: type[BaseModel], prefix: str = "") -> dict[str, FieldInfo]:
    """Every setting that holds a value, by its dotted name, such as `training.learning_rate`."""
    found: dict[str, FieldInfo] = {}
    for name, field in config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= fields_of(field.annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = field
    return found


def refused(field: FieldInfo, values: Iterable[object]) -> list[object]:
    """The values that the setting does not take as they are: "3" is no 3 here, so that what is recorded is what ran."""
    annotated: Any = Annotated
    adapter = TypeAdapter(annotated[field.annotation, field])
    found = []
    for value in values:
        try:
            adapter.validate_python(value, strict=True)
        except ValidationError:
            found.append(value)
    return found


def allowed(field: FieldInfo) -> str:
    """What the setting takes, such as `a whole number in [1, 6] or null`."""
    kinds = get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else (field.annotation,)
    return " or ".join(_kind(kind, field.metadata) for kind in kinds)


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"model.n_layers": 4} as {"model": {"n_layers": 4}}."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *folders, leaf = name.split(".")
        branch = tree
        for folder in folders:
            branch = branch.setdefault(folder, {})
        branch[leaf] = value
    return tree


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?`, or nothing where no known name is near. Looks also at the last part of dotted names."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    leaf = name.rpartition(".")[2]
    by_leaf = [full for full in names if full.rpartition(".")[2] == leaf]
    found = by_leaf or near
    return f"; did you mean {found[0]}?" if found else ""


def reasons(error: ValidationError) -> str:
    """What pydantic complains of, in a line."""
    complaints = []
    for detail in error.errors(include_url=False):
        name = ".".join(str(part) for part in detail["loc"])
        complaints.append(f"{name}: {detail['msg'].removeprefix('Value error, ')}")
    return "; ".join(complaints)


def _kind(kind: Any, metadata: Iterable[Any]) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(repr(value) for value in get_args(kind))
    return _KINDS.get(kind, str(kind)) + (_interval(metadata) if kind in (int, float) else "")


def _interval(metadata: Iterable[Any]) -> str:
    """The bounds that pydantic keeps as `Ge(ge=1)` and the like."""
    bounds = {name: getattr(item, name) for item in metadata for name in ("ge", "gt", "le", "lt") if hasattr(item, name)}
    if not bounds:
        return ""
    low = f"[{bounds['ge']}" if "ge" in bounds else f"({bounds.get('gt', '-inf')}"
    high = f"{bounds['le']}]" if "le" in bounds else f"{bounds.get('lt', 'inf')})"
    return f" in {low}, {high}"
