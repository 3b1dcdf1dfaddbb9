"""Raw rows from tables: Parquet, CSV and hub datasets, whose columns say what they hold."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import datasets

from trainables.data.errors import DataError
from trainables.data.rows import FEATURES, UNKNOWN_START, field, pair_answers, quiet_progress, raw_row

__all__ = ["rows_from_columns"]

# https://huggingface.co/datasets/kroshan/BioASQ
_ANSWER_CONTEXT = re.compile(r"\s*<answer>(.*?)<context>(.*)", re.DOTALL)


def rows_from_columns(table: datasets.Dataset, where: str) -> datasets.Dataset:
    """Raw rows of a table with question, context and answers, or with question and text (`<answer> X <context> Y`).

    `answers` is SQuAD's {text, answer_start}, a list of texts or of {text, answer_start}, or a text (JSON of those, or the
    answer itself); in its place `answer` and, if known, `answer_start`. Optional: id, title, group, gold.

    Raises: DataError naming the column that is missing.
    """
    names = dict.fromkeys(table.column_names)
    field(names, "question", where)
    if "context" not in names and "text" in names:
        to_row = _answer_context_row
    else:
        field(names, "context", where)
        field(names, "answers" if "answer" not in names else "answer", where)
        to_row = partial(_columns_row, where=where)
    if len(table) == 0:
        raise DataError(f"{where} has no rows; name another file or split")
    with quiet_progress():
        return table.map(to_row, remove_columns=table.column_names, features=FEATURES, keep_in_memory=True)


def _answer_context_row(row: Mapping[str, Any]) -> dict[str, Any]:
    match = _ANSWER_CONTEXT.fullmatch(row["text"] or "")
    if match is None:  # no context: alignment drops and counts it
        return raw_row(question=row["question"], context="", answers=[])
    answer, context = match[1].strip(), match[2].strip()
    return raw_row(question=row["question"], context=context, answers=[(answer, UNKNOWN_START)])


def _columns_row(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    given = row["answers"] if "answers" in row else [{"text": row["answer"], "answer_start": row.get("answer_start")}]
    gold = _parsed(row.get("gold"))
    return raw_row(
        row_id=row.get("id"),
        title=row.get("title"),
        question=row["question"],
        context=row["context"],
        answers=_answer_pairs(_parsed(given), where),
        gold=[gold] if isinstance(gold, str) else gold or (),
        group=row.get("group"),
    )


def _parsed(cell: Any) -> Any:
    """The JSON object or list of objects or texts that a cell spells, else the cell: "[18F]FDG" and "[1]" are answers."""
    if not isinstance(cell, str) or not cell.lstrip().startswith(("{", "[")):
        return cell or None
    try:
        value = json.loads(cell)
    except json.JSONDecodeError:
        return cell
    fits = isinstance(value, dict) or (isinstance(value, list) and all(isinstance(one, dict | str) for one in value))
    return value if fits else cell


def _answer_pairs(answers: Any, where: str) -> list[tuple[Any, Any]]:
    place = f"{where}, column answers"
    if answers is None:
        return []
    if isinstance(answers, str):
        return [(answers, UNKNOWN_START)]
    if isinstance(answers, Mapping):
        return pair_answers(field(answers, "text", place), answers.get("answer_start"), place)
    records = [{"text": one} if isinstance(one, str) else one for one in answers]
    return [(field(one, "text", place), one.get("answer_start")) for one in records]
