"""One function per file format, each reading a file into raw rows. To add a format, write a function and name it in FORMATS.

What a format does not state (ids, offsets, groups) is left open here and filled in by `align`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from trainables.data.columns import rows_from_columns
from trainables.data.errors import DataError
from trainables.data.rows import UNKNOWN_START, dataset_of, field, pair_answers, raw_row

__all__ = [
    "FORMATS",
    "detect_format",
    "read_answer_context",
    "read_csv",
    "read_file",
    "read_flat",
    "read_mrqa",
    "read_parquet",
    "read_squad",
]

_NEEDS = (
    "a CSV file needs columns question, context and answers (csv) or question and text (answer_context); JSON lines need "
    "question, context and answers (flat) or context and qas (mrqa); a JSON document needs data (squad)"
)
"""What `detect_format` looks for."""

_SHOWN_CHARS = 200

_HEAD_BYTES = 1 << 20
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"


def read_file(path: Path, file_format: str = "auto") -> datasets.Dataset:
    """The file's raw rows. Raises: DataError when it is not in that format, or in none of them with "auto"."""
    name = file_format
    if name not in ("auto", *FORMATS):
        raise DataError(f"format must be one of auto, {', '.join(sorted(FORMATS))}, got {name!r}")
    try:
        name = detect_format(path) if name == "auto" else name
        return FORMATS[name](path)
    except (json.JSONDecodeError, UnicodeDecodeError, pa.ArrowInvalid, EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path} does not read as {name}: {error}; check the file, or state its `format`") from error


def read_squad(path: Path) -> datasets.Dataset:
    """SQuAD v1.1 JSON, also without an extension as in RobustQA: {data: [{title, paragraphs: [{context, qas}]}]}."""
    return dataset_of(_squad_rows(json.loads(_read_text(path)), path))


def _squad_rows(document: Any, path: Path) -> Iterator[dict[str, Any]]:
    for a, article in enumerate(field(document, "data", str(path))):
        for p, paragraph in enumerate(field(article, "paragraphs", f"{path}, data[{a}]")):
            where = f"{path}, data[{a}].paragraphs[{p}]"
            context = field(paragraph, "context", where)
            for q, qa in enumerate(field(paragraph, "qas", where)):
                yield _squad_row(qa, context, article.get("title", ""), f"{where}.qas[{q}]")


def _squad_row(qa: Any, context: str, title: str, where: str) -> dict[str, Any]:
    answers = [(field(one, "text", where), one.get("answer_start", UNKNOWN_START)) for one in field(qa, "answers", where)]
    question = field(qa, "question", where)
    return raw_row(row_id=qa.get("id"), title=title, question=question, context=context, answers=answers, group=qa.get("group"))


def read_mrqa(path: Path) -> datasets.Dataset:
    """MRQA JSONL, gzipped or not, with or without its header line: {context, qas: [{question, answers, detected_answers}]}.

    Source: https://github.com/mrqa/MRQA-Shared-Task-2019; `char_spans` are [first, last], last inclusive. The first span of
    each detected answer is taken; `answers` are the accepted ones.
    """
    return dataset_of(_mrqa_rows(path))


def _mrqa_rows(path: Path) -> Iterator[dict[str, Any]]:
    for where, record in _json_lines(path):
        if "header" in record:
            continue
        context = field(record, "context", where)
        for q, qa in enumerate(field(record, "qas", where)):
            place = f"{where}, qas[{q}]"
            detected = [_mrqa_answer(one, context, place) for one in field(qa, "detected_answers", place)]
            row_id = qa.get("id") or qa.get("qid")
            question = field(qa, "question", place)
            yield raw_row(row_id=row_id, question=question, context=context, answers=detected, gold=qa.get("answers", ()))


def _mrqa_answer(detected: Any, context: str, where: str) -> tuple[str, int]:
    spans = field(detected, "char_spans", where)
    if not spans:
        return detected.get("text", ""), UNKNOWN_START
    first, last = spans[0]
    return detected.get("text", context[first : last + 1]), first


def read_flat(path: Path) -> datasets.Dataset:
    """JSONL of {id, group?, question, context, answers: {text, answer_start}, gold?}; `gold`: further accepted answers."""
    return dataset_of(_flat_row(record, where) for where, record in _json_lines(path))


