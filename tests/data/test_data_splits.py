"""Splits never overlap, hold out at least a group each, and do not depend on the order of rows or the process."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.data.errors import DataError
from trainables.data.spec import DomainSpec
from trainables.data.splits import (
    RowKeys,
    context_key,
    overlapping_rows,
    question_key,
    resolve_group_by,
    seeded_order,
    split_by_group,
    without_overlap,
)

KEYS = st.lists(st.sampled_from([f"group {i}" for i in range(12)]), min_size=1, max_size=60)


def _split(keys: list[str], seed: int, test_share: float | None):
    return split_by_group(
        keys, np.arange(len(keys)), seed=seed, validation_share=0.2, test_share=test_share, where="domain 'squad'"
    )


def _row_keys(rows: list[tuple[str, str, str]]) -> RowKeys:
    return RowKeys(group=[g for g, _, _ in rows], question=[q for _, q, _ in rows], context=[c for _, _, c in rows])


@given(KEYS.filter(lambda keys: len(set(keys)) >= 5), st.integers(0, 2**32), st.sampled_from([None, 0.3]))
def test_parts_are_complete_and_share_no_group(keys: list[str], seed: int, test_share: float | None) -> None:
    split = _split(keys, seed, test_share)
    parts = [split.train, split.validation, split.test]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(keys)))
    groups = [{keys[i] for i in part} for part in parts]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    assert len(groups[1]) == max(1, round(0.2 * len(set(keys))))
    assert len(groups[2]) == (0 if test_share is None else max(1, round(0.3 * len(set(keys)))))


@given(KEYS.filter(lambda keys: len(set(keys)) >= 5), st.integers(0, 99), st.randoms())
def test_shuffling_rows_moves_no_group_to_another_part(keys: list[str], seed: int, random) -> None:
    shuffled = random.sample(keys, len(keys))
    before, after = _split(keys, seed, 0.3), _split(shuffled, seed, 0.3)
    for part in ("train", "validation", "test"):
        assert {keys[i] for i in getattr(before, part)} == {shuffled[i] for i in getattr(after, part)}


def test_only_the_rows_named_are_split() -> None:
    keys = [f"g{i}" for i in range(10)]
    split = split_by_group(keys, np.array([7, 3, 5]), seed=0, validation_share=0.3, test_share=None, where="x")
    assert sorted([*split.train.tolist(), *split.validation.tolist()]) == [3, 5, 7]


@pytest.mark.parametrize(("test_share", "num_groups", "needed"), [(0.1, 2, 3), (None, 1, 2)])
def test_too_few_groups_are_refused(test_share: float | None, num_groups: int, needed: int) -> None:
    keys = [f"g{i % num_groups}" for i in range(6)]
    with pytest.raises(DataError, match=f"domain 'squad' has {num_groups} groups, at least {needed} are needed"):
        _split(keys, 0, test_share)


@given(st.lists(st.text(max_size=5), unique=True, max_size=30), st.integers(0, 9))
def test_taking_keys_away_leaves_the_order_of_the_rest(keys: list[str], seed: int) -> None:
    ordered = [keys[i] for i in seeded_order(seed, "x", keys)]
    rest = keys[::2]
    assert [rest[i] for i in seeded_order(seed, "x", rest)] == [key for key in ordered if key in set(rest)]


def test_seeds_and_purposes_give_different_orders() -> None:
    keys = [str(i) for i in range(50)]
    orders = [seeded_order(seed, purpose, keys).tolist() for seed in (0, 1) for purpose in ("groups", "mixture")]
    assert len({tuple(order) for order in orders}) == 4


def test_the_order_is_the_same_in_every_process() -> None:
    call = "seeded_order(3, 'groups', [f'g{i}' for i in range(8)]).tolist()"
    code = f"from trainables.data.splits import seeded_order; print({call})"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert outputs == {str(seeded_order(3, "groups", [f"g{i}" for i in range(8)]).tolist())}
    assert outputs == {"[2, 1, 0, 5, 6, 7, 3, 4]"}  # golden: a change here moves examples between splits


def test_auto_takes_the_rows_own_group_when_all_have_one() -> None:
    full = _row_keys([("g1", "q1", "c1"), ("g1", "q2", "c1")])
    partly = _row_keys([("g1", "q1", "c1"), ("", "q2", "c1")])
    assert resolve_group_by("auto", full, full, "x") == "group"
    assert resolve_group_by("auto", full, partly, "x") == "context"
    assert resolve_group_by("auto", partly, None, "x") == "context"
    assert resolve_group_by("question", full, None, "x") == "question"
    with pytest.raises(DataError, match="group_by=group needs a group in every row, 1 rows of x have none"):
        resolve_group_by("group", partly, None, "x")


def test_auto_without_groups_takes_the_coarser_of_question_and_context() -> None:
    bioasq = _row_keys([("", "q1", "c1"), ("", "q1", "c2"), ("", "q2", "c3")])
    squad = _row_keys([("", "q1", "c1"), ("", "q2", "c1"), ("", "q3", "c2")])
    assert resolve_group_by("auto", bioasq, None, "x") == "question"
    assert resolve_group_by("auto", squad, None, "x") == "context"


def test_keys_see_through_whitespace_and_questions_also_through_case() -> None:
    assert question_key(" Who  is\nIT? ") == question_key("who is it?")
    assert context_key("A  b\r\nc") == context_key("A b c")
    assert context_key("A b") != context_key("a b")


def test_overlap_is_a_shared_group_or_a_shared_question_and_context() -> None:
    train = _row_keys([("g1", "q1", "c1"), ("g2", "q2", "c2"), ("g3", "q3", "c3"), ("g4", "q9", "c9")])
    test = _row_keys([("g1", "qa", "ca"), ("t2", "q2", "c2"), ("t3", "q3", "other")])
    assert overlapping_rows(train, test, "group").tolist() == [0, 1]
    assert overlapping_rows(train, test, "question").tolist() == [1, 2]


def test_overlap_is_refused_or_dropped_as_the_domain_says() -> None:
    train = _row_keys([("g1", "q1", "c1"), ("g2", "q2", "c2")])
    test = _row_keys([("g2", "qa", "ca")])
    with pytest.raises(
        DataError, match=r"1 of 2 training rows of domain 'b' share a group.*\(first: row 1\).*domains\.b\.overlap=drop"
    ):
        without_overlap(train, test, "group", DomainSpec(train="x"), "b")
    rows, num_dropped = without_overlap(train, test, "group", DomainSpec(train="x", overlap="drop"), "b")
    assert (rows.tolist(), num_dropped) == ([0], 1)
    with pytest.raises(DataError, match="all 2 training rows of domain 'b' are in the test rows"):
        without_overlap(train, train, "group", DomainSpec(train="x", overlap="drop"), "b")
