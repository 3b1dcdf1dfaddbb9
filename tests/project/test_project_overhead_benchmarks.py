"""The benchmarks of overhead and packing: how their log is read, what they refuse, and that they run at a tiny size."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.machine import num_gpus

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from step_log import Gap, StepClock, gaps, read_log  # noqa: E402

TINY = ["training.epochs=1", "mixture_size=25", "shares=[60]", "evaluation.validation_examples=4", "evaluation.test_examples=4"]


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_a_gap_is_what_lies_between_two_trials_of_one_worker(tmp_path: Path) -> None:
    log = tmp_path / "log"
    # worker, number, began, seconds: worker 1 evaluates after the first trial, worker 2 has one trial alone
    log.write_text("1 1 10.0 1.0\n2 1 10.5 9.0\n1 2 11.5 0.5\n1 0 12.0 2.0\n1 1 15.0 1.0\n1 0 16.0 4.0\n")
    steps, evaluations = read_log(log)
    assert [step.number for step in steps] == [1, 2, 1, 1]
    assert gaps(steps, evaluations) == [Gap(whole=3.0, evaluating=2.0)]


def test_the_clock_logs_what_it_contains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEP_CLOCK", str(tmp_path / "log"))
    clock = StepClock()
    with clock.step(1):
        sum(range(100_000))
    with clock.step(0):
        pass
    [step], [evaluation] = read_log(tmp_path / "log")
    assert step.seconds > evaluation.seconds >= 0
    assert step.began + step.seconds <= evaluation.began + 1e-3  # two clocks, rounded


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param([], "no CUDA device here", marks=pytest.mark.skipif(num_gpus() > 0, reason="there is one")),
        (["--logical-gpus", "1"], "auto measures a real GPU"),
        (["--logical-gpus", "1", "--sharing", "2", "many"], "got many"),
    ],
)
def test_packing_says_what_it_cannot_measure(arguments: list[str], said: str) -> None:
    done = run("packing", *arguments)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_packing_packs_trials_on_gpus_that_ray_believes_in() -> None:
    done = run("packing", "--logical-gpus", "1", "--preset", "embedded", "--sharing", "1", "2", "--set", *TINY)
    assert done.returncode == 0, done.stderr
    assert "NOT MEASURED" in done.stdout
    rows = [[cell.strip() for cell in line.split("│")[1:5]] for line in done.stdout.splitlines() if line.startswith("│")]
    assert rows == [["1", "1", "1", "4"], ["2", "2", "2", "4"]]  # asked, found, slots (of 2 CPUs at least), trials


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_overhead_is_measured_of_ours_and_of_a_shell_loop() -> None:
    done = run("overhead", "--rounds", "1", "--noop-trials", "4", "--tiny-trials", "4", "--sides", "shell loop")
    assert done.returncode == 0, done.stderr
    for said in ("no-op: 4 trials of 1 steps", "tiny: 4 trials of 5 steps", "shell loop", "tiny: ms to the next first step"):
        assert said in done.stdout
