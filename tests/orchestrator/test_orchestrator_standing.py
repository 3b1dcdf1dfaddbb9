"""Whatever the ledger of an interrupted sweep says, what is left to do completes it, and nothing done is done again."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import standing
from orchestrator.counts import count_statuses
from orchestrator.frozen import sweep_dir
from orchestrator.lease import Holder, Lease, take_lease
from orchestrator.plan import Plan, plan_grid
from orchestrator.preset import load_preset
from orchestrator.record import EventLog, LedgerWriter, record_plan
from orchestrator.standing import Standing, blocked, close_lost_attempts, mark_lost, statuses, unfinished
from orchestrator.worker import trial_lease
from results.parts import attempt_part, read_attempts, write_part

NOW = datetime(2026, 1, 2, tzinfo=UTC)

Steps = list[tuple[str, str, str | None]]


def life(row: str, event: str, reason: str | None = None, why: str | None = None) -> Steps:
    """What an attempt and its driver write, in order: kind of row, status, reason."""
    return [("event", "running", None), ("row", "running", None), ("row", row, why), ("event", event, reason)]


LIVES: dict[str, Steps] = {
    "completed": life("completed", "completed"),
    "failed once": life("failed", "planned", "retrying"),
    "lost": life("lost", "lost", "retrying"),
    "interrupted": life("stopped", "stopped", "interrupted", "interrupted"),
    "stopped by a search": life("stopped", "stopped", "asha (rung 1)", "asha (rung 1)"),
    "budget": life("stopped", "stopped", "budget (--max-hours 1)", "budget (--max-hours 1)"),
}
FINAL: dict[str, Steps] = {"failed": life("failed", "failed", "2 attempts failed")}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    preset = load_preset("embedded", ["shares=[0, 60]", "orders=[shuffled]"])
    return plan_grid(preset, tmp_path_factory.mktemp("storage"))


class History:
    """Writes a sweep's ledger step by step, up to the step at which everything is killed."""

    def __init__(self, plan: Plan, storage: Path) -> None:
        (storage / "sweeps").mkdir()
        self.storage = storage
        self.sweep_id = plan.sweep_id
        self.clock = NOW
        self.attempts: dict[str, int] = {}
        writer = LedgerWriter(storage, 0, lambda _: None)
        self.events = EventLog(writer, plan.sweep_id, "run-1", "host", self.tick, None)
        record_plan(storage, plan, NOW)

    def tick(self) -> datetime:
        self.clock += timedelta(seconds=1)
        return self.clock

    def live(self, key: str, steps: Steps) -> None:
        attempt = self.attempts[key] = self.attempts.get(key, 0) + 1
        for kind, status, reason in steps:
            if kind == "event":
                self.events.add(key, status, attempt=attempt, reason=reason)
            else:
                row = {"trial_key": key, "attempt": attempt, "status": status, "stop_reason": reason, "started_at": self.clock}
                write_part(self.storage, "attempts", attempt_part(key, attempt), [row])


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_prefix_of_a_sweeps_history_leads_to_its_completion(plan: Plan, data: st.DataObject) -> None:
    keys = [trial.key for trial in plan.trials]
    lives = data.draw(st.lists(st.tuples(st.sampled_from(keys), st.sampled_from([*LIVES, *FINAL])), max_size=12))
    with TemporaryDirectory() as folder:
        history = History(plan, Path(folder))
        done: set[str] = set()
        failed: set[str] = set()
        for number, (key, what) in enumerate(lives):
            if key in done | failed:
                continue  # no driver would run it
            steps = {**LIVES, **FINAL}[what]
            cut = data.draw(st.integers(1, len(steps))) if number == len(lives) - 1 else len(steps)
            history.live(key, steps[:cut])
            has_row = ("row", "completed", None) in steps[:cut]
            if has_row:
                done.add(key)
            if what == "failed" and cut == len(steps):
                failed.add(key)
        left = [trial.key for trial in unfinished(plan, statuses(history.storage, keys))]
        assert set(left) == set(keys) - done - failed  # nothing twice, and nothing forgotten
        for key in left:
            history.live(key, LIVES["completed"])
        assert unfinished(plan, statuses(history.storage, keys)) == []
        retried = unfinished(plan, statuses(history.storage, keys), retry=keys)
        assert {trial.key for trial in retried} == failed


