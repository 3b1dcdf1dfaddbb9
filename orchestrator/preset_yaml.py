"""YAML as presets and `--set` are read: 80:20 is text, where YAML 1.1 has numbers to base 60 (4820)."""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["read_yaml"]

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _Loader(yaml.SafeLoader):
    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        tag: str = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        return self.DEFAULT_SCALAR_TAG if tag in _NUMBERS and ":" in value else tag


def read_yaml(content: str | bytes) -> Any:
    """The value; bytes are read as UTF-8 or UTF-16. Raises yaml.YAMLError, UnicodeDecodeError."""
    return yaml.load(content, _Loader)
