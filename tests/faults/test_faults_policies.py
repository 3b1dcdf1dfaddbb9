"""What goes wrong inside a trial, and what becomes of it: classes, retries, budgets, requests to stop. Real drivers, forked."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from campaign import SMALL, Campaign
from drivers import Ended, grid

from results.ledger import Ledger

Faulty = Callable[..., dict[str, str]]
Run = Callable[..., Ended]


@pytest.fixture
def storage(campaign: Campaign) -> Path:
    return campaign.storage()


@pytest.fixture
def run(campaign: Campaign, storage: Path, write_preset: Callable[..., Path], tmp_path: Path) -> Run:
    """Runs the campaign's sweep on the test's storage; `recovery` and `resources` change the preset, not the keys."""

    def started(*command: str, **options: Any) -> Ended:
        recovery = {**SMALL["recovery"], **options.pop("recovery", {})}
        resources = {"gpus_per_trial": 0, **options.pop("resources", {})}
        preset = write_preset(tmp_path, **{**SMALL, "recovery": recovery, "resources": resources})
        arguments = command if command[:1] in (("resume",), ("retry",)) else [*grid(preset), *command]
        return campaign.server.run(arguments, storage, **options)

    return started


def trials(storage: Path, columns: str, where: str = "true") -> list[tuple[Any, ...]]:
    query = f"SELECT {columns} FROM trials WHERE {where} ORDER BY ALL"
    return [tuple(row.values()) for row in Ledger(storage, must_exist=False).sql(query).to_pylist()]


def attempts(storage: Path) -> list[tuple[Any, ...]]:
    query = "SELECT status, failure_class, micro_batches, count(*) FROM attempts GROUP BY ALL ORDER BY ALL"
    return [tuple(row.values()) for row in Ledger(storage, must_exist=False).sql(query).to_pylist()]


def test_an_error_is_tried_once_more_and_then_kept_with_its_traceback(run: Run, faulty: Faulty, storage: Path) -> None:
    ended = run(environment=faulty("raise", architecture="exbert"))
    assert ended.status == 1
    assert trials(storage, "status, failure_class, attempts", "architecture = 'exbert'") == [("failed", "code", 2)] * 2
    assert trials(storage, "status", "architecture = 'distilbert'") == [("completed",)] * 2
    assert all("made to fail" in error for (error,) in trials(storage, "error", "status = 'failed'"))
    assert "2 x code: RuntimeError: made to fail" in ended.stderr
    assert len({signature for (signature,) in trials(storage, "error_signature", "status = 'failed'")}) == 1


def test_an_error_that_happens_once_costs_an_attempt_and_no_result(
    run: Run, faulty: Faulty, storage: Path, campaign: Campaign
) -> None:
    assert run(environment=faulty("raise", report=3, times=1)).status == 0
    assert ("failed", "code", 1, 1) in attempts(storage)
    assert campaign.golden.differences(storage) == []


def test_the_same_error_in_several_trials_stops_the_sweep_and_retry_finishes_it(
    run: Run, faulty: Faulty, storage: Path, campaign: Campaign
) -> None:
    stopped = run(environment=faulty("raise"), recovery={"max_same_failures": 2})
    assert stopped.status == 1
    assert trials(storage, "status, count(*)", "true GROUP BY 1") == [("failed", 2), ("planned", 2)]
    assert "stopped: same error (2 trials failed with RuntimeError" in stopped.stderr
    assert stopped.stderr.count("Traceback (most recent call last)") == 1
    same = run()
    assert same.status == 1
    assert trials(storage, "status, count(*)", "true GROUP BY 1") == [("completed", 2), ("failed", 2)]
    assert "2 trials had failed before and were not run again" in same.stderr
    assert run("retry", "--failed").status == 0
    assert campaign.golden.differences(storage) == []


def test_a_trial_that_diverges_is_not_tried_again(run: Run, faulty: Faulty, storage: Path) -> None:
    assert run(environment=faulty("nan", architecture="exbert", report=2)).status == 1
    assert (
        trials(storage, "status, failure_class, attempts, error_type", "architecture = 'exbert'")
        == [("failed", "diverged", 1, "DivergedError")] * 2
    )
    assert run().status == 1
    assert attempts(storage) == [("completed", None, 1, 2), ("failed", "diverged", 1, 2)]


KEPT = [("none", 0), ("all", 4)]
LIMIT = {"memory_gib_per_trial": 1.5}


def test_a_trial_without_memory_goes_on_at_half_the_batch(run: Run, faulty: Faulty, storage: Path) -> None:
    assert run(environment=faulty("memory", architecture="exbert", report=2, times=1), resources=LIMIT).status == 0
    assert attempts(storage) == [("completed", None, 1, 3), ("completed", None, 2, 1), ("failed", "oom", 1, 1)]


@pytest.mark.faults
def test_a_trial_that_takes_memory_without_end_fails_and_the_others_go_on(run: Run, faulty: Faulty, storage: Path) -> None:
    assert run(environment=faulty("memory", architecture="exbert", report=2), resources=LIMIT).status == 1
    assert trials(storage, "status, failure_class, attempts", "architecture = 'exbert'") == [("failed", "oom", 2)] * 2
    assert trials(storage, "status", "architecture = 'distilbert'") == [("completed",)] * 2


@pytest.mark.faults
def test_a_trial_that_hangs_is_ended_and_tried_again(run: Run, faulty: Faulty, storage: Path, campaign: Campaign) -> None:
    ended = run(environment=faulty("hang", report=3, times=1), recovery={"timeout_seconds": 10})
    assert ended.status == 0
    assert "has not reported for 10 s" in ended.stderr
    assert ("failed", "timeout", 1, 1) in attempts(storage)
    assert (
        "_hang"
        in Ledger(storage, must_exist=False)
        .sql("SELECT error FROM attempts WHERE failure_class = 'timeout'")
        .to_pylist()[0]["error"]
    )
    assert campaign.golden.differences(storage) == []


@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [pytest.param(signal.SIGINT, 130, "interrupted", marks=pytest.mark.faults), (signal.SIGTERM, 143, "preempted")],
)
def test_a_signal_stops_trials_at_a_step_with_a_checkpoint(
    run: Run, faulty: Faulty, storage: Path, campaign: Campaign, number: int, code: int, reason: str
) -> None:
    stopped = run(environment=faulty("slow"), once_said=("epoch 1", lambda pid: os.kill(pid, number)))
    assert stopped.status == code
    assert trials(storage, "stop_reason", "status = 'stopped'") == [(reason,)]
    [(checkpoint,)] = trials(storage, "checkpoint", "status = 'stopped'")
    assert (storage / checkpoint).exists()
    assert f"stopped: {reason}" in stopped.stderr
    assert run("resume").status == 0
    assert campaign.golden.differences(storage) == []


@pytest.mark.faults
def test_a_sweep_stops_at_its_number_of_trials_and_goes_on_with_a_larger_one(
    run: Run, storage: Path, campaign: Campaign
) -> None:
    assert run("--max-trials", "1").status == 0
    again = run("--max-trials", "1")
    assert trials(storage, "status, count(*)", "true GROUP BY 1") == [("completed", 1), ("planned", 3)]
    assert "budget (--max-trials 1)" in again.stderr
    assert run("--max-trials", "4").status == 0
    assert campaign.golden.differences(storage) == []


def test_a_sweep_stops_at_its_hours_with_checkpoints_and_goes_on_with_more(
    run: Run, faulty: Faulty, storage: Path, campaign: Campaign
) -> None:
    stopped = run("--max-hours", "0.0014", environment=faulty("crawl"))
    assert stopped.status == 0
    assert "budget (--max-hours 0.0014)" in stopped.stderr
    assert trials(storage, "stop_reason", "status = 'stopped'") == [("budget (--max-hours 0.0014)",)]
    nothing = run("--max-hours", "0.0014")  # all runs count
    assert ": started" not in nothing.stderr
    assert run("--max-hours", "1").status == 0
    assert campaign.golden.differences(storage) == []


def test_a_sweep_stops_when_a_trial_reaches_the_goal(run: Run, storage: Path) -> None:
    ended = run("--stop-at", "val_qa_loss=100")
    assert ended.status == 0
    assert "budget (--stop-at val_qa_loss=100)" in ended.stderr
    assert trials(storage, "count(*)", "status = 'planned'") == [(3,)]  # the first trial reaches it


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--stop-at", "em_squat=3"], "did you mean em_squad?"),
        (["--stop-at", "em_squad"], "--stop-at takes METRIC=NUMBER"),
        (["--max-gpu-hours", "3"], "trials hold no GPU here"),
    ],
)
def test_a_limit_that_cannot_be_is_refused_before_anything_runs(
    run: Run, storage: Path, more: list[str], complaint: str
) -> None:
    ended = run(*more)
    assert ended.status == 2
    assert complaint in ended.stderr.splitlines()[-1]
    assert attempts(storage) == []


@pytest.mark.parametrize(("keep", "left"), [("best", 1), *(pytest.param(*each, marks=pytest.mark.faults) for each in KEPT)])
def test_final_weights_are_kept_as_asked(run: Run, storage: Path, keep: str, left: int) -> None:
    assert run("--keep-checkpoints", keep, recovery={"num_best": 1}).status == 0
    named = [checkpoint for (checkpoint,) in trials(storage, "checkpoint", "checkpoint IS NOT NULL")]
    assert len(named) == left
    assert sorted(named) == sorted(path.relative_to(storage).as_posix() for path in storage.glob("checkpoints/*/*"))
    if keep == "best":
        query = "SELECT trial_key FROM reports WHERE val_qa_loss IS NOT NULL ORDER BY step DESC, val_qa_loss LIMIT 1"
        assert Ledger(storage, must_exist=False).sql(query).to_pylist()[0]["trial_key"] in named[0]


@pytest.mark.faults
def test_the_account_of_a_troubled_sweep_adds_up(run: Run, faulty: Faulty, storage: Path) -> None:
    from results.spending import load_spending

    run(environment=faulty("raise", architecture="exbert", report=2))
    killed = run("retry", "--failed", environment=faulty("slow"), once_said=("started", lambda pid: os.killpg(pid, 9)))
    assert killed.was_killed
    assert run("resume").status == 0  # that they are to be tried again is in the ledger too
    [sweep] = Ledger(storage, must_exist=False).sql("SELECT DISTINCT sweep_id FROM runs").to_pylist()
    spending = load_spending(Ledger(storage, must_exist=False), sweep["sweep_id"])
    slots = (
        Ledger(storage, must_exist=False).sql("SELECT sum(wall_seconds * slots) AS seconds FROM runs").to_pylist()[0]["seconds"]
    )
    assert spending.notes == ()
    assert sum(spending.seconds.values()) == pytest.approx(slots)
    assert spending.seconds["failed"] > 0
    assert spending.seconds["useful"] > 0
    assert all(seconds >= 0 for seconds in spending.seconds.values())
