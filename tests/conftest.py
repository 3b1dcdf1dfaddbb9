"""What tests of several packages share: the embedded default, cut down to seconds."""

import importlib.util
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

TINY: dict[str, Any] = {
    "encoder": "embedded",
    "mixture_size": 25,
    "shares": [0, 60],
    "orders": ["concatenated", "shuffled"],
    "trainables": ["distilbert", "exbert"],
    "model": {"n_layers": 1, "num_experts": 4},
    "training": {"epochs": 3, "batch_size": 8, "learning_rate": 1.0e-3, "max_length": 128, "stride": 32},
    "evaluation": {"validation_examples": 12, "test_examples": 12},
    "resources": {"gpus_per_trial": 0},
}


os.environ.setdefault("RAY_worker_niceness", "0")  # or Ray's workers, at 15, would wait for the tests beside them

LONG = {
    "cluster": "starts a cluster of its own, by `make test-cluster`",
    "faults": "hundreds of kills, by `make test-faults`; FAULTS_KILLS says how many",
    "slow": "the whole of what another test does in part, by `make test-slow`",
}
"""Marks of tests that run only when they are asked for: `-m MARK`."""


def pytest_configure(config: pytest.Config) -> None:
    """st-moe-pytorch 0.1.8 has annotations that beartype warns of; named here, since `results` is tested without either."""
    if importlib.util.find_spec("beartype"):
        config.addinivalue_line("filterwarnings", "ignore::beartype.roar.BeartypeDecorHintPep585DeprecationWarning")
    for mark, meaning in LONG.items():
        config.addinivalue_line("markers", f"{mark}: {meaning}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what takes minutes, unless it is asked for."""
    left_out = [mark for mark in LONG if mark not in config.option.markexpr]
    long = [item for item in items if any(item.get_closest_marker(mark) for mark in left_out)]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session")
def write_preset(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a preset of eight trials of a second or two into a folder; keyword arguments replace its keys."""
    from trainables.embedded import write_corpora  # here, as `results` is tested where `trainables` cannot be imported

    files = write_corpora(tmp_path_factory.mktemp("corpora"), train_rows=200, test_rows=60)
    domains = {name: {part: str(files[f"{name}_{part}"]) for part in ("train", "test")} for name in ("squad", "bioasq")}

    def write(folder: Path, **changes: Any) -> Path:
        path = folder / "tiny.yaml"
        path.write_text(yaml.safe_dump({**TINY, "domains": domains, **changes}, sort_keys=False), encoding="utf-8")
        return path

    return write


@pytest.fixture
def preset_file(tmp_path: Path, write_preset: Callable[..., Path]) -> Callable[..., Path]:
    """The same in the test's own folder."""
    return partial(write_preset, tmp_path)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process: (exit code, stdout, stderr)."""
    from orchestrator import run  # here, as `results` is tested where `orchestrator` cannot be imported

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["orchestrator.run", *arguments])
        with pytest.raises(SystemExit) as exit_:
            run.main()
        out = capfd.readouterr()
        return int(exit_.value.code or 0), out.out, out.err

    return call


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Any]:
    """A server that speaks S3 on the loopback."""
    from s3_server import S3Server  # here, as moto takes a second

    with S3Server() as server:
        yield server


@pytest.fixture
def s3(s3_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of an empty storage on it, with what its clients need in the environment and a node's cache of the test's own."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SWEEPS_CACHE", str(tmp_path / "cache"))
    return f"s3://{s3_server.new_bucket()}/of/ours"
