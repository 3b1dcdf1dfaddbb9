"""What the two domains say: per kind of subject, its relations and both phrasings of each.

The first question and the first statement of a relation share a word; the other three pairings do
not ("Who composed Tamiro?" and "Lodan set the tale to melody"), and knowing that they belong
together is what fine-tuning on the domain teaches. `{subject}` stands for the passage's entity and
`{answer}` for the span to extract.

Editing a phrase changes the corpora, whose hashes `tests/test_embedded.py` pins; a new word also
changes the vocabulary, and then the encoder has to be pre-trained again.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DOMAIN_KINDS", "Kind", "Relation"]


@dataclass(frozen=True, kw_only=True)
class Relation:
    """One thing a passage can state about its subject."""

    answer_type: str
    """Key of `names.NAME_MAKERS`."""
    questions: tuple[str, ...]
    statements: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of subject; its relations are one another's distractors."""

    subject: str
    """How a subject's name is introduced, with `{name}`."""
    opening: str
    """The sentence a passage starts with; it answers no question."""
    relations: tuple[Relation, ...]


def _relations(answer_type: str, *rows: tuple[str, str, str, str]) -> tuple[Relation, ...]:
    """Relations of one answer type from rows of two questions and two statements."""
    return tuple(Relation(answer_type=answer_type, questions=row[:2], statements=row[2:]) for row in rows)


# fmt: off
_OPERA = Kind(
    subject="{name}",
    opening="{subject} is an opera in three acts",
    relations=_relations(
        "person",
        ("Who composed {subject}?", "Who wrote the music of {subject}?",
         "{subject} was composed by {answer}", "{answer} set the tale to melody"),
        ("Who is the author of the libretto of {subject}?", "Who supplied the words for {subject}?",
         "the author of its verses was {answer}", "its text was penned by {answer}"),
        ("Who conducted the premiere of {subject}?", "Who led the orchestra for {subject}?",
         "the premiere saw {answer} with the baton", "{answer} stood before the players"),
        ("To whom was {subject} dedicated?", "Whose honour is {subject} written in?",
         "the title page is dedicated to {answer}", "it was offered as a gift to {answer}"),
        ("Who sang the leading role in {subject}?", "Which soprano starred in {subject}?",
         "the leading heroine was {answer}", "the cast of {subject} was headed by {answer}"),
        ("Who painted the scenery of {subject}?", "Who made the backdrops for {subject}?",
         "the stage was painted by {answer}", "its sets were drawn by {answer}"),
    ),
)

_BUILDING = Kind(
    subject="{name} Hall",
    opening="{subject} is a landmark of brick and stone",
    relations=_relations(
        "person",
        ("Who designed {subject}?", "Who was the architect of {subject}?",
         "{subject} was designed by {answer}", "its form was conceived by {answer}"),
        ("Who paid for {subject}?", "Who financed {subject}?",
         "the cost was paid by {answer}", "money was lent by the banker {answer}"),
        ("Who inaugurated {subject}?", "Who opened {subject} to the public?",
         "it was inaugurated by {answer}", "at the ceremony {answer} gave a speech"),
        ("Which contractor built {subject}?", "Who constructed {subject}?",
         "the masonry was built by {answer}", "the walls were raised by {answer}"),
        ("To whom does {subject} belong?", "Who is the owner of {subject}?",
         "by deed it does belong to {answer}", "it is the property of {answer}"),
        ("Who renovated {subject}?", "Who restored {subject}?",
         "after the fire {answer} renovated it", "the roof was renewed by {answer}"),
    ),
)

_TOWN = Kind(
    subject="{name}",
    opening="{subject} is a market town of the north",
    relations=_relations(
        "place",
        ("Which river flows through {subject}?", "What stream crosses {subject}?",
         "the river on its banks is {answer}", "the waters of {answer} drive the mills"),
        ("In which county is {subject} located?", "Which province does {subject} lie in?",
         "{subject} is located as part of {answer}", "taxes are collected for {answer}"),
        ("What was {subject} formerly called?", "What is the ancient name of {subject}?",
         "formerly it was on maps as {answer}", "the romans knew it as {answer}"),
        ("What is the twin town of {subject}?", "Which partner city does {subject} have?",
         "its twin by friendship is {answer}", "schools exchange pupils with {answer}"),
        ("Which city is reached by railway from {subject}?", "Where do trains from {subject} go?",
         "the railway line ends at {answer}", "passengers depart for {answer}"),
        ("Which mountain overlooks {subject}?", "What is the highest peak near {subject}?",
         "the mountain behind {subject} is {answer}", "climbers start here for {answer}"),
    ),
)

