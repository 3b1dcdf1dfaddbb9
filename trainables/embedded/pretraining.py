"""Generic passages to pre-train on: match a question to a fact by the words they share.

The relation words are drawn afresh for every passage, half of them coined from syllables and half
taken from all ordinary words of the vocabulary, so none can be memorised: what is left to learn is
to match and to copy. No phrasing and no pairing of question and statement of the two domains occurs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from trainables.embedded.names import NAME_MAKERS, chance, coined_word, pick, sample
from trainables.embedded.relations import DOMAIN_KINDS

__all__ = ["FUNCTION_WORDS", "PretrainingExample", "ordinary_words", "pretraining_example"]

_FUNCTION_WORDS_TEXT = """
a after an and are as at before by came does for from had has have in is it its of on that the this to was were
what which who whose whom where with upon via do no they there here also known
"""
_LINKS_TEXT = "is was has had from by for of with as in on at to the a its via upon were are"
_EVERYDAY_TEXT = """
age animal anthem army art award bird book border brother captain castle chief church climate coach coin colour
crop crown currency dance daughter emperor engine export father festival flag flower food friend garden goal god
guard guest harbour horse industry island judge king lake language law leader master mayor metal mineral mother
motto museum neighbour novel officer origin park plant poet president prince prize product pupil queen rank rival
ruler saint season senator shape sister size soil song source sport statue student symbol teacher temple tree
uncle weapon weight wife winner writer
"""
FUNCTION_WORDS = tuple(_FUNCTION_WORDS_TEXT.split())
_LINKS = tuple(_LINKS_TEXT.split())
_EVERYDAY = tuple(_EVERYDAY_TEXT.split())
_ASKERS = ("what", "which", "who", "whose", "where", "in which", "to whom", "by whom", "what is the", "who was the")


@dataclass(frozen=True, kw_only=True)
class PretrainingExample:
    """One question over one passage; spans are character offsets in `context`, the end exclusive."""

    question: str
    context: str
    answer_span: tuple[int, int]
    sentence_span: tuple[int, int]
    """The sentence that states the asked fact, with its full stop."""


def ordinary_words() -> tuple[str, ...]:
    """Every lower-case word that a relation can be called by, sorted."""
    phrases = [
        phrase
        for kinds in DOMAIN_KINDS.values()
        for kind in kinds
        for phrase in (kind.subject, kind.opening, *(p for r in kind.relations for p in r.questions + r.statements))
    ]
    words = {word for phrase in phrases for word in re.findall(r"[a-z]+", re.sub(r"\{\w+\}", "", phrase.lower()))}
    return tuple(sorted(words.union(_EVERYDAY) - set(FUNCTION_WORDS)))


_ORDINARY = ordinary_words()


def _relation_words(rng: Random) -> list[str]:
    """One to three words that name a relation in one passage only."""
    count = 1 + chance(rng, 0.35) + chance(rng, 0.1)
    return [coined_word(rng) if chance(rng, 0.35) else pick(rng, _ORDINARY) for _ in range(count)]


def _links(rng: Random) -> list[str]:
    """One or two function words."""
    return [pick(rng, _LINKS) for _ in range(1 + chance(rng, 0.5))]


def _statement(rng: Random, subject: str, relation: list[str]) -> tuple[str, str]:
    """The text before and after the answer in a sentence that states a fact, without its full stop."""
    about = [] if chance(rng, 0.5) else [*_links(rng), subject]
    spread = [word for item in relation for word in ([item, pick(rng, _LINKS)] if chance(rng, 0.2) else [item])]
    near = spread + about if chance(rng, 0.5) else about + spread
    opening = [pick(rng, _LINKS)] if chance(rng, 0.5) else []
    if chance(rng, 0.6):
        tail = [*_links(rng), pick(rng, _ORDINARY)] if chance(rng, 0.15) else []
        return " ".join(opening + near + _links(rng)) + " ", " ".join(["", *tail])
    return " ".join([*opening, ""]), " ".join(["", *_links(rng), *near])


def _question(rng: Random, subject: str, relation: list[str]) -> str:
    """A question that names the relation, sometimes by a part of it, and mostly the subject."""
    kept = sample(rng, relation, max(1, len(relation) - chance(rng, 0.3)))
    kept += [pick(rng, _ORDINARY)] if chance(rng, 0.15) else []
    parts = [*kept, *_links(rng), subject] if chance(rng, 0.7) else [*_links(rng), subject, *kept]
    return f"{pick(rng, _ASKERS).capitalize()} {' '.join(parts)}?"


def pretraining_example(rng: Random, *, max_facts: int = 6) -> PretrainingExample:
    """A passage of two to `max_facts` facts with answers of one type, and a question on one of them."""
    subject = coined_word(rng).capitalize()
    make_answer = NAME_MAKERS[pick(rng, sorted(NAME_MAKERS))]
    num_facts = min(max_facts, 2 + int(rng.random() * (max_facts - 1)))
    asked = int(rng.random() * num_facts)
    context, question, answer_span, sentence_span = "", "", (0, 0), (0, 0)
    for position in range(num_facts):
        relation, answer = _relation_words(rng), make_answer(rng)
        before, after = _statement(rng, subject, relation)
        sentence = f"{before}{answer}{after}."
        if position == asked:
            question = _question(rng, subject, relation)
            start = len(context) + len(before)
            answer_span = (start, start + len(answer))
            sentence_span = (len(context), len(context) + len(sentence))
        context += sentence + " "
    return PretrainingExample(question=question, context=context.rstrip(), answer_span=answer_span, sentence_span=sentence_span)
