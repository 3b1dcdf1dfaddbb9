"""What the two domains say: per kind of subject, its relations and both phrasings of each.

A question never has to share a content word with the statement that answers it ("Who composed
Tamiro?" and "the score of Tamiro is by Lodan"): the pairing is what fine-tuning on the domain
teaches. `{subject}` is the passage's entity and `{answer}` the span to extract.
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
    """A kind of subject; its relations are one another's distractors, commonest first."""

    subject: str
    """How a subject's name is introduced, with `{name}`."""
    opening: str
    """The sentence a passage starts with; it answers no question."""
    relations: tuple[Relation, ...]


def _relations(answer_type: str, *rows: tuple[str, str, str, str]) -> tuple[Relation, ...]:
    """Relations of one answer type from rows of two questions and two statements."""
    return tuple(Relation(answer_type=answer_type, questions=row[:2], statements=row[2:]) for row in rows)


_OPERA = Kind(
    subject="{name}",
    opening="{subject} is an opera in three acts",
    relations=_relations(
        "person",
        ("Who composed {subject}?", "Who wrote the music of {subject}?",
         "the score of {subject} is by {answer}", "{answer} set the tale to melody"),
        ("Who is the author of the libretto of {subject}?", "Who supplied the words for {subject}?",
         "the verses of {subject} came from {answer}", "its text was penned by {answer}"),
        ("Who conducted the premiere of {subject}?", "Who led the orchestra for {subject}?",
         "on the first night {answer} held the baton", "{answer} stood before the players"),
        ("To whom was {subject} dedicated?", "Whose honour is {subject} written in?",
         "the title page greets {answer}", "it was offered as a gift to {answer}"),
        ("Who sang the leading role in {subject}?", "Which soprano starred in {subject}?",
         "the heroine was played by {answer}", "the cast of {subject} was headed by {answer}"),
        ("Who painted the scenery of {subject}?", "Who made the backdrops for {subject}?",
         "the stage was decorated by {answer}", "its sets were drawn by {answer}"),
    ),
)

_BUILDING = Kind(
    subject="{name} Hall",
    opening="{subject} is a landmark of brick and stone",
    relations=_relations(
        "person",
        ("Who designed {subject}?", "Who was the architect of {subject}?",
         "the plans of {subject} were prepared by {answer}", "its form was conceived by {answer}"),
        ("Who paid for {subject}?", "Who financed {subject}?",
         "the cost was covered by {answer}", "money was lent by the banker {answer}"),
        ("Who inaugurated {subject}?", "Who opened {subject} to the public?",
         "the ribbon was cut by {answer}", "at the ceremony {answer} gave a speech"),
        ("Which contractor built {subject}?", "Who constructed {subject}?",
         "masonry was carried out by {answer}", "the walls were raised by {answer}"),
        ("To whom does {subject} belong?", "Who is the owner of {subject}?",
         "the deed of {subject} is held by {answer}", "it is the property of {answer}"),
        ("Who renovated {subject}?", "Who restored {subject}?",
         "after the fire {answer} repaired it", "the roof was renewed by {answer}"),
    ),
)

_TOWN = Kind(
    subject="{name}",
    opening="{subject} is a market town of the north",
    relations=_relations(
        "place",
        ("Which river flows through {subject}?", "What stream crosses {subject}?",
         "its banks are washed by {answer}", "the waters of {answer} drive the mills"),
        ("In which county is {subject} located?", "Which province does {subject} lie in?",
         "{subject} is governed as part of {answer}", "taxes are collected for {answer}"),
        ("What was {subject} formerly called?", "What is the ancient name of {subject}?",
         "old maps show it as {answer}", "the romans knew it as {answer}"),
        ("What is the twin town of {subject}?", "Which partner city does {subject} have?",
         "a friendship was signed with {answer}", "schools exchange pupils with {answer}"),
        ("Which city is reached by railway from {subject}?", "Where do trains from {subject} go?",
         "a line of iron tracks ends at {answer}", "passengers depart for {answer}"),
        ("Which mountain overlooks {subject}?", "What is the highest peak near {subject}?",
         "the summit of {answer} rises behind {subject}", "climbers start here for {answer}"),
    ),
)

_VOYAGE = Kind(
    subject="the {name} voyage",
    opening="{subject} lasted two winters at sea",
    relations=_relations(
        "person",
        ("Who commanded {subject}?", "Who was the captain of {subject}?",
         "the helm of {subject} was entrusted to {answer}", "the crew obeyed {answer}"),
        ("Who sponsored {subject}?", "Which patron funded {subject}?",
         "the ships were bought by {answer}", "gold was granted by {answer}"),
        ("Who charted the coast on {subject}?", "Who was the navigator of {subject}?",
         "the course was plotted by {answer}", "{answer} sketched the islands"),
        ("Who was the surgeon of {subject}?", "Who treated the sick on {subject}?",
         "fevers were cured by {answer}", "the medicine chest was kept by {answer}"),
        ("Who rescued {subject}?", "Who found the survivors of {subject}?",
         "help arrived with {answer}", "the stranded men were saved by {answer}"),
        ("Who chronicled {subject}?", "Who is the historian of {subject}?",
         "the diary of {subject} was published by {answer}", "{answer} told the story in a book"),
    ),
)

