"""Suggestions: a pure function of the history, whatever happened in between."""

import importlib.util
import json
import math
import random
from typing import Any, get_args

import pytest

from orchestrator.search_settings import SamplerName
from orchestrator.study import MissingPackageError, SpaceExhaustedError, State, Study, StudyError, Told
from search_spaces.space import Float, Int, Space

PACKAGES = {"gp": "scipy", "qmc": "scipy", "cmaes": "cmaes"}
SAMPLERS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is None, reason=f"needs {PACKAGES.get(name)}"
        ),
    )
    for name in get_args(SamplerName)
]
LEARNING = [sampler for sampler in SAMPLERS if sampler.values[0] in ("tpe", "gp", "cmaes")]
SLOW = [sampler for sampler in LEARNING if sampler.values[0] == "gp"]
STATES: list[State] = ["running", "completed", "stopped", "failed"]


def loss(values: dict[str, Any]) -> float:
    """Best at a learning rate of 1e-4, six layers and no dropout."""
    distance = abs(math.log10(values["training.learning_rate"]) + 4)
    return distance + (6 - values["model.n_layers"]) / 10 + values.get("model.moe_dropout", 0.0)


def outcome(number: int, values: dict[str, Any], state: State, result: float) -> Told:
    if state == "completed":
        return Told(number, values, state, {0.5: result + 0.2, 5: result}, result)
    if state == "stopped":
        return Told(number, values, state, {0.5: result + 0.2})
    return Told(number, values, state)


def search(study: Study, num_trials: int, *, parallel: int = 3, history: list[Told] | None = None) -> list[Told]:
    """A search of `parallel` trials at a time, as an event log: told as running, and again when it ends."""
    history = [] if history is None else history
    for number in range(len({told.number for told in history}), num_trials):
        running = {told.number: told for told in history if told.state == "running"}
        ended = {told.number for told in history if told.state != "running"}
        waiting = [told for told in running.values() if told.number not in ended]
        if len(waiting) >= parallel:
            first = waiting[number % parallel]
            state: State = STATES[1 + first.number % 3] if first.number % 5 else "completed"
            history.append(outcome(first.number, dict(first.values), state, loss(dict(first.values))))
        history.append(Told(number, study.suggest(number, history), "running"))
    return history


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_continued_by_a_new_process_suggests_the_same(mixed: Space, sampler: SamplerName) -> None:
    uninterrupted = search(Study(mixed, sampler, seed=7), 24)
    for kill in (1, 9, 30, len(uninterrupted) - 2):
        last_suggestion = max(place for place in range(kill) if uninterrupted[place].state == "running")
        kept = uninterrupted[: last_suggestion + 1]
        assert search(Study(mixed, sampler, seed=7), 24, history=list(kept)) == uninterrupted


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_a_study_remembers_changes_no_suggestion(mixed: Space, sampler: SamplerName) -> None:
    history = search(Study(mixed, sampler, seed=1), 20)
    remembering = Study(mixed, sampler, seed=1)
    orders = [random.Random(0).randrange(len(history)) for _ in range(6)]
    for length in [*range(0, len(history), 4), *orders]:  # first it only grows, then it jumps back and forth
        seen = history[:length]
        number = max((told.number for told in seen), default=-1) + 1
        assert remembering.suggest(number, seen) == Study(mixed, sampler, seed=1).suggest(number, seen)


def test_ghosts_of_running_trials_are_cleared_without_a_trace(mixed: Space) -> None:
    running = [Told(number, Study(mixed, "random").suggest(number, []), "running") for number in range(60)]
    study = Study(mixed, "tpe")
    suggestions = [study.suggest(60, running) for _ in range(9)]  # 9 x 61 ghosts are more than it lets stay
    assert suggestions == [suggestions[0]] * 9


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_suggestions_are_points_of_the_space_and_differ(mixed: Space, sampler: SamplerName) -> None:
    history = search(Study(mixed, sampler, seed=3), 15)
    points = {told.number: json.dumps(mixed.complete(told.values)) for told in history}
    assert len(set(points.values())) == 15


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_another_seed_suggests_otherwise(mixed: Space, sampler: SamplerName) -> None:
    assert Study(mixed, sampler, seed=1).suggest(0, []) != Study(mixed, sampler, seed=2).suggest(0, [])


