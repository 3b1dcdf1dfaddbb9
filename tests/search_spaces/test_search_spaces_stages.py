"""Narrowings: the paper's, the embedded one, what is refused when made, and one's own in a file."""

import copy
import json
import pickle
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from search_spaces.embedded import embedded, exbert_embedded
from search_spaces.exbert import exbert
from search_spaces.registry import NARROWINGS, load_narrowing
from search_spaces.space import Choice, Dimension, Float, Space, Value
from search_spaces.stages import NARROWING, Narrowing, Stage
from trainables.registry import settings_of

RATE = Stage(name="rate", dimensions={"training.learning_rate": Choice([1e-5, 1e-4])})
each_narrowing = pytest.mark.parametrize("narrowing", NARROWINGS.values(), ids=lambda narrowing: narrowing.name)


def narrowing_of(*stages: Stage, start: Mapping[str, Value] | None = None) -> Narrowing:
    return Narrowing(name="mine", trainable="exbert", start=start or {}, stages=stages)


@each_narrowing
def test_a_narrowing_goes_from_experts_to_blocks_to_learning_rate_to_dropout(narrowing: Narrowing) -> None:
    assert [stage.name for stage in narrowing.stages] == ["experts", "blocks", "learning_rate", "dropout"]
    assert all(set(a.dimensions).isdisjoint(b.dimensions) for a, b in pairwise(narrowing.stages))
    assert narrowing.size == sum(len(stage.points({})) for stage in narrowing.stages)


def test_the_sizes_of_the_stages() -> None:
    assert [stage.size for stage in NARROWING.stages] == [3, 4, 4, 7]
    assert [stage.size for stage in embedded.stages] == [3, 3, 4, 7]


@pytest.mark.parametrize("pick", [0, -1])
@pytest.mark.parametrize(("narrowing", "space"), [(NARROWING, exbert), (embedded, exbert_embedded)], ids=["paper", "embedded"])
def test_every_point_of_a_narrowing_is_a_point_of_its_space(narrowing: Narrowing, space: Space, pick: int) -> None:
    winner = space.complete(narrowing.start)
    for stage in narrowing.stages:
        candidates = [space.complete(point) for point in stage.points(winner)]
        assert len(candidates) == stage.size
        for candidate in candidates:
            changed = {name for name in candidate if candidate.get(name) != winner.get(name)}
            assert changed <= set(stage.dimensions)
        winner = candidates[pick]


def test_the_papers_narrowing_starts_from_the_untuned_exbert() -> None:
    untuned = settings_of("exbert").config.model_validate(settings_of("exbert").variants["untuned"])
    assert settings_of("exbert").config.model_validate(exbert.overrides(NARROWING.start)) == untuned


def test_the_papers_winners_lead_to_its_tuned_exbert() -> None:
    winner = dict(NARROWING.start)
    tuned: dict[str, Value] = {
        "model.num_experts": 8,
        "model.n_layers": 4,
        "training.learning_rate": 1e-4,
        "model.dropout_placement": "before",
        "model.moe_dropout": 0.1,
    }
    for stage in NARROWING.stages:
        (winner,) = [
            point for point in stage.points(winner) if all(point.get(name) == tuned[name] for name in stage.dimensions)
        ]
    assert winner == tuned


def test_a_stage_tries_its_dimensions_again_where_they_were_decided_before() -> None:
    dropout = NARROWING.stages[-1]
    winner: dict[str, Value] = {**NARROWING.start, "model.dropout_placement": "both", "model.moe_dropout": 0.3}
    first, second, *_ = dropout.points(winner)
    assert (first["model.dropout_placement"], "model.moe_dropout" in first) == ("none", False)
    assert (second["model.dropout_placement"], second["model.moe_dropout"]) == ("before", 0.1)


