"""Clusters take minutes and need root: `make test-cluster` runs them, plain pytest does not."""

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """They are for those who ask for them."""
    if "cluster" in config.option.markexpr:
        return
    asked_for = [item for item in items if item.get_closest_marker("cluster")]
    config.hook.pytest_deselected(items=asked_for)
    items[:] = [item for item in items if item not in asked_for]