_DISEASE = Kind(
    subject="{name} syndrome",
    opening="{subject} is a rare inherited disorder",
    relations=_relations(
        "molecule",
        ("Which gene is mutated in {subject}?", "What is the genetic cause of {subject}?",
         "sequencing of patients revealed variants of {answer}", "pathogenic alleles of {answer} segregate with {subject}"),
        ("Which drug is used for treatment of {subject}?", "What is the recommended therapy of {subject}?",
         "a randomized trial showed efficacy of {answer}", "symptoms improved after administration of {answer}"),
        ("Which biomarker is used for diagnosis of {subject}?", "What serum marker indicates {subject}?",
         "plasma levels of {answer} discriminate cases from controls", "elevated {answer} was measured in blood"),
        ("Which enzyme is deficient in {subject}?", "What enzymatic activity is lost in {subject}?",
         "fibroblasts show no catalysis by {answer}", "assays demonstrate absence of functional {answer}"),
        ("Which autoantibody target is reported in {subject}?", "Which antigen do antibodies recognize in {subject}?",
         "immunoglobulin reactive with {answer} is detected", "sera precipitate {answer}"),
        ("Which compound worsens {subject}?", "Which agent is contraindicated in {subject}?",
         "exposure to {answer} aggravates {subject}", "seizures were provoked by {answer}"),
    ),
)

_DRUG = Kind(
    subject="{name} acid",
    opening="{subject} is an orally available agent",
    relations=_relations(
        "molecule",
        ("What is the molecular target of {subject}?", "Which protein is inhibited by {subject}?",
         "the molecule blocks the pocket of {answer}", "{subject} acts as an antagonist of {answer}"),
        ("Which enzyme metabolizes {subject}?", "Which cytochrome degrades {subject}?",
         "hepatic clearance depends on {answer}", "oxidation is performed by {answer}"),
        ("Which transporter carries {subject}?", "What mediates the uptake of {subject}?",
         "intestinal absorption requires {answer}", "entry across membranes occurs via {answer}"),
        ("What is the antidote of {subject}?", "What reverses the toxicity of {subject}?",
         "overdose is managed with {answer}", "poisoned animals recovered after {answer}"),
        ("Which mutation confers resistance to {subject}?", "What makes tumours insensitive to {subject}?",
         "relapsed clones carry altered {answer}", "refractory cells amplify {answer}"),
        ("Which drug is combined with {subject}?", "What is the synergistic partner of {subject}?",
         "coadministration with {answer} prolongs survival", "the regimen adds {answer} to {subject}"),
    ),
)

_PROTEIN = Kind(
    subject="the {name} protein",
    opening="{subject} is expressed in many tissues",
    relations=_relations(
        "molecule",
        ("Which kinase phosphorylates {subject}?", "What adds a phosphate to {subject}?",
         "serine modification depends on {answer}", "{subject} is a substrate of {answer}"),
        ("Which ligand activates {subject}?", "What is the agonist of {subject}?",
         "signalling is stimulated by {answer}", "dimerization follows binding to {answer}"),
        ("Which chaperone folds {subject}?", "What stabilizes {subject}?",
         "heat shock recruits {answer}", "conformation is maintained by {answer}"),
        ("Which ligase ubiquitinates {subject}?", "What promotes degradation of {subject}?",
         "proteasomal turnover is driven by {answer}", "half life is shortened by {answer}"),
        ("Which transcription factor regulates {subject}?", "What controls the expression of {subject}?",
         "the promoter is occupied by {answer}", "messenger levels fall upon silencing of {answer}"),
        ("Which receptor interacts with {subject}?", "What is the binding partner of {subject}?",
         "pulldown of {subject} retrieves {answer}", "yeast screens identified a complex with {answer}"),
    ),
)

_MICROBE = Kind(
    subject="{name} bacterium",
    opening="{subject} is an opportunistic pathogen",
    relations=_relations(
        "molecule",
        ("Which toxin is secreted by {subject}?", "What virulence factor does {subject} release?",
         "culture supernatants contain {answer}", "host damage is attributed to {answer}"),
        ("Which antibiotic kills {subject}?", "What is the first line treatment against {subject}?",
         "isolates are susceptible to {answer}", "infection of mice was eradicated by {answer}"),
        ("Which adhesin attaches {subject} to cells?", "What mediates colonization by {subject}?",
         "fimbriae display {answer}", "epithelial contact requires {answer}"),
        ("Which antigen is in the vaccine against {subject}?", "What elicits immunity to {subject}?",
         "volunteers were immunized with {answer}", "protective titers were raised by {answer}"),
        ("Which bacteriophage infects {subject}?", "Which virus lyses {subject}?",
         "plaques were produced by {answer}", "biofilm of {subject} is cleared by {answer}"),
        ("Which nutrient is needed by {subject}?", "What growth factor does {subject} depend on?",
         "medium must be supplemented with {answer}", "colonies are absent without {answer}"),
    ),
)

DOMAIN_KINDS: dict[str, tuple[Kind, ...]] = {
    "squad": (_OPERA, _BUILDING, _TOWN, _VOYAGE),
    "bioasq": (_DISEASE, _DRUG, _PROTEIN, _MICROBE),
}