@pytest.mark.parametrize(
    ("dimensions", "complaint"),
    [
        ({"training.learning_rate": Float(1e-5, 1e-4)}, "a grid needs dimensions with finitely many values"),
        ({"training.learning_rate": Choice([1e-5, 1.0])}, r"training.learning_rate must be a number in \(0, 0.1\], got 1.0"),
        ({"training.learning_rate": [1e-5, 1e-4]}, "must be a Float, an Int or a Choice"),
        ({"training.stride": Choice([8, 64])}, "stride must be below max_length=32"),
        ({}, "needs at least one dimension"),
    ],
)
def test_a_stage_that_cannot_be_run_is_refused_when_the_narrowing_is_made(
    dimensions: Mapping[str, Dimension], complaint: str
) -> None:
    with pytest.raises(ValueError, match=f"narrowing mine, stage tried: .*{complaint}"):
        narrowing_of(Stage(name="tried", dimensions=dimensions), start={"training.max_length": 32, "training.stride": 8})


@pytest.mark.parametrize(("stages", "got"), [((), "none"), ((RATE, RATE), "rate, rate")])
def test_stages_have_different_names(stages: tuple[Stage, ...], got: str) -> None:
    with pytest.raises(ValueError, match=f"narrowing mine: needs stages of different names, got {got}"):
        narrowing_of(*stages)


def test_a_start_that_does_not_fit_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"narrowing mine, stage rate: exbert has no setting n_layers; did you mean model.n_layers"
    ):
        narrowing_of(RATE, start={"n_layers": 4})


@each_narrowing
def test_a_narrowing_survives_json_and_copies(narrowing: Narrowing) -> None:
    described = json.loads(json.dumps(narrowing.to_json()))
    assert list(described) == ["name", "trainable", "start", "stages"]
    assert all(list(stage) == ["name", "dimensions"] for stage in described["stages"])
    assert Narrowing.from_json(described) == pickle.loads(pickle.dumps(narrowing)) == narrowing


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda narrowing: narrowing.pop("start"), "must have name, trainable, start, stages, but lacks start"),
        (lambda narrowing: narrowing["stages"][0].pop("name"), "must have name, dimensions, but lacks name"),
        (
            lambda narrowing: narrowing.update(trainable="exbrt"),
            "trainable must be one of adapters, distilbert, exbert, gated_ensemble, moe_variants, got 'exbrt'",
        ),
    ],
)
def test_data_that_describes_no_narrowing_is_refused_with_what_is_wrong(change: Callable[[Any], Any], complaint: str) -> None:
    described = copy.deepcopy(NARROWING.to_json())
    change(described)
    with pytest.raises(ValueError) as raised:
        Narrowing.from_json(described)
    assert str(raised.value).startswith("not the description of a narrowing: ")
    assert complaint in str(raised.value)


@pytest.mark.parametrize("name", NARROWINGS)
def test_a_shipped_narrowing_is_found_by_its_name(name: str) -> None:
    assert load_narrowing(name).name == name


def test_an_unknown_narrowing_names_the_nearest_and_all() -> None:
    with pytest.raises(ValueError, match=r"narrowing must be one of .* got 'papr'; did you mean paper") as raised:
        load_narrowing("papr")
    assert all(name in str(raised.value) for name in (*NARROWINGS, "a file FILE.py that defines NARROWING"))


OWN = """
from search_spaces.space import Choice
from search_spaces.stages import Narrowing, Stage

STAGE = Stage(name="rate", dimensions={"training.learning_rate": Choice([1e-5, 1e-4])})
NARROWING = Narrowing(name="mine", trainable="exbert", start={"model.n_layers": 4}, stages=(STAGE,))
"""


def test_ones_own_narrowing_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(OWN, encoding="utf-8")
    assert load_narrowing(str(path)) == narrowing_of(RATE, start={"model.n_layers": 4})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "must define NARROWING = Narrowing(...), but defines none; start with `from search_spaces.stages import"),
        (OWN.replace("1e-4", "1"), "mine.py, line 6: narrowing mine, stage rate: training.learning_rate must be a number in"),
    ],
)
def test_a_file_without_a_valid_narrowing_says_what_is_wrong_and_where(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as raised:
        load_narrowing(str(path))
    assert complaint in str(raised.value)
