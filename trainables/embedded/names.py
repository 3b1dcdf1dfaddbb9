"""Seeded choices and invented names, the raw material of every generated text.

Only `random.Random.random` is drawn from, the one method whose sequence the standard library
promises never to change (Source: https://docs.python.org/3/library/random.html, "Notes on
Reproducibility"), so the texts are the same bit for bit on every platform and Python version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

__all__ = [
    "CODAS",
    "LANDMARKS",
    "MEDICAL_SUFFIXES",
    "NAME_MAKERS",
    "SYLLABLES",
    "chance",
    "coined_word",
    "numbered_name",
    "pick",
    "sample",
    "text_rng",
]

Item = TypeVar("Item")

SYLLABLES = tuple(onset + vowel for onset in "bdfghklmnprstvwz" for vowel in "aeiou")
CODAS = ("l", "n", "r", "s", "th", "x")
MEDICAL_SUFFIXES = ("ase", "azole", "globin", "kinase", "mab", "mycin", "oxin", "phage", "statin", "tinib")
_TITLES = ("count", "doctor", "lady", "sir")
LANDMARKS = ("bay", "falls", "hill", "port", "valley")
# Odd and not a multiple of 5, so multiplying by it permutes the residues modulo 80 ** 3.
_SCRAMBLE = 190_523


def text_rng(*labels: object) -> Random:
    """A generator seeded by its labels alone, whatever was drawn before it."""
    return Random("/".join(str(label) for label in labels))


def chance(rng: Random, probability: float) -> bool:
    """True with the given probability in [0, 1]."""
    return rng.random() < probability


def pick(rng: Random, items: Sequence[Item]) -> Item:
    """One of the items, each equally likely."""
    return items[int(rng.random() * len(items))]


def sample(rng: Random, items: Sequence[Item], count: int) -> list[Item]:
    """`count` different items in random order; all of them when `count` is the length."""
    remaining = list(items)
    return [remaining.pop(int(rng.random() * len(remaining))) for _ in range(count)]


def coined_word(rng: Random) -> str:
    """A lower-case word of two or three syllables that no language has."""
    word = "".join(pick(rng, SYLLABLES) for _ in range(2 + chance(rng, 0.3)))
    return word + pick(rng, CODAS) if chance(rng, 0.3) else word


def numbered_name(number: int) -> str:
    """The capitalised three-syllable name of a number in [0, 80 ** 3); no two numbers share one."""
    base = len(SYLLABLES)
    scrambled = (number * _SCRAMBLE + _SCRAMBLE // 2) % base**3
    places = (scrambled // base**2, scrambled // base % base, scrambled % base)
    return "".join(SYLLABLES[place] for place in places).capitalize()


def _person(rng: Random) -> str:
    """A surname alone, or with a first name, and now and then a title."""
    names = [coined_word(rng).capitalize() for _ in range(1 + chance(rng, 0.6))]
    title = [pick(rng, _TITLES).capitalize()] if chance(rng, 0.2) else []
    return " ".join(title + names)


def _place(rng: Random) -> str:
    """A place name, sometimes with the kind of landmark it is."""
    name = coined_word(rng).capitalize()
    return f"{name} {pick(rng, LANDMARKS).capitalize()}" if chance(rng, 0.35) else name


def _molecule(rng: Random) -> str:
    """A drug, enzyme or gene name such as `Ravokinase`, `Lutimab 4` or `Beta Sofoglobin`."""
    stem = pick(rng, SYLLABLES) + pick(rng, SYLLABLES) + pick(rng, MEDICAL_SUFFIXES)
    if chance(rng, 0.2):
        return f"{pick(rng, ('Alpha', 'Beta', 'Gamma'))} {stem}"
    return f"{stem.capitalize()} {1 + int(rng.random() * 9)}" if chance(rng, 0.3) else stem.capitalize()


def _year(rng: Random) -> str:
    """A year, sometimes with its month."""
    year = str(1500 + int(rng.random() * 500))
    return f"{pick(rng, ('April', 'June', 'October'))} {year}" if chance(rng, 0.3) else year


NAME_MAKERS: dict[str, Callable[[Random], str]] = {
    "molecule": _molecule,
    "person": _person,
    "place": _place,
    "year": _year,
}
