"""Whole sweeps from the command line on a real Ray: the ledgers they leave, killed workers, failing trials, interruptions."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from results.ledger import Ledger

pytestmark = pytest.mark.ray

# Everything that a trial measured: what two runs with the same seed must agree on to the bit.
MEASURED = {
    "reports": "SELECT * EXCLUDE (attempt, wall_seconds) FROM reports",
    "evaluations": "SELECT * EXCLUDE (attempt) FROM evaluations",
    "predictions": "SELECT * EXCLUDE (attempt) FROM predictions",
    "routing": "SELECT * EXCLUDE (attempt) FROM routing",
}


def environment(home: Path) -> dict[str, str]:
    """A private home, so that nothing a test does with Ray outlives it."""
    return {**os.environ, "HOME": str(home)}


def command(preset: Path, storage: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "orchestrator.run", "grid", "--preset", str(preset), "--storage", str(storage), *more]


def run_grid(preset: Path, storage: Path, *more: str) -> subprocess.CompletedProcess[str]:
    arguments = command(preset, storage, *more)
    return subprocess.run(arguments, capture_output=True, text=True, env=environment(storage.parent), timeout=240, check=False)


@contextmanager
def running_grid(preset: Path, storage: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(preset, storage, *more),
        stderr=subprocess.PIPE,
        text=True,
        env=environment(storage.parent),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], words: str) -> str:
    """Reads what the driver says up to the first line with `words`."""
    said = []
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line)
        if words in line:
            return line
    pytest.fail(f"the driver never said {words!r}:\n{''.join(said)}")


def status_counts(storage: Path) -> dict[str, int]:
    return {
        row["status"]: row["n"]
        for row in Ledger(storage, must_exist=False).sql("SELECT status, count(*) AS n FROM trials GROUP BY 1").to_pylist()
    }


def measured(storage: Path, like: Path | None = None) -> dict[str, list[dict[str, object]]]:
    """What the trials measured; only of those trials that `like` has, where it is given."""
    ledger = Ledger(storage, must_exist=False)
    rows = {table: ledger.sql(f"{query} ORDER BY ALL").to_pylist() for table, query in MEASURED.items()}
    keys = {row["trial_key"] for row in Ledger(like or storage).sql("SELECT trial_key FROM trials").to_pylist()}
    return {table: [row for row in found if row["trial_key"] in keys] for table, found in rows.items()}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, write_preset: Callable[..., Path]) -> Path:
    """The ledger that the inline backend leaves: a plain loop, without Ray."""
    folder = tmp_path_factory.mktemp("inline")
    done = run_grid(write_preset(folder), folder / "storage", "--backend", "inline")
    assert done.returncode == 0, done.stderr
    return folder / "storage"


def test_ray_leaves_the_ledger_of_the_plain_loop_and_a_second_run_runs_nothing(
    tmp_path: Path, preset_file: Callable[..., Path], reference: Path
) -> None:
    preset, storage = preset_file(), tmp_path / "storage"
    first = run_grid(preset, storage)
    assert first.returncode == 0, first.stderr
    assert status_counts(storage) == {"completed": 8}
    assert measured(storage) == measured(reference)
    assert len(measured(storage)["predictions"]) == 8 * 24
    second = run_grid(preset, storage)
    assert second.returncode == 0
    assert "8 already done, 0 to run" in second.stderr
    assert Ledger(storage, must_exist=False).sql("SELECT max(attempts) AS n FROM trials").to_pylist() == [{"n": 1}]
    assert not (tmp_path / ".ray").exists()  # no token of Ray's in the user's home


_FORGETFUL_DRIVER = """
import gc, sys
from orchestrator.ray_environment import set_ray_environment
if __name__ == "__main__":
    set_ray_environment(None)
    from ray.tune.experiment import Trial
    from orchestrator import ray_hooks, run

    forget, most, before = ray_hooks._forget_ended, 0, []

    def forget_and_count(tune_controller):
        global most, before
        forget(tune_controller)
        trials = [trial.trial_id for trial in tune_controller.get_trials()]
        if trials != before:
            before = trials
            gc.collect()
            most = max(most, sum(type(each) is Trial for each in gc.get_objects()))

    ray_hooks._ENDED_KEPT, ray_hooks._forget_ended = 1, forget_and_count
    try:
        run.main()
    finally:
        print("most trials held:", most)
