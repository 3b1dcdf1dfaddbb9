"""Packages that only an export needs."""

from __future__ import annotations

from importlib import import_module

from results.errors import PackageMissingError

__all__ = ["need"]


def need(module: str, package: str) -> None:
    """Raises PackageMissingError, which names what to install, where `module` of `package` is not there."""
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        raise PackageMissingError(package) from error
