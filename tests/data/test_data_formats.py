"""Every format gives the same aligned rows; text survives as it is; what cannot be read is refused by name."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from trainables.data.align import align
from trainables.data.errors import DataError
from trainables.data.formats import FORMATS, detect_format, read_file
from trainables.data.rows import FEATURES

# (question, context, answer): combining marks, emoji beyond the BMP, right-to-left, quotes, commas, line ends, markers.
SIX = [
    ("Where does the cafe\u0301 stand?", "The cafe\u0301 stands near the nai\u0308ve lake, in Malmö.", "nai\u0308ve lake"),
    ("Which emoji 🧬 is it?", "A gene 🧬 binds the 🧫🧪 receptor 👩\u200d🔬 twice.", "🧫🧪 receptor"),
    ("מה שם העיר?", "העיר ירושלים עומדת על ההר.", "ירושלים"),
    ('What did "he" say, then?', 'He said, "torn, ACL" and left;\r\nthe end.', 'torn, ACL" and left;\r\nthe'),
    ("Who\tbuilt it?", "Line one.\nLine two: the king\u2028built it. \u00a0 x < 3 > y", "king\u2028built"),
    (" What is leading?", "NA is an answer, null another.", "NA"),
]
IDS = [f"row-{i}" for i in range(6)]


def _squad(path: Path) -> None:
    qas = [
        {"context": c, "qas": [{"id": i, "question": q, "answers": [{"text": a, "answer_start": c.index(a)}]}]}
        for i, (q, c, a) in zip(IDS, SIX, strict=True)
    ]
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "", "paragraphs": qas}]}), encoding="utf-8")


def _mrqa(path: Path) -> None:
    lines: list[dict[str, Any]] = [{"header": {"dataset": "six", "split": "dev"}}]
    for i, (q, c, a) in zip(IDS, SIX, strict=True):
        span = [c.index(a), c.index(a) + len(a) - 1]
        qa = {"qid": i, "question": q, "answers": [a], "detected_answers": [{"text": a, "char_spans": [span]}]}
        lines.append({"context": c, "qas": [qa]})
    path.write_bytes(gzip.compress("\n".join(json.dumps(line) for line in lines).encode()))


def _flat(path: Path) -> None:
    rows = [
        {"id": i, "question": q, "context": c, "answers": {"text": [a], "answer_start": [c.index(a)]}}
        for i, (q, c, a) in zip(IDS, SIX, strict=True)
    ]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")


def _parquet(path: Path) -> None:
    answers = [{"text": [a], "answer_start": [c.index(a)]} for _, c, a in SIX]
    questions, contexts = [q for q, _, _ in SIX], [c for _, c, _ in SIX]
    pa.parquet.write_table(pa.table({"id": IDS, "question": questions, "context": contexts, "answers": answers}), path)


def _csv_file(path: Path, header: list[str], rows: list[list[str]]) -> None:
    sink = io.StringIO(newline="")
    csv.writer(sink).writerows([header, *rows])
    path.write_bytes(sink.getvalue().encode())


def _csv(path: Path) -> None:
    rows = [[i, q, c, json.dumps({"text": [a], "answer_start": [c.index(a)]})] for i, (q, c, a) in zip(IDS, SIX, strict=True)]
    _csv_file(path, ["id", "question", "context", "answers"], rows)


def _answer_context(path: Path) -> None:
    _csv_file(path, ["question", "text"], [[q, f"<answer> {a} <context> {c}"] for q, c, a in SIX])


WRITERS: dict[str, Callable[[Path], None]] = {
    "answer_context": _answer_context,
    "csv": _csv,
    "flat": _flat,
    "mrqa": _mrqa,
    "parquet": _parquet,
    "squad": _squad,
}


def test_every_format_has_a_writer_here() -> None:
    assert sorted(WRITERS) == sorted(FORMATS)


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("stated", [True, False])
def test_the_same_rows_in_every_format_align_to_the_same_dataset(name: str, stated: bool, tmp_path: Path) -> None:
    path = tmp_path / "rows"  # no extension: content decides
    WRITERS[name](path)
    assert detect_format(path) == name
    rows, counts = align(read_file(path, name if stated else "auto"))
    assert rows.features == FEATURES
    assert (counts.read, counts.kept, counts.repaired, counts.respelled) == (6, 6, 0, 0)
    for row, row_id, (question, context, answer) in zip(rows, IDS, SIX, strict=True):
        assert row["question"] == question.strip()
        assert row["context"] == context
        assert row["answers"] == {"text": [answer], "answer_start": [context.index(answer)]}
        assert row["gold"] == [answer]
        assert (row["title"], row["group"]) == ("", "")
        assert row["id"] == row_id or name == "answer_context"
    assert len(set(rows["id"][:])) == 6


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"parquet"}))
@pytest.mark.parametrize("packed", [True, False])
def test_a_byte_order_mark_and_gzip_change_nothing(name: str, packed: bool, tmp_path: Path) -> None:
    plain, marked = tmp_path / "plain", tmp_path / "marked"
    WRITERS[name](plain)
    content = plain.read_bytes()
    content = gzip.decompress(content) if name == "mrqa" else content
    marked.write_bytes(gzip.compress(b"\xef\xbb\xbf" + content) if packed else b"\xef\xbb\xbf" + content)
    assert read_file(marked).to_list() == read_file(plain).to_list()


def test_a_pretty_printed_squad_file_and_one_of_megabytes_are_recognised(tmp_path: Path) -> None:
    _squad(tmp_path / "six")
    document = json.loads((tmp_path / "six").read_text(encoding="utf-8"))
    (tmp_path / "pretty").write_text(json.dumps(document, indent=2), encoding="utf-8")
    document["data"][0]["paragraphs"].append({"context": "word " * 500_000, "qas": []})
    (tmp_path / "long").write_text(json.dumps(document), encoding="utf-8")
    assert {detect_format(tmp_path / name) for name in ("six", "pretty", "long")} == {"squad"}


def test_further_gold_answers_are_kept_for_scoring_only(write_flat: Callable[..., Path]) -> None:
    row = {
        "id": "x",
        "question": "q?",
        "context": "PD-1 is programmed death-1.",
        "answers": {"text": ["PD-1"], "answer_start": [0]},
        "gold": ["programmed cell death 1", "PD-1", "programmed death-1"],
        "group": "g",
    }
    (aligned,) = align(read_file(write_flat("rows.jsonl", [row])))[0]
    assert aligned["answers"]["text"] == ["PD-1"]
    assert aligned["gold"] == ["PD-1", "programmed cell death 1", "programmed death-1"]
    assert aligned["group"] == "g"


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("[18F]FDG", ["[18F]FDG"]),
        ("[1]", ["[1]"]),
        ('["FDG", "PET"]', ["FDG", "PET"]),
        ('[{"text": "PET", "answer_start": 21}]', ["PET"]),
        ("{PET}", ["{PET}"]),
    ],
)
def test_a_csv_cell_is_json_only_when_it_is_answers(cell: str, expected: list[str], tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    _csv_file(path, ["question", "context", "answers"], [["q?", "[18F]FDG [1] and {PET} are FDG PET.", cell]])
    (row,) = read_file(path)
    assert row["answers"]["text"] == expected


def test_a_csv_with_answer_and_answer_start_columns_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    _csv_file(
        path, ["question", "context", "answer", "answer_start"], [["q?", "on and on", "on", "7"], ["q?", "on and on", "on", ""]]
    )
    rows = align(read_file(path))[0]
    assert [row["answers"]["answer_start"] for row in rows] == [[7], [0]]


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"parquet", "csv", "answer_context"}))
def test_a_lone_surrogate_in_json_keeps_offsets(name: str, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    WRITERS[name](path)
    text = gzip.decompress(path.read_bytes()).decode() if name == "mrqa" else path.read_text(encoding="utf-8")
    path.write_text(text.replace("NA is an", "NA \\ud83d an"), encoding="utf-8")
    row = align(read_file(path))[0][5]
    assert row["context"] == "NA ? an answer, null another."
    assert row["answers"] == {"text": ["NA"], "answer_start": [0]}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ('{"question": "q", "context": "c"}', r"line 1: no field 'answers', got \['context', 'question'\]"),
        ('{"question": "q", "context": "c", "answers": {"answer_start": [0]}}', "line 1, answers: no field 'text'"),
        ('{"question": "q", "context": "c", "answers": ["a"]}', "no field 'text', got a list"),
        (
            '{"question": "q", "context": "c", "answers": {"text": ["a"], "answer_start": [0, 1]}}',
            "got 2 for 1; repair the row",
        ),
        ('{"data": [{"paragraphs": [{"qas": []}]}]}', r"data\[0\].paragraphs\[0\]: no field 'context'"),
        (
            '{"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "i", "question": "q"}]}]}]}',
            r"qas\[0\]: no field 'answers'",
        ),
        ('{"context": "c", "qas": [{"question": "q"}]}', r"line 1, qas\[0\]: no field 'detected_answers'"),
        ("question,context\nq,c\n", "no field 'answers', got"),
        ("question,context,answer\n", "has no rows; name another file or split"),
        ("question,context,answer\na,b\n", "does not read as csv.*state its `format`"),
        ('{"question": "q", "context": "c", "answers": {"text": [], "answer_start": []}}\n{broken', "does not read as flat"),
        ("what is this?\n", "`format`, one of answer_context, csv, flat, mrqa, parquet, squad"),
        (
            "qid,passage,answer\n1,c,a\n",
            "begins with 'qid,passage,answer.*; a CSV file needs columns question, context and answers",
        ),
        ("[1, 2]", "cannot tell the format"),
        ("", "cannot tell the format"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(content: str, match: str, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=match):
        read_file(path)


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b"question,context,answer\nq,caf\xe9,caf\xe9\n")
    with pytest.raises(DataError, match="does not read as csv"):
        read_file(path)


@pytest.mark.parametrize("stated", ["auto", "mrqa"])
def test_a_gzipped_file_that_ends_early_is_refused(stated: str, tmp_path: Path) -> None:
    whole = gzip.compress("".join(json.dumps({"question": f"{i}", "context": f"{i * i}"}) + "\n" for i in range(500)).encode())
    (tmp_path / "rows.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=rf"rows.jsonl.gz does not read as {stated}: .*; check the file"):
        read_file(tmp_path / "rows.jsonl.gz", stated)


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"format must be one of auto, answer_context, .*, got 'tsv'"):
        read_file(tmp_path, "tsv")


@pytest.mark.parametrize("missing", ["question", "text"])
def test_answer_context_names_the_missing_column(missing: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    _csv_file(path, [{"question": "text", "text": "question"}[missing], "other"], [["a", "b"]])
    with pytest.raises(DataError, match=f"no field '{missing}'"):
        read_file(path, "answer_context")
