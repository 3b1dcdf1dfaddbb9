"""Ledgers to test on, by state: untouched, complete, with two seeds and the tuned variant, damaged, with searches."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_ledger import synthetic_ledger
from synthetic_search import synthetic_narrowing, synthetic_search


@pytest.fixture(scope="session")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The grid's 24 trials, all completed. Read only."""
    return synthetic_ledger(tmp_path_factory.mktemp("complete"))


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of both models and of the tuned variant. Read only."""
    storage = tmp_path_factory.mktemp("seeded")
    return synthetic_ledger(storage, trainables=("distilbert", "exbert", "exbert:tuned"), seeds=(0, 1))


@pytest.fixture(scope="session")
def partial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 trials of which one failed and one never started. Read only."""
    storage = tmp_path_factory.mktemp("partial")
    return synthetic_ledger(storage, failed=[("exbert", 60, "shuffled", 0)], planned=[("exbert", 80, "shuffled", 0)])


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search with two objectives and a narrowing, the newer of the two. Read only."""
    storage = tmp_path_factory.mktemp("searched")
    return synthetic_narrowing(synthetic_search(storage, objectives=("val_qa_loss", "train_seconds")))