@pytest.mark.parametrize(
    "sampler",
    [
        pytest.param(*sampler.values, marks=[*sampler.marks, pytest.mark.slow] if sampler in SLOW else sampler.marks)
        for sampler in LEARNING
    ],
)
def test_a_sampler_that_learns_comes_nearer_than_chance(mixed: Space, sampler: SamplerName) -> None:
    def later_half(name: SamplerName, seed: int) -> float:
        study, history = Study(mixed, name, seed), []
        for number in range(40):
            values = study.suggest(number, history)
            history.append(Told(number, values, "completed", {}, loss(values)))
        losses = sorted(told.value for told in history[20:] if told.value is not None)
        return losses[10]

    seeds = range(2)
    assert sum(later_half(sampler, seed) for seed in seeds) < 0.8 * sum(later_half("random", seed) for seed in seeds)


@pytest.mark.parametrize("sampler", LEARNING)
def test_a_sampler_that_learns_goes_where_the_results_point(mixed: Space, sampler: SamplerName) -> None:
    draws = [Study(mixed, "random", 5).suggest(number, []) for number in range(40)]

    def mean_layers(sign: int) -> float:
        history = [Told(number, point, "completed", {}, sign * loss(point)) for number, point in enumerate(draws)]
        suggestions = [Study(mixed, sampler, seed).suggest(99, history)["model.n_layers"] for seed in range(15)]
        return sum(layers for layers in suggestions if isinstance(layers, int)) / 15

    assert mean_layers(-1) < mean_layers(1)


def test_stopped_trials_guide_the_search_by_their_last_report(mixed: Space) -> None:
    def mean_distance(result_of: Any) -> float:
        draws = [Study(mixed, "random", 5).suggest(number, []) for number in range(40)]
        history = [Told(number, values, "stopped", {0.5: result_of(values)}) for number, values in enumerate(draws)]
        suggestions = [Study(mixed, "tpe", seed).suggest(99, history) for seed in range(12)]
        return sum(map(loss, suggestions)) / len(suggestions)

    assert mean_distance(loss) < mean_distance(lambda values: -loss(values))


@pytest.mark.parametrize("state", ["failed", "completed", "stopped"])
def test_failed_and_diverged_trials_do_not_count_as_results(mixed: Space, state: State) -> None:
    draws = [Study(mixed, "random", 5).suggest(number, []) for number in range(20)]
    good = [Told(number, values, "completed", {}, loss(values)) for number, values in enumerate(draws)]
    point = Study(mixed, "random", 6).suggest(30, [])
    spoiled = Told(30, point, state, {0.5: math.nan}, math.nan if state == "completed" else None)
    assert Study(mixed, "tpe").suggest(99, [*good, spoiled]) == Study(mixed, "tpe").suggest(99, good)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_finite_space_is_tried_point_by_point_and_then_exhausted(small: Space, sampler: SamplerName) -> None:
    study, history = Study(small, sampler), []
    for number in range(12):
        values = study.suggest(number, history)
        history.append(Told(number, values, "completed", {}, float(number % 4)))
    assert len({json.dumps(told.values) for told in history}) == 12
    with pytest.raises(SpaceExhaustedError, match="space small: all 12 points were tried; widen a dimension"):
        study.suggest(12, history)


def test_an_unlikely_last_point_is_found() -> None:
    space = Space(name="many", trainable="exbert", dimensions={"model.num_experts": Int(2, 64), "training.epochs": Int(1, 9)})
    points = list(space.grid())
    missing = points.pop(301)
    history = [Told(number, point, "completed", {}, 0.0) for number, point in enumerate(points)]
    assert Study(space, "random").suggest(len(points), history) == missing


@pytest.mark.parametrize("sampler", ["gp", "qmc", "cmaes"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    mixed: Space, sampler: SamplerName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=f"sampler '{sampler}' needs .*: pip install .*{PACKAGES[sampler]}"):
        Study(mixed, sampler)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            Told(4, {"training.learning_rate": 1.0}, "running"),
            "trial 4: space line: training.learning_rate must be .* got 1",
        ),
        (Told(4, {"training.learning_rate": 1e-4}, "completed"), "trial 4: a completed trial must have a value, got None"),
        (Told(4, {"training.learning_rate": 1e-4}, "lost"), "trial 4: state must be one of running, .*, got 'lost'"),  # type: ignore[arg-type]
        (Told(0, {"training.learning_rate": 1e-4}, "running"), "number must be 0 or more and not told before, got 0"),
    ],
)
def test_a_history_that_does_not_fit_is_refused(told: Told, message: str) -> None:
    space = Space(name="line", trainable="exbert", dimensions={"training.learning_rate": Float(1e-5, 1e-3, log=True)})
    with pytest.raises(StudyError, match=message):
        Study(space).suggest(0, [told])


def test_an_unknown_sampler_is_refused_with_the_known_ones(mixed: Space) -> None:
    with pytest.raises(ValueError, match="sampler must be one of tpe, random, gp, qmc, cmaes, got 'grid'"):
        Study(mixed, "grid")  # type: ignore[arg-type]
