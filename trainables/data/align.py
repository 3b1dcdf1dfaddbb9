"""Raw rows made into spans: every answer that stays is a piece of its context, and what was dropped or mended is counted."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import datasets

from trainables.data.counts import RowCounts
from trainables.data.rows import FEATURES, UNKNOWN_START, quiet_progress

__all__ = ["align", "find_span"]

_STATUS = "status"


def align(raw: datasets.Dataset) -> tuple[datasets.Dataset, RowCounts]:
    """Rows of `FEATURES` whose answers are all exact spans, in the order read, ids filled in and unique; and the counts.

    Of a row's answers those that are spans stay, the first of them being the one to train on; `gold` is all accepted answers,
    spans first. A row without an id gets one from its content; among equal ids all but one are numbered (`id#2`, ...).
    """
    with quiet_progress():
        checked = raw.map(_aligned_row, features=_with_status(), keep_in_memory=True)
        statuses = [set(status.split()) for status in checked[_STATUS][:]]
        kept = [i for i, status in enumerate(statuses) if not status & {"empty", "no_span"}]
        rows = checked.remove_columns(_STATUS).select(kept, keep_in_memory=True).cast(FEATURES, keep_in_memory=True)
    return _with_unique_ids(rows), _count(raw, statuses, kept)


def find_span(context: str, text: str, start: int = UNKNOWN_START) -> tuple[int, str, bool] | None:
    """Where `text` stands in `context`: (start, the context's spelling, whether `start` was right); None if nowhere.

    Surrounding whitespace of `text` does not count. In turn: as stated at `start`, in any case at `start`, the exact text
    elsewhere, the text in any case elsewhere. Elsewhere is the occurrence nearest to `start`; without a `start` the first
    that is whole words (an answer "AR" is not meant inside "CARD"), else the first.
    """
    stripped = text.strip()
    if not stripped:
        return None
    if start >= 0:
        at = start + len(text) - len(text.lstrip())
        there = context[at : at + len(stripped)]
        if there.lower() == stripped.lower():
            return at, there, True
    for flags in (0, re.IGNORECASE):
        # IGNORECASE compares character by character, so a match has the length of the text, unlike str.casefold's.
        matches = [match.start() for match in re.finditer(f"(?={re.escape(stripped)})", context, flags)]
        if matches:
            at = _best_occurrence(matches, context, len(stripped), start)
            return at, context[at : at + len(stripped)], False
    return None


def _best_occurrence(matches: list[int], context: str, length: int, start: int) -> int:
    if start >= 0:
        return min(matches, key=lambda at: (abs(at - start), at))
    return next((at for at in matches if _is_whole(context, at, at + length)), matches[0])


def _is_whole(context: str, start: int, end: int) -> bool:
    """Whether no letter or digit continues the span on either side."""
    before = start > 0 and context[start - 1].isalnum() and context[start].isalnum()
    after = end < len(context) and context[end].isalnum() and context[end - 1].isalnum()
    return not before and not after


def _with_status() -> datasets.Features:
    return datasets.Features({**FEATURES, _STATUS: datasets.Value("string")})


def _aligned_row(row: Mapping[str, Any]) -> dict[str, Any]:
    question, context = row["question"].strip(), row["context"]
    texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
    golds = [*texts, *row["gold"]]
    if not _is_visible(question) or not _is_visible(context):
        return {**row, "question": question, _STATUS: "empty"}
    status: set[str] = set()
    spans = []
    for text, start in zip(texts, starts, strict=True):
        found = find_span(context, text, start)
        if found is None:
            continue
        at, spelling, as_stated = found
        spans.append((at, spelling))
        if start >= 0 and not as_stated:
            status.add("repaired")
        if spelling != text.strip():
            status.add("respelled")
    answers = {"text": [text for _, text in spans], "answer_start": [at for at, _ in spans]}
    gold = _distinct([text for _, text in spans] + [text.strip() for text in golds])
    return {**row, "question": question, "answers": answers, "gold": gold, _STATUS: " ".join(status) if spans else "no_span"}


def _is_visible(text: str) -> bool:
    # Zero-width and control characters alone are no question: a tokenizer makes nothing of them.
    return any(not char.isspace() and char.isprintable() for char in text)


def _distinct(texts: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text]


def _count(raw: datasets.Dataset, statuses: list[set[str]], kept: list[int]) -> RowCounts:
    number = Counter(name for status in statuses for name in status)
    dropped = next((i for i, status in enumerate(statuses) if status & {"empty", "no_span"}), None)
    return RowCounts(
        read=len(statuses),
        kept=len(kept),
        empty=number["empty"],
        no_span=number["no_span"],
        repaired=number["repaired"],
        respelled=number["respelled"],
        dropped_example="" if dropped is None else _described(raw[dropped], dropped),
    )


def _described(row: Mapping[str, Any], index: int) -> str:
    answer, context = row["answers"]["text"][:1], row["context"][:80]
    return f"row {index} (id {row['id']!r}): question {row['question'][:80]!r}, answer {answer}, context {context!r}"


def _with_unique_ids(rows: datasets.Dataset) -> datasets.Dataset:
    digests = [
        _content_digest(*row) for row in zip(*(rows[name][:] for name in ("question", "context", "answers")), strict=True)
    ]
    ids = [row_id or digest[:16] for row_id, digest in zip(rows["id"][:], digests, strict=True)]
    same: dict[str, list[int]] = defaultdict(list)
    for i, row_id in enumerate(ids):
        same[row_id].append(i)
    taken = set(same)
    for row_id, indices in same.items():
        # Numbered by content, not by place in the file: shuffling a file renames nothing.
        for i in sorted(indices, key=lambda i: digests[i])[1:]:
            ids[i] = _next_free(row_id, taken)
    columns = datasets.Dataset.from_dict({"id": ids}, features=datasets.Features({"id": FEATURES["id"]}))
    return datasets.concatenate_datasets([columns, rows.remove_columns("id")], axis=1)


def _next_free(row_id: str, taken: set[str]) -> str:
    number = 2
    while f"{row_id}#{number}" in taken:
        number += 1
    taken.add(f"{row_id}#{number}")
    return f"{row_id}#{number}"


def _content_digest(question: str, context: str, answers: Mapping[str, Any]) -> str:
    parts = [question, context, *answers["text"], *map(str, answers["answer_start"])]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
