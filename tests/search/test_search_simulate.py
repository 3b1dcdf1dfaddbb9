"""Searches replayed on a fake clock, with the decisions of the real one."""

import heapq
import itertools
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.asha import Action, AshaError
from orchestrator.simulate import Curve, Segment, Settings, SettingsGrid, SimulationError, simulate, sweep_settings

HALVES = [half / 2 for half in range(1, 11)]


def flat(trial_key: str, value: float, seconds_per_epoch: float = 10) -> Curve:
    """Reports `value` at every half-epoch up to 5."""
    return Curve(trial_key, HALVES, [value] * 10, seconds_per_epoch)


def noisy(num_curves: int, seed: int = 0) -> list[Curve]:
    chance = random.Random(seed)
    floors = [chance.random() for _ in range(num_curves)]
    return [
        Curve(f"trial{place}", HALVES, [floor + math.exp(-epoch) + chance.gauss(0, 0.05) for epoch in HALVES], 10 + place % 7)
        for place, floor in enumerate(floors)
    ]


@st.composite
def curves(draw: st.DrawFn) -> list[Curve]:
    """Curves with gaps, ties and divergence; times are exact in binary, so that sums of them are."""
    made = []
    for place in range(draw(st.integers(1, 8))):
        epochs = [*sorted(draw(st.sets(st.sampled_from(HALVES[:-1]), max_size=9))), 5.0]
        values = [draw(st.integers(0, 6).map(float)) for _ in epochs]
        if draw(st.integers(0, 5)) == 0:
            values[draw(st.integers(0, len(values) - 1))] = math.nan
        made.append(Curve(f"trial{place}", epochs, values, draw(st.integers(1, 3))))
    return made


def report_everything(recorded: list[Curve], settings: Settings, slots: int) -> set[tuple[str, float, float, str]]:
    """Which trial ended or paused at which epoch, when and why, by a driver that makes each report and knows no short cut."""
    asha, free, now, fresh = settings.start(), slots, 0.0, iter(range(len(recorded)))
    place_of = {curve.trial_key: place for place, curve in enumerate(recorded)}
    done = [0] * len(recorded)
    queue: list[tuple[float, int]] = []
    ends = set()

    def train(place: int) -> None:
        reported = (0.0, *recorded[place].epochs)
        epochs = reported[done[place] + 1] - reported[done[place]]
        heapq.heappush(queue, (now + epochs * recorded[place].seconds_per_epoch, place))

    while True:
        while free:
            promoted = asha.next_promotion()
            place = next(fresh, None) if promoted is None else place_of[promoted]
            if place is None:
                break
            free -= 1
            train(place)
        if not queue:
            return ends
        now, place = heapq.heappop(queue)
        curve, report = recorded[place], done[place]
        done[place] += 1
        decision = asha.report(curve.trial_key, curve.epochs[report], curve.values[report])
        if decision.action is Action.GO_ON:
            train(place)
        else:
            free += 1
            ends.add((curve.trial_key, curve.epochs[report], now, decision.reason or decision.action.value))


@given(curves(), st.sampled_from([0.5, 1, 2]), st.integers(2, 3), st.integers(1, 4), st.sampled_from(["stopping", "promotion"]))
def test_skipping_reports_between_rungs_changes_no_decision(
    recorded: list[Curve], grace: float, eta: int, slots: int, variant: Any
) -> None:
    settings = Settings(grace, eta, 5, variant)
    simulated = simulate(recorded, [curve.trial_key for curve in recorded], settings, slots)
    told = {(end.trial_key, end.to_epoch, end.ended_seconds, end.ended_by) for end in simulated.timeline}
    assert told == report_everything(recorded, settings, slots)


