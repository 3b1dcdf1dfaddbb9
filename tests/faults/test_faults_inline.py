"""Kill a driver anywhere, as often as you like: the same command finishes the sweep, with the ledger of an undisturbed run."""

import os
from dataclasses import replace
from random import Random

import pytest
from boundaries import Point, kind_of
from campaign import Campaign, points_between

LEDGER = {"plans", "events", "attempts", "reports", "evaluations", "predictions", "routing"}


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("ledger/reports/.ce5f03b960572855-1.parquet.4711-3.tmp", "reports"),
        ("checkpoints/ce5f03b960572855/.step-00000005.safetensors.tmp", "checkpoints/*/step-*.safetensors"),
        ("checkpoints/ce5f03b960572855/step-00000010.safetensors", "checkpoints/*/step-*.safetensors"),
        ("checkpoints/.ce5f03b960572855.lease.3", "checkpoints/*.lease.*"),
        ("sweeps/grid-e917e716/sweep.json", "sweeps/grid-*/sweep.json"),
        ("corpora/b7f4259e944b/squad_train.json.4711.tmp", "corpora/*/squad_train.json"),
    ],
)
def test_a_temporary_is_of_its_targets_kind(path: str, kind: str) -> None:
    assert kind_of(path) == kind


def test_ordinals_count_from_the_kill_before() -> None:
    names = [("a", "written"), ("a", "renamed"), ("a", "written"), ("b", "written"), ("a", "written")]
    assert points_between(names, [0, 4]) == [Point("a", "written", 1), Point("a", "written", 2)]


def test_an_undisturbed_run_comes_by_boundaries_of_all_that_it_writes(campaign: Campaign) -> None:
    renamed = {kind for kind, phase in campaign.recording.names if phase == "renamed"}
    assert renamed >= LEDGER | {
        "checkpoints/*/step-*.safetensors",
        "checkpoints/*/final.safetensors",
        "sweeps/grid-*/sweep.json",
    }


def test_kills_at_boundaries_from_an_empty_storage_on_leave_the_undisturbed_ledger(campaign: Campaign) -> None:
    spread = campaign.recording.sample(campaign.random, empty=True)
    chosen = sorted(campaign.random.sample(spread, min(8, len(spread))))
    assert campaign.kill_at_boundaries(chosen, empty=True) == []
    assert campaign.tally.kills["driver at a boundary"] >= 7


@pytest.mark.faults
def test_kills_at_random_moments_on_one_storage_leave_the_undisturbed_ledger(campaign: Campaign) -> None:
    assert campaign.kill_at_moments(5, in_a_row=5, empty=False) == []


@pytest.mark.faults
@pytest.mark.timeout(0)
def test_hundreds_of_kills_leave_the_undisturbed_ledger(campaign: Campaign) -> None:
    wanted = int(os.environ.get("FAULTS_KILLS", "200"))
    random, kills = Random(campaign.tally.seed + 1), campaign.tally.kills
    chained = replace(campaign, random=random)
    target = kills.total() + wanted
    empty, differences = True, []
    while kills.total() < target:
        differences += chained.kill_at_boundaries(chained.recording.sample(random, empty=empty), empty=empty)
        moments = min(20, max(0, target - kills.total()))
        differences += chained.kill_at_moments(moments, in_a_row=random.randint(1, 8), empty=empty)
        empty = not empty
    assert differences == []
