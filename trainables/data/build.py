"""Makes one prepared file: rows loaded and aligned, tokenised, written. The only module here that loads a tokenizer."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from trainables.data.counts import check_dropped
from trainables.data.errors import DataError
from trainables.data.loading import load_rows
from trainables.data.revisions import resolve_revision
from trainables.data.sources import Role, parse_encoder
from trainables.data.spec import DomainSpec
from trainables.data.splits import context_key, question_key
from trainables.data.store import EXAMPLES_SCHEMA, write_file
from trainables.data.windows import make_windows

__all__ = ["build_file", "load_tokenizer"]


def build_file(target: Path, text: str, role: Role, spec: DomainSpec, encoder: str, *, max_length: int, stride: int) -> None:
    """Writes the prepared file of the rows that `text` names as folder `target`, whole or not at all.

    Several processes may build the same target at once: the first to finish puts it there, the others' work is dropped.
    Raises: DataError when the rows cannot be used.
    """
    rows, counts = load_rows(text, role, spec.format)
    check_dropped(counts, spec.max_dropped_share, text)
    tokenizer = load_tokenizer(encoder)
    examples = _examples_table(rows)
    questions, contexts = examples.column("question").to_pylist(), examples.column("context").to_pylist()
    first_answers = zip(examples.column("answer_start").to_pylist(), examples.column("answer").to_pylist(), strict=True)
    chars = [(start, start + len(answer)) for start, answer in first_answers]
    windows = make_windows(tokenizer, questions, contexts, chars, max_length=max_length, stride=stride)
    building = target.with_name(f"{target.name}.tmp-{uuid.uuid4().hex}")
    building.mkdir(parents=True)
    try:
        write_file(building, windows, examples, counts, _pad_id(tokenizer))
        _put_in_place(building, target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def load_tokenizer(encoder: str) -> PreTrainedTokenizerFast:
    """The encoder's fast tokenizer. Raises: DataError when there is none, it is slow, or the hub cannot be reached."""
    source = parse_encoder(encoder)
    # The commit that the fingerprint names, whatever "main" has become since.
    revision = "main" if source.repo_id is None else resolve_revision(source.repo_id, source.revision, kind="model")
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.name_or_path, revision=revision)
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot load the tokenizer of {encoder!r}: {error}; name a local folder with its tokenizer files, "
            "or use --preset embedded"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        found = type(tokenizer).__name__
        raise DataError(f"encoder {encoder!r} needs a fast tokenizer, got {found}; add tokenizer.json to its folder")
    # Without any tokenizer file transformers 5 makes an empty tokenizer, which reads every word as unknown.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise DataError(
            f"an encoder is needed whose tokenizer has a vocabulary, got only special tokens from {encoder!r}; "
            "add tokenizer.json or vocab.txt to its folder"
        )
    return tokenizer


def _pad_id(tokenizer: PreTrainedTokenizerFast) -> int:
    return 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)


def _examples_table(rows: datasets.Dataset) -> pa.Table:
    columns: dict[str, Any] = rows[:]
    keys = {context: context_key(context) for context in set(columns["context"])}  # SQuAD asks five questions of each
    columns["context_key"] = [keys[context] for context in columns["context"]]
    columns["question_key"] = [question_key(question) for question in columns["question"]]
    columns["answer"] = [answers["text"][0] for answers in columns["answers"]]
    columns["answer_start"] = [answers["answer_start"][0] for answers in columns["answers"]]
    return pa.table({name: columns[name] for name in EXAMPLES_SCHEMA.names}, schema=EXAMPLES_SCHEMA)


def _put_in_place(building: Path, target: Path) -> None:
    try:
        building.rename(target)
    except OSError:  # a folder that is not empty is not replaced: another process was first, with the same content
        if not target.is_dir():
            raise