@given(curves(), st.integers(1, 4), st.sampled_from(["stopping", "promotion"]))
def test_the_timeline_adds_up(recorded: list[Curve], slots: int, variant: Any) -> None:
    simulated = simulate(recorded, [curve.trial_key for curve in recorded], Settings(0.5, 2, 5, variant), slots)
    segments = simulated.timeline
    assert simulated.trained_epochs == sum(segment.to_epoch - segment.from_epoch for segment in segments)
    assert simulated.trained_seconds == sum(segment.ended_seconds - segment.began_seconds for segment in segments)
    assert simulated.wall_seconds == max(segment.ended_seconds for segment in segments)
    assert simulated.trained_seconds <= slots * simulated.wall_seconds
    for slot in range(slots):
        on_slot = sorted(segment for segment in segments if segment.slot == slot)
        by_time = sorted(on_slot, key=lambda segment: (segment.began_seconds, segment.ended_seconds))
        assert all(first.ended_seconds <= second.began_seconds for first, second in itertools.pairwise(by_time))


def test_a_search_of_three_trials_on_one_slot_by_hand() -> None:
    recorded = [flat("fair", 0.5), flat("bad", 0.9), flat("good", 0.1)]
    simulated = simulate(recorded, ["fair", "bad", "good"], Settings(1, 3, 5), slots=1)
    assert simulated.timeline == [
        Segment("fair", 0, 0, 50, 0, 5, "finished"),
        Segment("bad", 0, 50, 60, 0, 1, "rung"),
        Segment("good", 0, 60, 110, 0, 5, "finished"),
    ]
    assert (simulated.best_trial, simulated.best_value, simulated.regret) == ("good", 0.1, 0)
    assert (simulated.trained_epochs, simulated.trained_seconds, simulated.wall_seconds) == (11, 110, 110)
    assert simulated.stopped_at == {1: 1}


def test_a_promoted_trial_goes_on_where_it_paused() -> None:
    recorded = [flat("bad", 0.9), flat("good", 0.1)]
    simulated = simulate(recorded, ["bad", "good"], Settings(2, 2, 4, "promotion"), slots=2)
    assert simulated.timeline == [
        Segment("bad", 0, 0, 20, 0, 2, "pause"),
        Segment("good", 1, 0, 20, 0, 2, "pause"),
        Segment("good", 0, 20, 40, 2, 4, "finished"),
    ]
    assert simulated.stopped_at == {2: 1}


def test_a_late_bloomer_that_is_stopped_is_the_regret() -> None:
    recorded = [flat("steady", 0.5), Curve("late", HALVES, [0.9] * 9 + [0.25], 10)]
    simulated = simulate(recorded, ["steady", "late"], Settings(1, 2, 5), slots=1)
    assert (simulated.best_trial, simulated.best_value, simulated.regret) == ("steady", 0.5, 0.25)
    assert simulate(recorded, ["steady", "late"], Settings(1, 2, 5), slots=1, max_trials=1).regret == 0


def test_without_rungs_everything_is_trained_and_nothing_regretted() -> None:
    recorded = noisy(9)
    simulated = simulate(recorded, [curve.trial_key for curve in recorded], Settings(5, 2, 5), slots=3)
    assert (simulated.trained_epochs, simulated.regret, simulated.stopped_at) == (45, 0, {})


def test_where_all_diverge_there_is_a_result_all_the_same() -> None:
    recorded = [Curve(key, [0.5], [math.nan], 10) for key in "ab"]
    simulated = simulate(recorded, "ab", Settings(1, 2, 5), slots=1)
    assert (simulated.best_value, simulated.regret, simulated.trained_epochs) == (math.inf, 0, 1)


