"""Clusters take minutes and need root: `make test-cluster` runs them, plain pytest does not. All tests share one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from golden import Golden
from lan import SHARED, lacking
from on_prem import CRAWL, OnPrem, on_prem

from trainables.embedded import write_corpora

NOTICED_SOON = (
    "export RAY_health_check_initial_delay_ms=2000 RAY_health_check_period_ms=2000"
    " RAY_health_check_timeout_ms=5000 RAY_health_check_failure_threshold=3 AUTOSCALER_UPDATE_INTERVAL_S=1"
)
"""For the head: it gives a silent node up after some 20 s, not 63. With 1 s each, a busy machine lost nodes that were alive."""

CRAWLS = f"export PYTHONPATH=$HOME/expert-sweeps/tests/faults/faulty_site SWEEP_FAULT=crawl SWEEP_FAULT_WHILE={CRAWL}"
"""For the workers: their trials take 2 s for each report, without computing, as long as there is that file."""

GRID: dict[str, Any] = {
    "orders": ["shuffled"],
    "shares": [0, 40, 80],
    "mixture_size": 20,
    "training": {"epochs": 20, "batch_size": 8, "learning_rate": 1.0e-3, "max_length": 128, "stride": 32},
    "recovery": {"checkpoint_seconds": 0, "max_retries": 0},  # a lost node that counted as a failure would fail its trial
}
"""Six trials of some seconds, or of 80 where they crawl."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[OnPrem]:
    """Two workers and a head, before `ray up`."""
    pytest.importorskip("aiohttp", reason="needs ray[default]: pip install '.[cluster]'")
    if why := lacking():
        pytest.skip(why)
    with on_prem(num_workers=2) as made:
        made.lan.head.add_to_bashrc(NOTICED_SOON)
        for worker in made.lan.workers:
            worker.add_to_bashrc(CRAWLS)
        yield made


@pytest.fixture(scope="session")
def grid(cluster: OnPrem, write_preset: Callable[..., Path]) -> str:
    """The command, with a preset and corpora that all hosts see."""
    files = write_corpora(cluster.lan.shared, train_rows=200, test_rows=60)
    domains = {
        name: {part: str(SHARED / files[f"{name}_{part}"].name) for part in ("train", "test")} for name in ("squad", "bioasq")
    }
    write_preset(cluster.lan.shared, domains=domains, **GRID)
    return f"python -m orchestrator.run grid --yes --preset {SHARED}/tiny.yaml"


@pytest.fixture(scope="session")
def golden(cluster: OnPrem, grid: str) -> Golden:
    """The same grid, undisturbed, on the laptop without Ray."""
    done = cluster.type(f"{grid} --backend inline --storage {SHARED}/golden", seconds=600)
    assert done.returncode == 0, done.stdout
    return Golden.of(cluster.lan.shared / "golden")