"""


def test_tune_forgets_trials_that_have_ended_and_the_ledger_is_the_same(
    tmp_path: Path, preset_file: Callable[..., Path], reference: Path
) -> None:
    preset, storage = preset_file(), tmp_path / "storage"
    (tmp_path / "driver.py").write_text(_FORGETFUL_DRIVER)
    arguments = [sys.executable, str(tmp_path / "driver.py"), *command(preset, storage)[3:]]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment(tmp_path), timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "8 of 8 trials done" in done.stderr
    assert measured(storage) == measured(reference)
    assert Ledger(storage).sql("SELECT max(attempts) AS n FROM trials").to_pylist() == [{"n": 1}]
    assert int(done.stdout.split("most trials held:")[1]) <= 5  # two that run, one that waits, two that have ended


@pytest.mark.slow
def test_a_trial_that_raises_is_a_row_with_its_traceback_and_the_others_complete(
    tmp_path: Path, preset_file: Callable[..., Path]
) -> None:
    preset, storage = preset_file(trainables=["distilbert"], shares=[0]), tmp_path / "storage"
    arguments = ["plan", "grid", "--preset", str(preset), "--storage", str(storage), "--json"]
    planned = json.loads(subprocess.check_output([sys.executable, "-m", "orchestrator.run", *arguments], text=True))
    broken = planned["trials"][1]["key"]
    (storage / "checkpoints").mkdir(parents=True)
    (storage / "checkpoints" / broken).write_text("a file where the trial wants its folder")
    done = run_grid(preset, storage, "--set", "resources.max_concurrent=1")
    assert done.returncode == 1
    assert status_counts(storage) == {"completed": 1, "failed": 1}
    [row] = (
        Ledger(storage, must_exist=False)
        .sql("SELECT trial_key, attempts, error_type, error FROM trials WHERE status = 'failed'")
        .to_pylist()
    )
    assert (row["trial_key"], row["attempts"], row["error_type"]) == (broken, 2, "FileExistsError")
    assert "Traceback" in row["error"]
    assert "save_final_weights" in row["error"]
    assert "1 x code: FileExistsError" in done.stderr
    (storage / "checkpoints" / broken).unlink()  # mended
    again = run_grid(preset, storage)
    assert again.returncode == 1
    assert "1 already done, 0 to run" in again.stderr  # what failed for good is not paid for twice unasked
    retry = next(line.split() for line in again.stderr.splitlines() if "retry --failed" in line)
    retried = subprocess.run(
        [sys.executable, *retry[1:], "--backend", "inline"],
        capture_output=True,
        text=True,
        env=environment(tmp_path),
        check=False,
    )
    assert retried.returncode == 0, retried.stderr
    assert status_counts(storage) == {"completed": 2}
    assert Ledger(storage, must_exist=False).sql("SELECT DISTINCT error FROM trials").to_pylist() == [{"error": None}]


@pytest.mark.parametrize(("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)])
def test_a_signal_to_all_its_processes_stops_a_sweep_that_says_how_to_go_on_and_resume_finishes(
    tmp_path: Path, preset_file: Callable[..., Path], reference: Path, number: int, code: int
) -> None:
    preset, storage = preset_file(trainables=["distilbert"]), tmp_path / "storage"
    with running_grid(preset, storage) as driver:
        wait_for(driver, "completed in")
        os.killpg(driver.pid, number)  # as a terminal's Ctrl-C does, and `timeout`
        line = wait_for(driver, "orchestrator.run resume")
        assert driver.wait(timeout=60) == code
    resume = line.split()
    assert resume[:3] == ["python", "-m", "orchestrator.run"]
    finish = [sys.executable, *resume[1:], "--backend", "inline"]
    done = subprocess.run(finish, capture_output=True, text=True, env=environment(tmp_path), check=False)
    assert done.returncode == 0, done.stderr
    assert status_counts(storage) == {"completed": 4}
    assert measured(storage) == measured(reference, like=storage)


def test_a_second_driver_on_the_same_sweep_is_refused(tmp_path: Path, preset_file: Callable[..., Path]) -> None:
    preset, storage = preset_file(), tmp_path / "storage"
    with running_grid(preset, storage, "--backend", "inline") as driver:
        wait_for(driver, "started")
        second = run_grid(preset, storage, "--backend", "inline")
        assert second.returncode == 2
        assert f"is being run by process {driver.pid}" in second.stderr


@pytest.mark.slow
def test_two_sweeps_at_once_run_a_trial_that_they_share_once(tmp_path: Path, preset_file: Callable[..., Path]) -> None:
    preset, storage = preset_file(), tmp_path / "storage"
    with running_grid(preset, storage, "--backend", "inline") as whole:
        wait_for(whole, "started")
        part = run_grid(preset, storage, "--backend", "inline", "--set", "shares=[0]")
        assert part.returncode == 0, part.stderr
        assert whole.wait(timeout=240) == 0
    assert status_counts(storage) == {"completed": 8}
    assert Ledger(storage, must_exist=False).sql("SELECT max(attempt) AS n, count(*) AS rows FROM attempts").to_pylist() == [
        {"n": 1, "rows": 8}
    ]


@pytest.mark.slow
def test_a_trial_that_asks_for_more_than_there_is_is_refused_before_it_waits(
    tmp_path: Path, preset_file: Callable[..., Path]
) -> None:
    done = run_grid(preset_file(), tmp_path / "storage", "--set", "resources.cpus_per_trial=512")
    assert done.returncode == 2
    assert "a trial asks for 512 CPUs" in done.stderr
    assert "lower resources.cpus_per_trial" in done.stderr