def test_the_sweep_has_a_row_for_each_setting_with_medians_inside_their_intervals() -> None:
    recorded = noisy(12)
    grid = SettingsGrid(graces=[0.5, 5], etas=[2, 3], slots=[1, 4], variants=["stopping", "promotion"], seeds=range(15))
    rows = sweep_settings(recorded, grid, 5).to_pylist()
    assert len({(row["variant"], row["grace"], row["eta"], row["slots"]) for row in rows}) == len(rows) == 16
    for row in rows:
        assert row["searches"] == 15
        for name in ("epochs_saved", "epochs_saved_share", "seconds_saved", "regret", "wall_seconds"):
            assert row[f"{name}_low"] <= row[f"{name}_median"] <= row[f"{name}_high"]
        if row["grace"] == 5:
            assert (row["epochs_saved_high"], row["regret_high"], row["found_best"]) == (0, 0, 1)
        else:
            assert row["epochs_saved_low"] > 0


def test_a_row_of_the_sweep_is_the_simulation_of_its_settings() -> None:
    recorded = noisy(10)
    (row,) = sweep_settings(recorded, SettingsGrid(graces=[1], etas=[3], slots=[2], seeds=[4], max_trials=6), 5).to_pylist()
    order = [curve.trial_key for curve in random.Random(4).sample(recorded, 6)]
    simulated = simulate(recorded, order, Settings(1, 3, 5), slots=2)
    assert row["epochs_saved_median"] == 30 - simulated.trained_epochs
    assert (row["regret_median"], row["wall_seconds_median"]) == (simulated.regret, simulated.wall_seconds)


def test_the_same_seeds_give_the_same_table() -> None:
    grid = SettingsGrid(graces=[1], etas=[2], slots=[2], seeds=[3, 1])
    assert sweep_settings(noisy(8), grid, 5).equals(sweep_settings(noisy(8), grid, 5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": ["a", "c"]}, r"order must name curves, each once; unknown: \['c'\]"),
        ({"order": ["a", "a"]}, "order must name curves, each once"),
        ({"order": []}, "max_trials must be 1 or more of at least one curve, got None of 0"),
        ({"max_trials": 0}, "max_trials must be 1 or more of at least one curve, got 0 of 2"),
        ({"slots": 0}, "slots must be 1 or more, got 0"),
        ({"settings": Settings(1, 3, 6)}, "curve a must reach max_fidelity=6 or diverge, it ends at 5; leave out"),
    ],
)
def test_what_cannot_be_simulated_is_refused(arguments: dict[str, Any], message: str) -> None:
    given_all = {"curves": [flat("a", 1), flat("b", 2)], "order": ["a", "b"], "settings": Settings(1, 3, 5), "slots": 1}
    with pytest.raises(SimulationError, match=message):
        simulate(**{**given_all, **arguments})


def test_settings_out_of_range_are_refused_with_the_range() -> None:
    with pytest.raises(AshaError, match=r"grace must be in \(0, max_fidelity=5\], got 6"):
        sweep_settings([flat("a", 1)], SettingsGrid(graces=[6], etas=[2], slots=[1]), 5)
    with pytest.raises(SimulationError, match="slots must be 1 or more, got 0"):
        sweep_settings([flat("a", 1)], SettingsGrid(graces=[1], etas=[2], slots=[0]), 5)
    with pytest.raises(SimulationError, match="curves and seeds must be 1 or more, got 0 and 20"):
        sweep_settings([], SettingsGrid(graces=[1], etas=[2], slots=[1]), 5)


@pytest.mark.parametrize(
    ("epochs", "values", "seconds", "message"),
    [
        ([], [], 1, "curve x needs as many epochs as values and at least one, got 0 and 0"),
        ([1, 2], [0.5], 1, "curve x needs as many epochs as values and at least one, got 2 and 1"),
        ([1, 1], [0.5, 0.5], 1, r"curve x: epochs must be above 0 and increase, got \[1, 1\]"),
        ([0, 1], [0.5, 0.5], 1, r"curve x: epochs must be above 0 and increase, got \[0, 1\]"),
        ([1], [0.5], 0, "curve x: seconds_per_epoch must be above 0, got 0"),
    ],
)
def test_a_curve_that_is_none_is_refused(epochs: list[float], values: list[float], seconds: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Curve("x", epochs, values, seconds)