_DISEASE = Kind(
    subject="{name} syndrome",
    opening="{subject} is a rare inherited disorder",
    relations=_relations(
        "molecule",
        ("Which gene is mutated in {subject}?", "What is the genetic cause of {subject}?",
         "patients carry mutated {answer}", "pathogenic alleles of {answer} segregate with {subject}"),
        ("Which drug is used for treatment of {subject}?", "What is the recommended therapy of {subject}?",
         "a randomized trial of treatment tested {answer}", "symptoms improved after administration of {answer}"),
        ("Which biomarker is used for diagnosis of {subject}?", "What serum marker indicates {subject}?",
         "diagnosis relies on plasma levels of {answer}", "elevated {answer} was measured in blood"),
        ("Which enzyme is deficient in {subject}?", "What enzymatic activity is lost in {subject}?",
         "fibroblasts are deficient for {answer}", "assays demonstrate absence of functional {answer}"),
        ("Which autoantibody target is reported in {subject}?", "Which antigen do antibodies recognize in {subject}?",
         "the autoantibody reacts with {answer}", "sera precipitate {answer}"),
        ("Which compound worsens {subject}?", "Which agent is contraindicated in {subject}?",
         "the disorder worsens upon exposure to {answer}", "seizures were provoked by {answer}"),
    ),
)

_DRUG = Kind(
    subject="{name} acid",
    opening="{subject} is an orally available agent",
    relations=_relations(
        "molecule",
        ("What is the molecular target of {subject}?", "Which protein is inhibited by {subject}?",
         "the molecular pocket is that of {answer}", "{subject} acts as an antagonist of {answer}"),
        ("Which enzyme metabolizes {subject}?", "Which cytochrome degrades {subject}?",
         "the liver metabolizes it via {answer}", "oxidation is performed by {answer}"),
        ("Which transporter carries {subject}?", "What mediates the uptake of {subject}?",
         "the intestinal transporter is {answer}", "entry across membranes occurs via {answer}"),
        ("What is the antidote of {subject}?", "What reverses the toxicity of {subject}?",
         "the antidote in overdose is {answer}", "poisoned animals recovered after {answer}"),
        ("Which mutation confers resistance to {subject}?", "What makes tumours insensitive to {subject}?",
         "resistance in clones is due to {answer}", "refractory cells amplify {answer}"),
        ("Which drug is combined with {subject}?", "What is the synergistic partner of {subject}?",
         "survival is longer when combined with {answer}", "the regimen adds {answer} to {subject}"),
    ),
)

_PROTEIN = Kind(
    subject="the {name} protein",
    opening="{subject} is expressed in many tissues",
    relations=_relations(
        "molecule",
        ("Which kinase phosphorylates {subject}?", "What adds a phosphate to {subject}?",
         "serine is modified by the kinase {answer}", "{subject} is a substrate of {answer}"),
        ("Which ligand activates {subject}?", "What is the agonist of {subject}?",
         "the ligand in plasma is {answer}", "dimerization follows binding to {answer}"),
        ("Which chaperone folds {subject}?", "What stabilizes {subject}?",
         "the chaperone after heat shock is {answer}", "conformation is maintained by {answer}"),
        ("Which ligase ubiquitinates {subject}?", "What promotes degradation of {subject}?",
         "the proteasomal ligase is {answer}", "half life is shortened by {answer}"),
        ("Which transcription factor regulates {subject}?", "What controls the expression of {subject}?",
         "transcription is driven by {answer}", "messenger levels fall upon silencing of {answer}"),
        ("Which receptor interacts with {subject}?", "What is the binding partner of {subject}?",
         "the receptor in pulldown of {subject} is {answer}", "yeast screens identified a complex with {answer}"),
    ),
)

# fmt: on

DOMAIN_KINDS: dict[str, tuple[Kind, ...]] = {
    "squad": (_OPERA, _BUILDING, _TOWN),
    "bioasq": (_DISEASE, _DRUG, _PROTEIN),
}
