"""Alignment: every kept answer is a span, and what was mended or dropped is counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.data.align import align, find_span
from trainables.data.counts import RowCounts, check_dropped
from trainables.data.errors import DataError
from trainables.data.rows import dataset_of, raw_row


def _row(context: str, *answers: tuple[str, int], question: str = "q?", **more: object) -> dict[str, object]:
    return raw_row(question=question, context=context, answers=answers, **more)


@pytest.mark.parametrize(
    ("context", "text", "start", "expected"),
    [
        ("on and on", "on", 7, (7, "on", True)),
        ("on and on", "on", 6, (7, "on", False)),
        ("on and on", "on", -1, (0, "on", False)),
        ("on and on", " on ", 6, (7, "on", True)),  # the stated offset counts the blank
        ("Torn ACL, torn acl", "torn acl", -1, (10, "torn acl", False)),
        ("Torn ACL", "torn acl", -1, (0, "Torn ACL", False)),
        ("Torn ACL", "torn acl", 0, (0, "Torn ACL", True)),
        ("CARD and AR", "AR", -1, (9, "AR", False)),
        ("CARDS", "AR", -1, (1, "AR", False)),
        ("Straße", "STRASSE", -1, None),
        ("İstanbul is old", "is", -1, (9, "is", False)),
        ("anything", "  ", 0, None),
        ("short", "short", 400, (0, "short", False)),
    ],
)
def test_an_answer_is_found_where_it_is_meant(context: str, text: str, start: int, expected: object) -> None:
    assert find_span(context, text, start) == expected


@given(st.text(max_size=40), st.text(max_size=8), st.integers(-1, 50))
def test_what_is_found_is_always_a_piece_of_the_context(context: str, text: str, start: int) -> None:
    found = find_span(context, text, start)
    if found is not None:
        at, spelling, _ = found
        assert context[at : at + len(spelling)] == spelling
        assert len(spelling) == len(text.strip())
    elif text.strip():
        assert text.strip() not in context


def test_rows_are_counted_by_what_became_of_them() -> None:
    rows, counts = align(
        dataset_of(
            [
                _row("the torn ACL", ("torn ACL", 4)),
                _row("the torn ACL", ("torn ACL", 0)),
                _row("the torn ACL", ("TORN acl", -1)),
                _row("the torn ACL", ("knee", 4), row_id="lost"),
                _row("the torn ACL", ("", 0)),
                _row("the torn ACL"),
                _row("   ", ("torn", 0)),
                _row("the torn ACL", ("torn", 4), question=" \u200b"),
            ]
        )
    )
    assert (counts.read, counts.kept, counts.repaired, counts.respelled) == (8, 3, 1, 1)
    assert (counts.empty, counts.no_span, counts.dropped) == (2, 3, 5)
    assert "row 3 (id 'lost')" in counts.dropped_example
    assert [row["answers"] for row in rows] == [{"text": ["torn ACL"], "answer_start": [4]}] * 3


def test_an_answer_that_is_no_span_still_counts_as_gold() -> None:
    (row,) = align(dataset_of([_row("the torn ACL", ("anterior cruciate ligament", 0), ("ACL", 9))]))[0]
    assert row["answers"] == {"text": ["ACL"], "answer_start": [9]}
    assert row["gold"] == ["ACL", "anterior cruciate ligament"]


def test_equal_ids_are_numbered_by_content_whatever_the_order_of_rows() -> None:
    raw = [_row(f"{word} stands", (word, 0), row_id="same") for word in ("alpha", "beta", "gamma")]
    raw += [_row("delta", ("delta", 0), row_id="same#2")]
    forward, backward = align(dataset_of(raw))[0], align(dataset_of(raw[::-1]))[0]
    ids = dict(zip(forward["context"][:], forward["id"][:], strict=True))
    assert ids == dict(zip(backward["context"][:], backward["id"][:], strict=True))
    assert sorted(ids.values()) == ["same", "same#2", "same#3", "same#4"]
    assert ids["delta"] == "same#2"


def test_missing_ids_come_from_content_and_are_unique() -> None:
    raw = [_row("alpha", ("alpha", 0)), _row("beta", ("beta", 0)), _row("alpha", ("alpha", 0))]
    ids = align(dataset_of(raw))[0]["id"][:]
    assert ids[2] == f"{ids[0]}#2"
    assert len(set(ids)) == 3


@pytest.mark.parametrize("dropped", [2, 3])
def test_more_drops_than_allowed_are_refused_with_an_example(dropped: int) -> None:
    counts = RowCounts(
        read=20, kept=20 - dropped, empty=1, no_span=dropped - 1, repaired=0, respelled=0, dropped_example="row 7 (id 'x')"
    )
    check_dropped(counts, 0.15, "rows.csv")
    with pytest.raises(DataError, match=rf"{dropped} of 20 rows of rows.csv .* max_dropped_share=0.05; for example row 7"):
        check_dropped(counts, 0.05, "rows.csv")


def test_rows_that_are_all_dropped_are_refused_whatever_the_share() -> None:
    with pytest.raises(DataError, match="2 of 2 rows"):
        check_dropped(align(dataset_of([_row("alpha", ("x", 0)), _row("", ("x", 0))]))[1], 1.0, "rows.csv")
