"""Failure classes and what is done about each."""

import errno
from typing import Any

import pytest

from orchestrator.errors import StorageError, TrialTimeoutError
from orchestrator.failures import MAX_STALLED, class_of_death, class_of_error, decide, signature_of
from trainables.contract import DivergedError
from trainables.data.errors import DataError


def history(*classes: str | None, run_id: str = "run", resumed: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    """Attempts that ended so, in order."""
    steps = [*resumed, *([0] * len(classes))]
    return [
        {"attempt": number, "failure_class": each, "run_id": run_id, "resumed_step": step}
        for number, (each, step) in enumerate(zip(classes, steps, strict=False), start=1)
    ]


def test_a_code_data_or_timeout_error_is_tried_once_more() -> None:
    for each in ("code", "data", "timeout"):
        assert decide(history(each), 1, "run").go_on
        assert not decide(history(each, each), 1, "run").go_on
        assert not decide(history(each), 0, "run").go_on


def test_a_diverged_trial_is_not_tried_again() -> None:
    decision = decide(history("diverged"), 5, "run")
    assert not decision.go_on
    assert "same seed" in decision.why


def test_out_of_memory_is_tried_once_at_half_the_batch_whatever_the_retries() -> None:
    again = decide(history("oom"), 0, "run")
    assert (again.go_on, again.micro_batches) == (True, 2)
    assert not decide(history("oom", "oom"), 5, "run").go_on


def test_half_the_batch_stays_after_a_later_loss() -> None:
    assert decide(history("oom", "lost"), 1, "run").micro_batches == 2


def test_lost_and_preempted_attempts_are_free_while_the_trial_gets_on() -> None:
    assert decide(history(*["preempted"] * 50), 0, "run").go_on
    moving = history(*["lost"] * 50, resumed=tuple(range(50)))
    assert decide(moving, 0, "run").go_on
    assert decide(history(*["lost"] * (MAX_STALLED - 1)), 0, "run").go_on
    assert not decide(history(*["lost"] * MAX_STALLED), 0, "run").go_on


def test_losses_of_earlier_runs_do_not_count_since_their_drivers_may_have_been_killed_too() -> None:
    assert decide(history(*["lost"] * 50, run_id="earlier"), 0, "run").go_on


def test_what_was_forgiven_does_not_count() -> None:
    assert decide(history("diverged", "code", "code"), 1, "run", counted_from=4).go_on
    assert not decide(history("code", "code", "code", "code"), 1, "run", counted_from=3).go_on


@pytest.mark.parametrize(
    ("error", "failure_class"),
    [
        (DivergedError("loss"), "diverged"),
        (DataError("rows"), "data"),
        (MemoryError(), "oom"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), "oom"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), "oom"),
        (TrialTimeoutError("silent"), "timeout"),
        (StorageError("full"), "storage"),
        (RuntimeError("std::bad_alloc"), "oom"),
        (RuntimeError("CUDA error: out of memory"), "oom"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "oom"),
        (RuntimeError("shapes do not match"), "code"),
        (OSError(errno.ENOENT, "no such file"), "code"),
    ],
)
def test_exceptions_have_a_class(error: Exception, failure_class: str) -> None:
    assert class_of_error(error) == failure_class


def test_a_worker_that_ray_ended_for_its_memory_was_out_of_memory() -> None:
    assert class_of_death("OutOfMemoryError") == "oom"
    assert class_of_death("ActorDiedError") == "lost"


TRACE = """Traceback (most recent call last):
  File "{folder}/worker.py", line {line}, in advance
    report = next(self._started(), None)
  File "{folder}/loop.py", line 90, in _train_step
ValueError: row {row} of {folder}/x.json has {row}.5 at 0x7f{row}
"""


def test_equal_errors_have_one_signature_whatever_the_numbers_and_paths() -> None:
    one = TRACE.format(folder="/home/a", line=12, row=7)
    other = TRACE.format(folder="/srv/b/c", line=99, row=12345)
    assert signature_of("ValueError", one) == signature_of("ValueError", other)
    assert signature_of("TypeError", one) != signature_of("ValueError", one)
    assert signature_of("ValueError", one.replace("has", "lacks")) != signature_of("ValueError", one)
    assert signature_of("ValueError", one.replace("_train_step", "_evaluate")) != signature_of("ValueError", one)
