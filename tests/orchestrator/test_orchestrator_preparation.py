"""Data that is prepared beside the start of a backend is that of a preparation in the same process."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from orchestrator import preparation as preparations
from orchestrator.errors import SweepError
from orchestrator.node_files import node_files
from orchestrator.plan import plan_grid
from orchestrator.preparation import preparation
from orchestrator.preset import load_preset
from orchestrator.trial import Trial
from trainables.data.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
IN_TREE = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (Path(__file__).parent, ROOT)))}


@pytest.fixture
def trials(preset_file: Callable[..., Path], tmp_path: Path) -> Sequence[Trial]:
    return planned(preset_file(), tmp_path)


def planned(preset: Path, storage: Path | str) -> Sequence[Trial]:
    return plan_grid(load_preset(str(preset), (), 2), storage).trials


def prepared(trials: Sequence[Trial], storage: Path | str, *, beside: bool) -> list[str]:
    """What was said."""
    said: list[str] = []
    with preparation(trials, storage, said.append, lambda: said.append("there"), beside=beside) as wait:
        wait()
    return said


def files_in(storage: Path) -> dict[str, bytes]:
    folder = storage / "prepared"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def children() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it has just ended
            found += [child] if "spawn_main" in " ".join(child.cmdline()) else []
    return found


def test_a_process_of_its_own_builds_and_says_the_same(trials: Sequence[Trial], tmp_path: Path) -> None:
    said = prepared(trials, tmp_path / "beside", beside=True)
    assert said == prepared(trials, tmp_path / "here", beside=False)
    assert [line.partition(":")[0] for line in said] == ["squad", "bioasq", "there"]
    assert files_in(tmp_path / "beside") == files_in(tmp_path / "here")
    assert len(files_in(tmp_path / "here")) > 8


def test_what_is_built_already_takes_no_process(trials: Sequence[Trial], tmp_path: Path) -> None:
    said = prepared(trials, tmp_path, beside=True)
    with preparation(trials, tmp_path, said.append, lambda: said.append("there"), beside=True) as wait:
        assert children() == []
        wait()
    assert said[:3] == said[3:]


def test_on_an_object_store_other_nodes_have_it_too(
    preset_file: Callable[..., Path], s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = planned(preset_file(), s3)
    assert len(prepared(trials, s3, beside=True)) == 3
    here = node_files(s3).prepared_dir
    monkeypatch.setenv("SWEEPS_CACHE", str(tmp_path / "of another node"))
    files = node_files(s3)
    files.fetch_prepared(trials[0].config, files.local(trials[0].data))
    names, fetched = ({path.name for path in folder.glob("[!.]*")} for folder in (here, files.prepared_dir))
    assert len(names) == 4
    assert fetched == names


def test_its_errors_are_raised_where_it_is_waited_for(preset_file: Callable[..., Path], tmp_path: Path) -> None:
    trials = planned(preset_file(mixture_size=5000), tmp_path)
    done: list[int] = []
    begun = preparation(trials, tmp_path, print, lambda: done.append(1), beside=True)
    with begun as wait, pytest.raises(DataError, match="set mixture_size"):
        wait()
    assert done == []


def test_it_is_missed_when_it_is_killed(trials: Sequence[Trial], tmp_path: Path) -> None:
    with preparation(trials, tmp_path, print, print, beside=True) as wait:
        [process] = children()
        process.kill()
        with pytest.raises(SweepError, match=r"ended with -9 .*run the same command again"):
            wait()


def test_it_ends_with_its_context(trials: Sequence[Trial], tmp_path: Path) -> None:
    with preparation(trials, tmp_path, print, print, beside=True):
        assert len(children()) == 1
    assert children() == []


def test_it_ends_with_its_driver_also_where_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(
        """
import multiprocessing, sys, time
from orchestrator.preparation import _end_with_driver

def work():
    _end_with_driver()
    print("at work", flush=True)
    time.sleep(60)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=work)
    process.start()
    print(process.pid, flush=True)
    time.sleep(60)
""",
        encoding="utf-8",
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=IN_TREE) as driver:
        assert driver.stdout is not None
        child = psutil.Process(int(driver.stdout.readline()))
        assert driver.stdout.readline() == "at work\n"
        driver.kill()
        child.wait(timeout=20)


def test_an_error_of_ours_arrives_with_its_traceback(trials: Sequence[Trial], tmp_path: Path) -> None:
    [(config, data), *_] = preparations._different(trials)
    answers, sender = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(
        target=preparations._prepare_apart, args=([(config.model_dump(), data)], tmp_path, sender)
    )
    process.start()
    sender.close()
    with pytest.raises(SweepError, match="AttributeError: 'dict' object has no attribute"):
        list(preparations._heard(answers, process))
    process.join()


def test_the_driver_is_spared_torch_and_the_tokenizers(preset_file: Callable[..., Path], tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(
        f"""
import sys
from test_orchestrator_preparation import planned, prepared
from pathlib import Path

if __name__ == "__main__":
    trials = planned(Path({str(preset_file())!r}), Path({str(tmp_path)!r}))
    for _ in range(2):  # built, and found built
        prepared(trials, Path({str(tmp_path)!r}), beside=True)
    print([name for name in ("torch", "transformers", "datasets") if name in sys.modules])
""",
        encoding="utf-8",
    )
    found = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, env=IN_TREE)
    assert found.stdout.strip() == "[]"
