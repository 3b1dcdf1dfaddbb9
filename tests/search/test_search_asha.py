"""Successive halving: who goes on, and that interruptions change nothing."""

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.asha import Action, Asha, AshaError, Decision, Variant, rung_fidelities

Report = tuple[str, float, float]  # trial key, fidelity, value
GOES_ON = Decision(Action.GO_ON)


def survivors(asha: Asha, fidelity: float, values: Sequence[float]) -> list[int]:
    """Which arrivals at a rung go on at once, by their place in the order of arrival."""
    decisions = [asha.report(f"trial{place}", fidelity, value) for place, value in enumerate(values)]
    return [place for place, decision in enumerate(decisions) if decision.action is Action.GO_ON]


@st.composite
def campaigns(draw: st.DrawFn) -> list[Report]:
    """Reports of several trials at half-epochs, interleaved, each trial's in its own order; some jump, some diverge."""
    values = st.one_of(st.integers(0, 4).map(float), st.floats(0, 1), st.sampled_from([math.nan, math.inf]))
    pending: list[list[Report]] = []
    for index in range(draw(st.integers(1, 7))):
        halves = sorted(draw(st.sets(st.integers(1, 11), min_size=1, max_size=8)))
        pending.append([(f"trial{index}", half / 2, draw(values)) for half in halves])
    campaign = []
    while pending:
        queue = pending[draw(st.integers(0, len(pending) - 1))]
        campaign.append(queue.pop(0))
        pending = [left for left in pending if left]
    return campaign


class Driver:
    """Reports what a trial that goes on would report, promotes at every turn, and writes down what it did."""

    def __init__(self, asha: Asha) -> None:
        self.asha = asha
        self.held: set[str] = set()
        self.log: list[Report | str] = []
        self.decisions: list[Decision | str | None] = []

    def offer(self, report: Report) -> None:
        if report[0] not in self.held:
            decision = self.asha.report(*report)
            self.log.append(report)
            self.decisions.append(decision)
            if decision.action is not Action.GO_ON:
                self.held.add(report[0])
        promoted = self.asha.next_promotion()
        self.decisions.append(promoted)
        if promoted is not None:
            self.log.append(promoted)
            self.held.remove(promoted)


VARIANTS = st.sampled_from(["stopping", "promotion"])


@given(campaigns(), VARIANTS, st.integers(2, 4), st.data())
def test_an_interrupted_search_replayed_decides_as_an_uninterrupted_one(
    campaign: list[Report], variant: Variant, eta: int, data: st.DataObject
) -> None:
    uninterrupted = Driver(Asha(0.5, eta, 5, variant))
    for report in campaign:
        uninterrupted.offer(report)

    kill = data.draw(st.integers(0, len(campaign)))
    before = Driver(Asha(0.5, eta, 5, variant))
    for report in campaign[:kill]:
        before.offer(report)
    after = Driver(Asha(0.5, eta, 5, variant))
    for entry in before.log:
        after.asha.promote(entry) if isinstance(entry, str) else after.asha.report(*entry)
    after.held, after.decisions = set(before.held), list(before.decisions)
    for report in campaign[kill:]:
        after.offer(report)

    assert after.decisions == uninterrupted.decisions
    assert after.asha.rung_table() == uninterrupted.asha.rung_table()


@given(campaigns(), VARIANTS, st.integers(2, 4), st.randoms())
def test_reports_repeated_by_a_resumed_trial_change_nothing_and_hear_the_same(
    campaign: list[Report], variant: Variant, eta: int, chance: random.Random
) -> None:
    driver = Driver(Asha(0.5, eta, 5, variant))
    heard: dict[tuple[str, float], Decision] = {}
    for report in campaign:
        is_new = report[0] not in driver.held
        driver.offer(report)
        if is_new:
            heard[report[:2]] = next(entry for entry in reversed(driver.decisions) if isinstance(entry, Decision))
        table = driver.asha.rung_table()
        for key, fidelity in chance.sample(sorted(heard), min(3, len(heard))):
            decision = driver.asha.report(key, fidelity, chance.choice([0.0, 9.0, math.nan]))
            before = heard[key, fidelity]
            is_last = fidelity == max(reported for known, reported in heard if known == key)
            if before.action is Action.PAUSE and not (is_last and key in driver.held):  # it has been promoted since
                before = Decision(Action.GO_ON, before.rung)
            assert decision == before
        assert driver.asha.rung_table() == table


