"""Scores against values that SQuAD's official script gives, worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.data.scores import contains_gold, em_raw, exact_match, f1, normalise, score_answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Beatles", "beatles"),
        ("  a torn   ACL. ", "torn acl"),
        ("an 'apple-pie'", "applepie"),
        ("theatre", "theatre"),
        ("A", ""),
        ("naïve café", "naïve café"),
        ("«guillemets» — stay", "«guillemets» — stay"),
    ],
)
def test_normalisation_is_squads(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_a_torn_acl_is_exact_but_not_character_by_character() -> None:
    scores = score_answer("a torn ACL", ["torn ACL", "knee"])
    assert (scores.em, scores.f1, scores.em_raw, scores.contains_gold) == (1.0, 1.0, 0.0, 1.0)
    assert em_raw("torn ACL", ["torn ACL", "knee"]) == 1.0


def test_f1_counts_shared_tokens_with_their_multiplicity() -> None:
    # prediction: new york new york (4), gold: new york city (3), shared 2 -> precision 2/4, recall 2/3
    assert f1("New York, New York", ["the New York City"]) == pytest.approx(2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3))


def test_scores_take_the_best_gold() -> None:
    assert f1("torn ACL", ["knee", "the torn left ACL"]) == pytest.approx(0.8)
    assert exact_match("PD-1", ["programmed death-1", "pd1"]) == 1.0


def test_contains_gold_asks_for_whole_words() -> None:
    assert contains_gold("severe torn ACL injury", ["torn ACL"]) == 1.0
    assert contains_gold("cardiac arrest", ["card"]) == 0.0
    assert contains_gold("anything", ["the"]) == 0.0
    assert contains_gold("", ["the"]) == 1.0


@pytest.mark.parametrize("golds", [[], [""], ["a gold"]])
def test_an_empty_prediction_scores_no_f1(golds: list[str]) -> None:
    assert f1("", golds) == 0.0


@given(st.text(max_size=30), st.lists(st.text(max_size=30), min_size=1, max_size=3))
def test_scores_are_ordered_as_their_definitions_are(prediction: str, golds: list[str]) -> None:
    scores = score_answer(prediction, golds)
    assert scores.em_raw <= scores.em <= scores.contains_gold
    assert 0.0 <= scores.f1 <= 1.0
    if scores.em and normalise(prediction):
        assert scores.f1 == 1.0


@given(st.text(alphabet="aA the.,B1", max_size=12), st.lists(st.text(alphabet="aA the.,B1", max_size=12), max_size=3))
def test_all_scores_at_once_equal_each_by_itself(prediction: str, golds: list[str]) -> None:
    scores = score_answer(prediction, golds)
    assert scores.em == exact_match(prediction, golds)
    assert scores.f1 == f1(prediction, golds)
    assert scores.em_raw == em_raw(prediction, golds)
    assert scores.contains_gold == contains_gold(prediction, golds)
