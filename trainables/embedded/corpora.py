"""Two generated corpora with the shape of the papers' data: SQuAD-style JSON and BioASQ-style CSV.

    from trainables.embedded.corpora import write_corpora
    paths = write_corpora(Path("corpora"))    # {"squad_train": corpora/squad_train.json, ...}

Both are made of passages about one invented entity: an opening and a few statements whose answers
are all of one type, so an answer is found by knowing how the domain words a relation and not by its
type. Group `i` depends on (seed, domain, split, i) alone: a longer corpus starts with the shorter one.

- `squad`: a group is a passage with four or five questions; test rows often have several gold answers.
- `bioasq`: a group is a question with two to five rows, each with another passage, as in BioASQ.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from trainables.embedded.names import LANDMARKS, NAME_MAKERS, chance, coined_word, numbered_name, pick, sample, text_rng
from trainables.embedded.relations import DOMAIN_KINDS, Kind, Relation

__all__ = ["DOMAINS", "SPLITS", "Row", "corpora_in", "generate", "to_bioasq_csv", "to_squad_json", "write_corpora"]

DOMAINS = tuple(DOMAIN_KINDS)
SPLITS = ("train", "test")
_TRAIN_ROWS, _TEST_ROWS = 1500, 250
_DIGRESSION_SHARE = 0.02


@dataclass(frozen=True, kw_only=True)
class Row:
    """One question over one context; `answers` are spans of it, the canonical one first."""

    row_id: str
    group: str
    """What a split must keep together: the passage for squad, the question for bioasq."""
    title: str
    context: str
    question: str
    answers: tuple[str, ...]
    answer_starts: tuple[int, ...]
    """Character offset of each answer in `context`."""


@dataclass(frozen=True, kw_only=True)
class _Passage:
    """A context, and per relation stated in it the answer's text and character offset."""

    context: str
    facts: tuple[tuple[Relation, str, int], ...]


def _sentence(template: str, **values: str) -> str:
    """A filled template with a capital first letter."""
    text = template.format(**values)
    return text[0].upper() + text[1:]


def _passage(rng: Random, subject: str, kind: Kind, facts: list[tuple[Relation, str]]) -> _Passage:
    """The opening and one sentence per fact, in the given order."""
    context, placed = _sentence(kind.opening, subject=subject) + ".", []
    for relation, answer in facts:
        before, after = pick(rng, relation.statements).split("{answer}")
        lead = before.format(subject=subject)
        placed.append((relation, answer, len(context) + 1 + len(lead)))
        sentence = lead + answer + after.format(subject=subject)
        context += f" {sentence[0].upper()}{sentence[1:]}."
    return _Passage(context=context, facts=tuple(placed))


def _with_digression(rng: Random, passage: _Passage, kind: Kind, other_name: str) -> _Passage:
    """Mostly the passage itself; one in fifty goes on about a subject of another kind, at length."""
    if not chance(rng, _DIGRESSION_SHARE):
        return passage
    domain_kinds = next(kinds for kinds in DOMAIN_KINDS.values() if kind in kinds)
    other = pick(rng, [candidate for candidate in domain_kinds if candidate is not kind])
    rest = _passage(rng, other.subject.format(name=other_name), other, _draw_facts(rng, other, len(other.relations)))
    return _Passage(context=f"{passage.context} {rest.context}", facts=passage.facts)


def _draw_facts(rng: Random, kind: Kind, count: int) -> list[tuple[Relation, str]]:
    """`count` different relations of the kind, each with an answer."""
    return [(relation, NAME_MAKERS[relation.answer_type](rng)) for relation in sample(rng, kind.relations, count)]


def _num_facts(rng: Random) -> int:
    """Mostly four or five statements a passage, and now and then all six."""
    return 4 + chance(rng, 0.6) + chance(rng, 0.3)


