"""The spaces that ship, finding them, and one's own space in a file."""

from pathlib import Path

import pytest

from search_spaces.distilbert import distilbert, distilbert_controls, distilbert_extended
from search_spaces.embedded import distilbert_embedded, exbert_embedded
from search_spaces.exbert import exbert, exbert_extended
from search_spaces.registry import SHIPPED, load_space
from search_spaces.space import Float, Int, Space, Value
from trainables.embedded import ENCODER_PATH
from trainables.models.encoder_config import encoder_config
from trainables.registry import settings_of


def test_the_exbert_space_has_the_four_things_that_the_paper_tuned() -> None:
    assert exbert.dimensions["model.n_layers"] == Int(3, 6)
    assert exbert.dimensions["model.num_experts"] == Int(8, 16)
    assert exbert.dimensions["training.learning_rate"] == Float(1e-5, 1.1e-4, log=True)
    placement, rate = exbert.dimensions["model.dropout_placement"], exbert.dimensions["model.moe_dropout"]
    assert placement.values == ("none", "before", "after", "both")
    assert rate.values == (0.1, 0.3)
    assert rate.when is not None
    assert set(rate.when.values) == set(placement.values) - {"none"}


def test_the_papers_tuned_configuration_is_a_point_of_the_exbert_space() -> None:
    tuned = settings_of("exbert").variants["tuned"]
    point: dict[str, Value] = {f"model.{name}": value for name, value in tuned["model"].items()}
    point["training.learning_rate"] = tuned["training"]["learning_rate"]
    assert exbert.overrides(point)["model"] == tuned["model"]


@pytest.mark.parametrize(
    ("control", "searched"),
    [(distilbert, exbert), (distilbert_extended, exbert_extended), (distilbert_embedded, exbert_embedded)],
    ids=lambda space: space.name,
)
def test_the_control_has_exactly_those_dimensions_of_exberts_that_it_can_have(control: Space, searched: Space) -> None:
    of_both = set(settings_of("distilbert").model_keys)
    shared = {
        name: dimension
        for name, dimension in searched.dimensions.items()
        if not name.startswith("model.") or name.removeprefix("model.") in of_both
    }
    assert control.dimensions == shared


def test_the_controls_are_v_db_over_the_same_ranges_with_and_without_a_dense_block() -> None:
    dimensions = dict(distilbert_controls.dimensions)
    assert dimensions.pop("model.dense_block").values == (False, True)
    assert dimensions == distilbert.dimensions


def test_the_embedded_space_has_the_dimensions_of_exberts_within_the_shipped_encoder() -> None:
    assert list(exbert_embedded.dimensions) == list(exbert.dimensions)
    assert exbert_embedded.dimensions["model.n_layers"].ends[-1] == encoder_config(str(ENCODER_PATH)).n_layers


def test_an_extended_space_begins_with_the_plain_one() -> None:
    assert list(exbert_extended.dimensions)[: len(exbert.dimensions)] == list(exbert.dimensions)
    assert list(distilbert_extended.dimensions)[: len(distilbert.dimensions)] == list(distilbert.dimensions)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_space_is_found_by_its_name(name: str) -> None:
    assert load_space(name).name == name


def test_an_unknown_space_names_the_nearest_and_all() -> None:
    with pytest.raises(ValueError, match="got 'exbert_extend'; did you mean exbert_extended") as raised:
        load_space("exbert_extend")
    assert all(name in str(raised.value) for name in (*SHIPPED, "FILE.py"))


OWN = """
from search_spaces.space import Choice, Condition, Int, Space

SPACE = Space(name="mine", trainable="exbert", dimensions={"model.num_experts": Int(2, 4)})
"""


def test_ones_own_space_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(OWN, encoding="utf-8")
    assert load_space(str(path)) == Space(name="mine", trainable="exbert", dimensions={"model.num_experts": Int(2, 4)})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "must define SPACE = Space(...), but defines none"),
        ("SPACE = {'model.num_experts': [2, 4]}", "must define SPACE = Space(...), but has dict"),
        (OWN.replace("Int(2, 4)", "Int(4, 2)"), "mine.py, line 4: Int: low must be below high, got low=4 and high=2"),
        (OWN.replace("num_experts", "experts"), "mine.py, line 4: space mine: exbert has no setting model.experts"),
        ("def experts():\n    return 1 / 0\nexperts()", "mine.py, line 2: ZeroDivisionError: division by zero"),
        ("import no_such_module", "mine.py, line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("SPACE = (", "mine.py: SyntaxError: '(' was never closed"),
    ],
)
def test_a_file_without_a_valid_space_says_what_is_wrong_and_where(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as raised:
        load_space(str(path))
    assert complaint in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no file .*mine\.py to read a space from"):
        load_space(str(tmp_path / "mine.py"))
