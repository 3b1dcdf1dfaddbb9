"""What a person sees while a sweep runs."""

from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.plan import plan_grid
from orchestrator.preset import load_preset
from orchestrator.progress import LiveProgress, PlainProgress, duration, footer, progress_for, render
from orchestrator.trial import Trial


@pytest.fixture
def trials(tmp_path: Path) -> list[Trial]:
    return list(plan_grid(load_preset("embedded"), tmp_path).trials)


def a_clock() -> Callable[[], float]:
    """Ten seconds pass at every look."""
    ticks: Iterator[int] = iter(range(0, 10_000, 10))
    return lambda: float(next(ticks))


def told(kind: type[PlainProgress], trials: list[Trial], gpus: float = 0.5) -> tuple[PlainProgress, StringIO]:
    """One trial completed, one failed after a retry, one running, the rest planned."""
    out = StringIO()
    progress = kind(trials, len(trials), slots=2, gpus=gpus, console=Console(file=out, width=140), clock=a_clock())
    done, broken, running = (trial.key for trial in trials[:3])
    for key in (done, broken, running):
        progress.started(key)
    progress.reported(running, {"epoch": 1.5, "val_qa_loss": None, "notes": ["step-00000012.pt is torn"]})
    progress.reported(done, {"epoch": 3.0, "val_qa_loss": 0.5, "notes": [], "em_squad": 40.0, "em_bioasq": 70.0})
    progress.ended(done, "completed", "")
    progress.retrying(broken, "code: ValueError: no such thing")
    progress.started(broken)
    progress.ended(broken, "failed", "code: ValueError: no such thing")
    return progress, out


def test_plain_lines_tell_every_start_validation_and_end(trials: list[Trial]) -> None:
    _, out = told(PlainProgress, trials)
    lines = out.getvalue().splitlines()
    assert lines[0] == f"[0/24] {trials[0].key} distilbert 0:100 concatenated: started"
    assert any(line.endswith("epoch 3  val loss 0.500  EM squad 40.0  bioasq 70.0") for line in lines)
    assert any("code: ValueError: no such thing; trying again" in line for line in lines)
    assert f"{trials[2].key}: step-00000012.pt is torn" in lines
    assert any("started (attempt 2)" in line for line in lines)
    assert lines[-1].startswith("[2/24]")
    assert "failed in" in lines[-1]


def test_the_live_table_shows_running_trials_first_and_the_counts_below(trials: list[Trial]) -> None:
    progress, _ = told(LiveProgress, trials)
    out = StringIO()
    Console(file=out, width=140).print(render(progress))
    lines = out.getvalue().splitlines()
    assert trials[2].key[:8] in lines[1]
    assert "1.5/3" in lines[1]
    assert "failed" in lines[2]
    assert "0.500*" in lines[3]
    assert "1 completed, 1 failed, 1 running, 21 planned" in lines[-1]
    assert "GPU-hours" in lines[-1]


def test_the_footer_guesses_the_time_to_go_from_the_pace_so_far(trials: list[Trial]) -> None:
    progress, _ = told(PlainProgress, trials, gpus=0)
    assert "to go" in footer(progress)
    assert "GPU" not in footer(progress)


def test_lines_elsewhere_and_a_table_on_a_terminal() -> None:
    assert progress_for(Console(file=StringIO())) is PlainProgress
    assert progress_for(Console(file=StringIO(), force_terminal=True)) is LiveProgress


@pytest.mark.parametrize(("seconds", "said"), [(42.4, "42 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")])
def test_durations_are_said_as_a_person_would(seconds: float, said: str) -> None:
    assert duration(seconds) == said
