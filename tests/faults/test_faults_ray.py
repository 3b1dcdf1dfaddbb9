"""Kill a worker, the driver or the raylet of a real Ray: the same command finishes the sweep, with the undisturbed ledger."""

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from campaign import SMALL, Campaign, Difference
from drivers import grid
from ray_sweep import RaySweep, ray_sweep, wait_until

from results.ledger import Ledger

pytestmark = pytest.mark.ray

_STARTS_WITHIN = 240.0
_ENDS_WITHIN = 120.0
_ORPHANS_GO_WITHIN = 60.0


class RayCampaign:
    """Kills in a row on one storage, drivers of the Ray backend run one after the other."""

    def __init__(self, campaign: Campaign, environment: dict[str, str]) -> None:
        self._campaign = campaign
        self._environment = environment
        self._storage = campaign.storage()
        self._survived: list[str] = []

    def kill(self, targets: list[str]) -> list[Difference]:
        """Kills what `targets` names, in that order, and runs the sweep to its end; returns the differences."""
        left, before = list(targets), len(self._campaign.tally.differences)
        while left:
            with self._sweep() as sweep:
                while left and not sweep.ended and self._kill(sweep, left[0]):
                    left.pop(0)
                if sweep.ended and sweep.wait(0) == 0:
                    self._compare()
        if self._survived:
            with self._sweep() as sweep:
                status = sweep.wait(_STARTS_WITHIN + _ENDS_WITHIN)
                self._compare([] if status == 0 else [f"the last run ended with {status}:\n{sweep.said}"])
        return self._campaign.tally.differences[before:]

    def _sweep(self) -> AbstractContextManager[RaySweep]:
        return ray_sweep(self._campaign.command, self._storage, self._environment)

    def _kill(self, sweep: RaySweep, target: str) -> bool:
        """Kills once trials have come some random way further; True if the target was alive."""
        reports = sweep.said.count(": epoch") + self._campaign.random.randint(1, 2)
        wait_until(lambda: sweep.ended or sweep.said.count(": epoch") >= reports, _STARTS_WITHIN)
        hit = sweep.kill(target)
        tally = self._campaign.tally
        (tally.kills if hit else tally.missed)[f"Ray {target}"] += 1
        retries_spent = self._survived[-1:] in (["worker"], ["worker told to end"]) and sweep.wait(0) == 1
        if not hit and sweep.wait(0) != 0 and not retries_spent:
            pytest.fail(f"the driver ended with {sweep.wait(0)} before anything was killed:\n{sweep.said}")
        if hit:
            self._survived.append(target)
            self._campaign.note(self._storage, self._survived, self._consequence(sweep, target))
        return hit

    def _consequence(self, sweep: RaySweep, target: str) -> list[str]:
        """Waits for what must follow a kill; what does not is a difference."""
        if target.startswith("worker"):
            return []
        if sweep.wait(_ENDS_WITHIN) is None:
            return [f"the driver still lives {_ENDS_WITHIN:.0f} s after its {target} was killed:\n{sweep.said}"]
        if not sweep.orphans_go(_ORPHANS_GO_WITHIN):
            names = sorted(process.name() for process in sweep.orphans())
            return [f"{', '.join(names)} still live {_ORPHANS_GO_WITHIN:.0f} s after the {target} was killed"]
        return []

    def _compare(self, found: Sequence[str] = ()) -> None:
        """Compares a finished sweep; further kills are on a new storage."""
        self._campaign.compare(self._storage, self._survived, found)
        self._storage, self._survived = self._campaign.storage(), []


@pytest.fixture
def ray_campaign(campaign: Campaign, faulty: Callable[..., dict[str, str]]) -> RayCampaign:
    """On trials that take their time at each report, so that a kill finds them."""
    return RayCampaign(campaign, faulty("slow"))


@pytest.mark.timeout(900)  # it takes one minute; a busy machine is no failure
@pytest.mark.parametrize(
    "targets",
    [["worker", "driver"], pytest.param(["worker told to end", "worker", "driver", "raylet"], marks=pytest.mark.faults)],
    ids=len,
)
def test_a_killed_worker_driver_and_raylet_leave_the_undisturbed_ledger(
    campaign: Campaign, ray_campaign: RayCampaign, targets: list[str]
) -> None:
    before = campaign.tally.kills.total()
    assert ray_campaign.kill(targets) == []
    assert campaign.tally.kills.total() >= before + len(targets)


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_worker_told_to_end_and_one_that_does_not_answer_cost_an_attempt_and_no_result(
    campaign: Campaign, faulty: Callable[..., dict[str, str]], write_preset: Callable[..., Path], tmp_path: Path
) -> None:
    preset = write_preset(tmp_path, **{**SMALL, "recovery": {"checkpoint_seconds": 0, "timeout_seconds": 40}})
    storage = campaign.storage()
    with ray_sweep(grid(preset), storage, faulty("slow")) as sweep:
        wait_until(lambda: sweep.ended or ": epoch" in sweep.said, _STARTS_WITHIN)
        assert sweep.kill("worker", signal.SIGTERM)
        wait_until(lambda: sweep.ended or "its worker was told to end; trying again" in sweep.said, _ENDS_WITHIN)
        assert sweep.kill("worker", signal.SIGSTOP)
        assert sweep.wait(_STARTS_WITHIN + _ENDS_WITHIN) == 0, sweep.said
        assert "has not reported for 40 s; its worker is ended" in sweep.said
    assert campaign.golden.differences(storage) == []
    ended = (
        Ledger(storage, must_exist=False)
        .sql("SELECT DISTINCT failure_class FROM attempts WHERE status <> 'completed' ORDER BY 1")
        .to_pylist()
    )
    assert [row["failure_class"] for row in ended] == ["preempted", "timeout"]


@pytest.mark.faults
@pytest.mark.timeout(0)
def test_kills_of_anything_in_any_order_leave_the_undisturbed_ledger(campaign: Campaign, ray_campaign: RayCampaign) -> None:
    number = int(os.environ.get("FAULTS_KILLS", "200")) // 10
    targets = campaign.random.choices(["worker", "driver", "raylet"], weights=[3, 2, 1], k=number)
    assert ray_campaign.kill(targets) == []
