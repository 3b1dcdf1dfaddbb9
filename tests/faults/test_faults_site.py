"""The faults that `faulty_site` makes: each kind by itself, and in a real sweep."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from campaign import Campaign

from results.ledger import Ledger

Faulty = Callable[..., dict[str, str]]

REGISTRY = """
def train_function(name):
    def train(config, context):
        yield from (1, 2, 3)
    return train
"""
# Takes all reports of a trial of each architecture; `held` keeps memory from ending the test machine.
PROGRAM = """
import resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
from trainables.registry import train_function
for name in ("distilbert", "exbert"):
    began = time.monotonic()
    try:
        for report in train_function(name)(None, None):
            print(name, report, flush=True)
    except (RuntimeError, MemoryError) as error:
        print(name, type(error).__name__, error, flush=True)
    print(name, "took", round(time.monotonic() - began, 1), flush=True)
print("torch" in sys.modules)
"""


@pytest.fixture
def start(tmp_path: Path) -> Callable[[dict[str, str]], "subprocess.Popen[str]"]:
    """Starts a program that uses a registry without torch."""
    (tmp_path / "trainables").mkdir()
    (tmp_path / "trainables" / "__init__.py").touch()
    (tmp_path / "trainables" / "registry.py").write_text(REGISTRY)

    def started(environment: dict[str, str]) -> "subprocess.Popen[str]":
        path = os.pathsep.join([str(tmp_path), environment["PYTHONPATH"]])
        environment = {**os.environ, **environment, "PYTHONPATH": path}
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
        )

    return started


def test_a_fault_strikes_the_named_architecture_at_the_named_report(start: Callable, faulty: Faulty) -> None:
    said, _ = start(faulty("raise", architecture="exbert", report=3)).communicate(timeout=60)
    assert re.sub(r"\d{5,} of process \d+|took [\d.]+", "N", said).splitlines() == [
        *("distilbert 1", "distilbert 2", "distilbert 3", "distilbert N"),
        *("exbert 1", "exbert 2", "exbert RuntimeError made to fail, number N", "exbert N"),
        "False",
    ]


def test_faults_are_counted_over_all_processes(start: Callable, faulty: Faulty) -> None:
    environment = faulty("raise", times=3)
    said = [start(environment).communicate(timeout=60)[0] for _ in range(3)]
    assert [each.count("RuntimeError") for each in said] == [2, 1, 0]
    assert Path(environment["SWEEP_FAULT_COUNT"]).stat().st_size == 3


def test_exit_ends_the_process(start: Callable, faulty: Faulty) -> None:
    process = start(faulty("exit", report=2))
    said, _ = process.communicate(timeout=60)
    assert (said.splitlines(), process.returncode) == (["distilbert 1"], 1)


def test_memory_is_taken_until_there_is_no_more(start: Callable, faulty: Faulty) -> None:
    said, _ = start(faulty("memory", architecture="distilbert")).communicate(timeout=60)
    assert said.startswith("distilbert MemoryError")
    assert "exbert 3" in said


def test_slow_takes_its_time_at_every_report_from_there_on(start: Callable, faulty: Faulty) -> None:
    said, _ = start(faulty("slow", architecture="exbert", report=2)).communicate(timeout=60)
    assert float(re.findall(r"distilbert took (.*)", said)[0]) < 0.2
    assert 0.6 <= float(re.findall(r"exbert took (.*)", said)[0]) < 2  # two reports and the end


def test_hang_never_comes_back(start: Callable, faulty: Faulty) -> None:
    with start(faulty("hang", report=2)) as process:
        assert process.stdout.readline() == "distilbert 1\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        process.kill()


def test_a_trial_that_raises_once_is_tried_again_and_leaves_the_undisturbed_ledger(campaign: Campaign, faulty: Faulty) -> None:
    environment = faulty("raise", architecture="exbert", report=2, times=1)
    storage = campaign.storage()
    ended = campaign.server.run(campaign.command, storage, environment=environment)
    assert ended.status == 0, ended.stderr
    assert campaign.compare(storage, []) == []
    errors = Ledger(storage, must_exist=False).sql("SELECT error_type FROM attempts WHERE status = 'failed'").to_pylist()
    assert errors == [{"error_type": "RuntimeError"}]


def test_a_poisoned_model_computes_nothing_but_nan(campaign: Campaign, faulty: Faulty) -> None:
    environment = faulty("nan", architecture="distilbert", report=3, times=1)
    ended = campaign.server.run(campaign.command, storage := campaign.storage(), environment=environment)
    assert Path(environment["SWEEP_FAULT_COUNT"]).stat().st_size == 1
    query = "SELECT train_qa_loss FROM all_reports WHERE isnan(train_qa_loss)"
    detected = Ledger(storage, must_exist=False).sql("SELECT error FROM attempts WHERE status = 'failed'").to_pylist()
    assert detected or Ledger(storage, must_exist=False).sql(query).num_rows, ended.stderr