@pytest.fixture(scope="module")
def stages(plan: Plan) -> Plan:
    """Trials that begin from others, and from others that do."""
    first, second, third, fourth = plan.trials
    second = replace(second, parents=(first,))
    third = replace(third, parents=(second,))
    return replace(plan, trials=(first, second, third, replace(fourth, parents=(third, first)), replace(first, seed=1)))


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_counts_in_the_ledger_are_those_of_the_trials_one_by_one(stages: Plan, data: st.DataObject) -> None:
    keys = [trial.key for trial in stages.trials]
    lives = data.draw(st.lists(st.tuples(st.sampled_from(keys), st.sampled_from([*LIVES, *FINAL])), max_size=6))
    with TemporaryDirectory() as folder:
        history = History(stages, Path(folder))
        for key, what in lives:
            steps = {**LIVES, **FINAL}[what]
            history.live(key, steps[: data.draw(st.integers(1, len(steps)))])
        known = statuses(history.storage, keys)
        waiting = blocked(stages, known)
        expected = Counter("blocked" if key in waiting else known[key].status for key in keys)
        dead = expected.pop("running", 0)  # nobody holds the sweep
        expected += Counter({"lost": dead})
        assert count_statuses(history.storage, [stages.sweep_id, "grid-other"]) == {stages.sweep_id: expected, "grid-other": {}}
        driver = take_lease(sweep_dir(history.storage, stages.sweep_id) / "driver", wait=lambda: False)
        assert isinstance(driver, Lease)
        assert count_statuses(history.storage, [stages.sweep_id])[stages.sweep_id].get("running", 0) == dead
        driver.release()


@pytest.mark.parametrize(
    ("standing", "is_done", "is_failed"),
    [
        (Standing("completed"), True, False),
        (Standing("stopped", "asha (rung 2)"), False, False),
        (Standing("stopped", "budget (--max-hours 2)"), False, False),
        (Standing("stopped", "interrupted"), False, False),
        (Standing("lost", "its driver ended"), False, False),
        (Standing("failed", "2 attempts failed"), False, True),
        (Standing("planned", "retrying"), False, False),
    ],
)
def test_only_what_is_completed_is_done(standing: Standing, is_done: bool, is_failed: bool) -> None:
    assert (standing.is_done, standing.is_failed) == (is_done, is_failed)


@pytest.mark.parametrize(
    ("what", "stands"),
    [
        ("stopped by a search", Standing("stopped", "asha (rung 1)")),
        ("interrupted", Standing("stopped", "interrupted")),
        ("lost", Standing("lost", "its driver ended")),
        ("failed once", Standing("lost", "its driver ended")),
        ("completed", Standing("completed")),
    ],
)
def test_a_trial_stands_as_its_worker_said_even_if_its_driver_died_before_it_could(
    plan: Plan, tmp_path: Path, what: str, stands: Standing
) -> None:
    history, key = History(plan, tmp_path), plan.trials[0].key
    history.live(key, LIVES[what][:3])
    mark_lost(plan, tmp_path, history.events)
    assert statuses(tmp_path, [key]) == {key: stands}


def test_a_trial_that_its_driver_gave_up_on_stands_as_its_worker_said_later(plan: Plan, tmp_path: Path) -> None:
    history, key = History(plan, tmp_path), plan.trials[0].key
    history.live(key, LIVES["stopped by a search"][:3])
    history.events.add(key, "lost", reason="interrupted")
    mark_lost(plan, tmp_path, history.events)
    assert statuses(tmp_path, [key]) == {key: Standing("stopped", "asha (rung 1)")}


@pytest.mark.parametrize("meanwhile", ["running", "completed"])
def test_an_attempt_that_ends_while_it_is_looked_at_keeps_its_end(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    history, key = History(plan, tmp_path), plan.trials[0].key
    history.live(key, LIVES["completed"][:2])

    def take(path: Path, **options: Any) -> Lease | Holder:
        row = {"trial_key": key, "attempt": 1, "status": meanwhile, "started_at": NOW}
        write_part(tmp_path, "attempts", attempt_part(key, 1), [row])  # by another sweep's worker, just now
        return take_lease(path, **options)

    monkeypatch.setattr(standing, "take_lease", take)
    close_lost_attempts(plan, tmp_path, LedgerWriter(tmp_path, 0, lambda _: None))
    [row] = read_attempts(tmp_path, key)
    assert row["status"] == ("lost" if meanwhile == "running" else meanwhile)


def test_an_attempt_whose_worker_lives_is_left_alone(plan: Plan, tmp_path: Path) -> None:
    history, key = History(plan, tmp_path), plan.trials[0].key
    history.live(key, LIVES["completed"][:2])
    lease = take_lease(trial_lease(tmp_path, key), wait=lambda: False)
    assert isinstance(lease, Lease)
    close_lost_attempts(plan, tmp_path, LedgerWriter(tmp_path, 0, lambda _: None))
    lease.release()
    [row] = read_attempts(tmp_path, key)
    assert row["status"] == "running"
