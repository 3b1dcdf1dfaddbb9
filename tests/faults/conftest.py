"""Fixtures of the kill tests: a fork server, the golden ledger, the tally that the session ends with."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from campaign import SMALL, Campaign, Tally
from drivers import FAULTY_SITE, DriverServer, grid

TALLY = pytest.StashKey[Tally]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = Tally(seed=int(os.environ.get("FAULTS_SEED", "0")))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    tally = config.stash[TALLY]
    if tally.kills or tally.missed:
        terminalreporter.write_line(f"faults: {tally.line}")
        if path := os.environ.get("FAULTS_REPORT"):
            tally.write(Path(path))


@pytest.fixture(scope="session")
def tally(request: pytest.FixtureRequest) -> Tally:
    """The count of all kills of this session."""
    return request.config.stash[TALLY]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DriverServer]:
    """Forks drivers."""
    server = DriverServer(tmp_path_factory.mktemp("drivers"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def campaign(
    server: DriverServer, tally: Tally, tmp_path_factory: pytest.TempPathFactory, write_preset: Callable[..., Path]
) -> Campaign:
    """All that a kill test of a grid needs."""
    folder = tmp_path_factory.mktemp("campaign")
    return Campaign.of(server, grid(write_preset(folder, **SMALL)), folder, tally)


@pytest.fixture(scope="session", params=[pytest.param("stopping", marks=pytest.mark.faults), "promotion"])
def search_campaign(
    request: pytest.FixtureRequest,
    server: DriverServer,
    tally: Tally,
    tmp_path_factory: pytest.TempPathFactory,
    write_preset: Callable[..., Path],
) -> Campaign:
    """The same for a search with early stopping, in both its variants."""
    folder = tmp_path_factory.mktemp("search")
    search = {"space": "exbert_embedded", "trials": 4, "max_epochs": 2, "grace": 0.5, "eta": 2}
    preset = write_preset(folder, **SMALL, search=search)
    return Campaign.of(server, ["search", "--preset", str(preset), "--variant", request.param, "--yes"], folder, tally)


@pytest.fixture
def faulty(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The environment in which trials go wrong: `faulty("raise", architecture="exbert", report=2, times=1)`.

    `hang`, `nan`, `raise`, `memory`, `exit`, `slow` or `crawl`, at that report of an attempt at any trial of that
    architecture (or of all), the first `times` times over all processes.
    `Path(environment["SWEEP_FAULT_COUNT"])` has a byte for each time.
    """

    def environment(kind: str, *, architecture: str = "", report: int = 1, times: int | None = None) -> dict[str, str]:
        path = os.pathsep.join(filter(None, [str(FAULTY_SITE.parent), os.environ.get("PYTHONPATH")]))
        fault = {"SWEEP_FAULT": f"{kind}:{architecture}:{report}", "SWEEP_FAULT_COUNT": str(tmp_path / "faults-counted")}
        limit = {} if times is None else {"SWEEP_FAULT_TIMES": str(times)}
        return {"PYTHONPATH": path, **fault, **limit}

    return environment