def _golds(rng: Random, answer: str, start: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The answer and, for half of the longer ones, its shorter form as a second annotator's choice."""
    if " " not in answer or chance(rng, 0.5):
        return (answer,), (start,)
    rest, last = answer.rsplit(" ", 1)
    if last.lower() in LANDMARKS:
        return (answer, rest), (start, start)
    return (answer, last), (start, start + len(answer) - len(last))


def _squad_group(rng: Random, split: str, group: int, name: str) -> Iterator[Row]:
    """The four or five questions of one passage."""
    kind = pick(rng, DOMAIN_KINDS["squad"])
    subject = kind.subject.format(name=name)
    passage = _passage(rng, subject, kind, _draw_facts(rng, kind, _num_facts(rng)))
    passage = _with_digression(rng, passage, kind, coined_word(rng).capitalize())
    num_questions = min(len(passage.facts), 4 + chance(rng, 0.5))
    for number, (relation, answer, start) in enumerate(sample(rng, passage.facts, num_questions)):
        golds, starts = _golds(rng, answer, start) if split == "test" else ((answer,), (start,))
        yield Row(
            row_id=f"squad-{split}-{group}-{number}",
            group=passage.context,
            title=name,
            context=passage.context,
            question=pick(rng, relation.questions).format(subject=subject),
            answers=golds,
            answer_starts=starts,
        )


def _bioasq_group(rng: Random, split: str, group: int, name: str) -> Iterator[Row]:
    """Two to five passages that answer one question."""
    kind = pick(rng, DOMAIN_KINDS["bioasq"])
    subject = kind.subject.format(name=name)
    relation = pick(rng, kind.relations)
    question = pick(rng, relation.questions).format(subject=subject)
    answer = NAME_MAKERS[relation.answer_type](rng)
    others = [other for other in kind.relations if other is not relation]
    for number in range(2 + int(rng.random() * 4)):
        distractors = [(o, NAME_MAKERS[o.answer_type](rng)) for o in sample(rng, others, _num_facts(rng) - 1)]
        facts = sample(rng, [(relation, answer), *distractors], len(distractors) + 1)
        passage = _passage(rng, subject, kind, facts)
        passage = _with_digression(rng, passage, kind, coined_word(rng).capitalize())
        start = next(start for stated, _, start in passage.facts if stated is relation)
        yield Row(
            row_id=f"bioasq-{split}-{group}-{number}",
            group=question,
            title="",
            context=passage.context,
            question=question,
            answers=(answer,),
            answer_starts=(start,),
        )


_GROUP_MAKERS = {"squad": _squad_group, "bioasq": _bioasq_group}


def generate(domain: str, split: str, *, num_rows: int, seed: int = 0) -> list[Row]:
    """The first `num_rows` rows of a corpus; a smaller number gives a prefix of a larger one.

    Raises:
        ValueError: `domain` is not in DOMAINS or `split` not in SPLITS.
    """
    if domain not in DOMAINS or split not in SPLITS:
        raise ValueError(f"no corpus {domain!r}/{split!r}: domains are {DOMAINS}, splits are {SPLITS}")
    rows: list[Row] = []
    group = 0
    while len(rows) < num_rows:
        rng = text_rng("corpus", seed, domain, split, group)
        # The parts of the number keep the names of all four files, and of nearby seeds, apart.
        name = numbered_name(4 * group + 2 * DOMAINS.index(domain) + SPLITS.index(split) + 40_000 * seed)
        rows.extend(_GROUP_MAKERS[domain](rng, split, group, name))
        group += 1
    return rows[:num_rows]


def to_squad_json(rows: list[Row]) -> str:
    """The rows as a SQuAD v1.1 document; consecutive rows of one context share a paragraph."""
    articles: list[dict] = []
    for row in rows:
        if not articles or articles[-1]["paragraphs"][0]["context"] != row.context:
            articles.append({"title": row.title, "paragraphs": [{"context": row.context, "qas": []}]})
        golds = zip(row.answers, row.answer_starts, strict=True)
        answers = [{"text": text, "answer_start": start} for text, start in golds]
        articles[-1]["paragraphs"][0]["qas"].append({"id": row.row_id, "question": row.question, "answers": answers})
    return json.dumps({"version": "1.1", "data": articles}, indent=1) + "\n"


def to_bioasq_csv(rows: list[Row]) -> str:
    """The rows as CSV with columns question and text, text being `<answer> A <context> C`."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["question", "text"])
    writer.writerows([row.question, f"<answer> {row.answers[0]} <context> {row.context}"] for row in rows)
    return table.getvalue()


_FORMATS = {"squad": ("json", to_squad_json), "bioasq": ("csv", to_bioasq_csv)}


def write_corpora(
    folder: Path, *, seed: int = 0, train_rows: int = _TRAIN_ROWS, test_rows: int = _TEST_ROWS
) -> dict[str, Path]:
    """Write the four files to `folder` and return their paths by `<domain>_<split>`.

    Each file appears whole or not at all, so another process may read while this one writes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = _texts(seed=seed, train_rows=train_rows, test_rows=test_rows)
    for file_name, text in texts.items():
        _write_whole(folder / file_name, text)
    return {Path(file_name).stem: folder / file_name for file_name in texts}


def corpora_in(folder: Path) -> dict[str, Path]:
    """The default corpora's paths by `<domain>_<split>`, written only where they are not there yet.

    They lie in a subfolder named by a hash of all the text, so a sweep that was begun with an
    earlier generator keeps the files it was begun with.
    """
    texts = _texts(seed=0, train_rows=_TRAIN_ROWS, test_rows=_TEST_ROWS)
    folder = folder / hashlib.sha256("".join(texts.values()).encode("utf-8")).hexdigest()[:12]
    if all((folder / file_name).is_file() for file_name in texts):
        return {Path(file_name).stem: folder / file_name for file_name in texts}
    return write_corpora(folder)


def _texts(*, seed: int, train_rows: int, test_rows: int) -> dict[str, str]:
    """The text of each file by file name."""
    return {
        f"{domain}_{split}.{suffix}": to_text(generate(domain, split, num_rows=num_rows, seed=seed))
        for domain, (suffix, to_text) in _FORMATS.items()
        for split, num_rows in zip(SPLITS, (train_rows, test_rows), strict=True)
    }


def _write_whole(path: Path, text: str) -> None:
    """Write UTF-8 text with Unix line ends next to `path`, then move it into place."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    fresh.write_text(text, encoding="utf-8", newline="\n")
    os.replace(fresh, path)
