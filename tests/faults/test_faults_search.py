"""A search whose driver is killed decides as one left alone: the same suggestions, rungs and stops, in the same order."""

import os
from random import Random

import pytest
from campaign import Campaign


def decided(campaign: Campaign) -> list[int]:
    """Where in the undisturbed run each decision reached the disk: every suggestion and every report among them."""
    return [place for place, name in enumerate(campaign.recording.names) if name == ("decisions", "renamed")]


def test_a_driver_killed_after_each_of_its_decisions_decides_as_if_it_had_not_been(search_campaign: Campaign) -> None:
    places = decided(search_campaign)
    assert len(places) >= 16  # 4 suggestions, 4 first reports, what goes on
    some = sorted(search_campaign.random.sample(places, 3))  # all of them: by `make test-faults`
    assert search_campaign.kill_at_boundaries(some, empty=False) == []


@pytest.mark.faults
def test_a_search_killed_before_a_decision_is_on_disk_makes_it_again(search_campaign: Campaign) -> None:
    names = search_campaign.recording.names
    before = [place for place, name in enumerate(names) if name in (("decisions", "torn"), ("decisions", "opened"))]
    assert search_campaign.kill_at_boundaries(sorted(search_campaign.random.sample(before, 3)), empty=False) == []


@pytest.mark.faults
@pytest.mark.timeout(0)
def test_a_search_killed_at_every_boundary_and_moment_decides_the_same(search_campaign: Campaign) -> None:
    random, kills = Random(search_campaign.tally.seed + 2), search_campaign.tally.kills
    target = kills.total() + int(os.environ.get("FAULTS_KILLS", "200")) // 4
    empty, differences = True, search_campaign.kill_at_boundaries(decided(search_campaign), empty=False)
    while kills.total() < target:
        places = search_campaign.recording.sample(random, empty=empty)
        differences += search_campaign.kill_at_boundaries(places, empty=empty)
        differences += search_campaign.kill_at_moments(8, in_a_row=random.randint(1, 8), empty=empty)
        empty = not empty
    assert differences == []