@given(st.permutations(range(20)), VARIANTS, st.integers(2, 4))
def test_only_the_order_of_values_counts(values: list[int], variant: Variant, eta: int) -> None:
    def decide(transform: Any) -> list[Any]:
        driver = Driver(Asha(1, eta, 9, variant))
        for place, value in enumerate(values):
            driver.offer((f"trial{place}", 1, transform(value)))
        return driver.decisions

    assert decide(float) == decide(lambda value: math.exp(value) - 100)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(2, 5))
def test_the_best_so_far_is_never_stopped(values: list[float], eta: int) -> None:
    kept = survivors(Asha(1, eta, 9), 1, values)
    assert {place for place in range(len(values)) if values[place] < min(values[:place], default=2)} <= set(kept)


@given(st.lists(st.floats(0, 1), max_size=20), st.floats(0, 1), st.floats(0, 1), st.integers(2, 4))
def test_what_a_value_survives_a_better_one_survives(values: list[float], one: float, other: float, eta: int) -> None:
    better, worse = sorted((one, other))
    if len(values) in survivors(Asha(1, eta, 9), 1, [*values, worse]):
        assert len(values) in survivors(Asha(1, eta, 9), 1, [*values, better])


@given(st.permutations(range(27)), st.sampled_from([2, 3, 5]))
def test_of_a_full_rung_exactly_the_best_fraction_is_promoted(values: list[int], eta: int) -> None:
    asha = Asha(1, eta, 9, "promotion")
    for value in values:
        asha.report(f"trial{value}", 1, value)
    promoted = list(iter(asha.next_promotion, None))
    assert promoted == [f"trial{value}" for value in range(27 // eta)]


@pytest.mark.parametrize("variant", ["stopping", "promotion"])
def test_in_the_long_run_one_in_eta_goes_on(variant: Variant) -> None:
    """Li et al. 2020, section 3.3: the early mistakes are about sqrt(n), which vanishes against n / eta."""
    num_trials, eta = 3000, 3
    driver = Driver(Asha(1, eta, 3, variant))
    values = random.Random(0)
    for place in range(num_trials):
        driver.offer((f"trial{place}", 1, values.random()))
    (row,) = driver.asha.rung_table()
    assert row.arrived == num_trials
    assert math.ceil(num_trials / eta) - 60 <= row.survived <= math.ceil(num_trials / eta) + 60


def test_the_first_arrival_goes_on_and_the_next_must_beat_it() -> None:
    assert survivors(Asha(1, 3, 9), 1, [0.5, 0.6, 0.55, 0.4, 0.5, 0.45, 0.46]) == [0, 3, 5]


def test_of_equal_values_the_earlier_ranks_first() -> None:
    assert survivors(Asha(1, 2, 9), 1, [0.5] * 6) == [0]


def test_nothing_is_promoted_before_eta_trials_have_come() -> None:
    asha = Asha(1, 3, 9, "promotion")
    for place, value in enumerate([0.3, 0.2]):
        assert asha.report(f"trial{place}", 1, value) == Decision(Action.PAUSE, 1)
        assert asha.next_promotion() is None
    asha.report("trial2", 1, 0.9)
    assert (asha.next_promotion(), asha.next_promotion()) == ("trial1", None)


def test_the_highest_rung_promotes_first() -> None:
    asha = Asha(1, 2, 4, "promotion")
    for place in range(4):
        asha.report(f"trial{place}", 1, place)
    assert [asha.next_promotion(), asha.next_promotion()] == ["trial0", "trial1"]
    asha.report("trial0", 2, 0.0)
    asha.report("trial4", 1, -1.0)
    asha.report("trial1", 2, 1.0)
    assert [asha.next_promotion(), asha.next_promotion()] == ["trial0", "trial4"]


def test_a_paused_trial_that_reports_on_was_promoted() -> None:
    asha = Asha(1, 2, 4, "promotion")
    for place in range(4):
        asha.report(f"trial{place}", 1, place)
    assert asha.report("trial1", 1.5, 1.0) == GOES_ON
    assert asha.rung_table()[0].survived == 1
    assert asha.next_promotion() == "trial0"
    assert asha.next_promotion() is None


def test_a_promoted_trial_that_repeats_its_rung_is_not_paused_again() -> None:
    asha = Asha(1, 2, 4, "promotion")
    asha.report("trial0", 1, 0.1)
    asha.report("trial1", 1, 0.2)
    assert asha.next_promotion() == "trial0"
    assert asha.report("trial0", 1, 0.1).action is Action.GO_ON


def test_between_rungs_trials_go_on_and_at_the_end_they_finish() -> None:
    asha = Asha(1, 3, 5)
    assert [asha.report("only", half / 2, 0.5) for half in (1, 2, 3, 10, 10)] == [
        GOES_ON,
        Decision(Action.GO_ON, 1),
        GOES_ON,
        Decision(Action.FINISHED),
        Decision(Action.FINISHED),
    ]
    assert [(row.rung, row.arrived, row.survived, row.cutoff) for row in asha.rung_table()] == [(1, 1, 1, 0.5), (3, 1, 1, 0.5)]


def test_a_report_that_jumps_over_rungs_is_judged_at_each() -> None:
    asha = Asha(1, 2, 16)
    asha.report("good", 5, 0.1)
    assert [row.arrived for row in asha.rung_table()] == [1, 1, 1, 0]
    assert asha.report("bad", 5, 0.2) == Decision(Action.STOP, 1, "rung")
    assert [row.arrived for row in asha.rung_table()] == [2, 1, 1, 0]


def test_a_stopped_trial_stays_stopped() -> None:
    asha = Asha(1, 2, 8)
    asha.report("good", 1, 0.1)
    stopped = asha.report("bad", 1, 0.2)
    assert stopped.action is Action.STOP
    assert asha.report("bad", 2, 0.0) == stopped
    assert asha.report("bad", 0.5, 0.0) == GOES_ON


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("fidelity", [0.5, 1, 9])
def test_a_value_that_is_not_finite_stops_as_diverged_and_is_worst(value: float, fidelity: float) -> None:
    asha = Asha(1, 3, 9)
    assert asha.report("bad", fidelity, value) == Decision(Action.STOP, None, "diverged")
    assert survivors(asha, 1, [0.9]) == [0]
    assert (asha.rung_table()[0].arrived, asha.rung_table()[0].cutoff) == (2, 0.9)


def test_a_diverged_trial_is_never_promoted() -> None:
    asha = Asha(1, 2, 9, "promotion")
    for place in range(6):
        asha.report(f"trial{place}", 1, math.nan)
    assert asha.next_promotion() is None


def test_rungs_that_floats_miss_are_met() -> None:
    assert rung_fidelities(0.1, 3, 0.9) == [0.1, pytest.approx(0.3)]
    assert Asha(0.1, 3, 2.7).report("only", 0.3, 1.0).rung == pytest.approx(0.3)


def test_grace_of_the_whole_budget_means_no_rungs() -> None:
    assert Asha(5, 3, 5).rung_table() == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grace": 0}, r"grace must be in \(0, max_fidelity=9\], got 0"),
        ({"grace": 10}, r"grace must be in \(0, max_fidelity=9\], got 10"),
        ({"grace": math.nan}, "grace must be .*, got nan"),
        ({"eta": 1}, "eta must be a whole number of 2 or more, got 1"),
        ({"eta": 2.5}, "eta must be .*, got 2.5"),
        ({"max_fidelity": math.inf}, "max_fidelity must be a positive number, got inf"),
        ({"variant": "pausing"}, "variant must be one of stopping, promotion, got 'pausing'"),
    ],
)
def test_settings_out_of_range_are_refused_with_the_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(AshaError, match=message):
        Asha(**{"grace": 1, "eta": 3, "max_fidelity": 9, **settings})


@pytest.mark.parametrize("fidelity", [0, -1, math.nan, math.inf])
def test_a_report_without_a_fidelity_is_refused(fidelity: float) -> None:
    with pytest.raises(ValueError, match="fidelity of trial only must be a positive number, got"):
        Asha(1, 3, 9).report("only", fidelity, 0.5)