def _flat_row(record: Any, where: str) -> dict[str, Any]:
    answers = field(record, "answers", where)
    texts = field(answers, "text", f"{where}, answers")
    return raw_row(
        row_id=record.get("id"),
        title=record.get("title"),
        question=field(record, "question", where),
        context=field(record, "context", where),
        answers=pair_answers(texts, answers.get("answer_start"), where),
        gold=record.get("gold") or (),
        group=record.get("group"),
    )


def read_parquet(path: Path) -> datasets.Dataset:
    """Parquet with columns question, context and answers (SQuAD's, a list of texts, or one text); see `columns`."""
    return rows_from_columns(datasets.Dataset(pa.parquet.read_table(path)), str(path))


def read_csv(path: Path) -> datasets.Dataset:
    """CSV with a header and the columns of `read_parquet`; `answers` may be JSON. All cells are text: "NA" is an answer."""
    return rows_from_columns(datasets.Dataset(_read_csv_table(path)), str(path))


def read_answer_context(path: Path) -> datasets.Dataset:
    """CSV with columns question and text, where text is `<answer> X <context> Y` (https://huggingface.co/datasets/kroshan/BioASQ)."""
    table = _read_csv_table(path)
    for name in ("question", "text"):
        field(dict.fromkeys(table.column_names), name, str(path))
    return rows_from_columns(datasets.Dataset(table.select(["question", "text"])), str(path))


def _read_csv_table(path: Path) -> pa.Table:
    text = _read_text(path)
    header = next(csv.reader(io.StringIO(text)), [])
    content = text.encode()
    return pa.csv.read_csv(
        io.BytesIO(content),
        read_options=pa.csv.ReadOptions(block_size=len(content) + 1),  # one block: a row may be longer than the default's 1 MB
        parse_options=pa.csv.ParseOptions(newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False),
    )


FORMATS: dict[str, Callable[[Path], datasets.Dataset]] = {
    "answer_context": read_answer_context,
    "csv": read_csv,
    "flat": read_flat,
    "mrqa": read_mrqa,
    "parquet": read_parquet,
    "squad": read_squad,
}


def detect_format(path: Path) -> str:
    """The format that the file's first megabyte shows; names do not matter. Raises: DataError when it shows none."""
    with path.open("rb") as file:
        if file.read(4) == _PARQUET:
            return "parquet"
    head = _read_text(path, _HEAD_BYTES).lstrip()
    name = _detect_json(head) if head.startswith("{") else _detect_csv(head.partition("\n")[0])
    if name is None:
        raise DataError(
            f"cannot tell the format of {path}, which begins with {head[:_SHOWN_CHARS]!r}; {_NEEDS}; "
            f"name them so, or state the domain's `format`, one of {', '.join(sorted(FORMATS))}"
        )
    return name


def _detect_json(head: str) -> str | None:
    line = head.partition("\n")[0]
    try:
        keys = set(json.loads(line))
    except json.JSONDecodeError:  # one long line or a pretty-printed document: keys as they stand in the text
        keys = set(re.findall(r'(?<!\\)"(\w+)"\s*:', head))
        return "squad" if {"data"} & keys and "header" not in keys else None
    if "data" in keys:
        return "squad"
    if "header" in keys or "qas" in keys:
        return "mrqa"
    return "flat" if {"question", "context"} <= keys else None


def _detect_csv(header: str) -> str | None:
    names = {name.strip().strip('"') for name in header.split(",")}
    if {"question", "context"} <= names:
        return "csv"
    return "answer_context" if {"question", "text"} <= names else None


def _read_text(path: Path, num_bytes: int = -1) -> str:
    """The file as text: gunzipped if need be, without a byte order mark, line ends as they are."""
    with path.open("rb") as raw:
        packed = raw.read(2) == _GZIP
    with gzip.open(path, "rb") if packed else path.open("rb") as file:
        content = file.read(num_bytes)
    # A cut head may end inside a character; a whole file must not.
    return content.decode("utf-8-sig", "strict" if num_bytes < 0 else "ignore")


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    # Not str.splitlines: it also breaks at U+2028 and other separators that JSON strings may hold.
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if line.strip():
            yield f"{path}, line {number}", json.loads(line)
