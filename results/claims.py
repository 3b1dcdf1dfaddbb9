"""The paper's claims as named checks: our value beside the paper's, both readings of a percentage, interval, p, verdict.

A claim is added in one place, `CLAIMS`; its check takes the evidence and yields a finding for each domain or pair of domains
it is judged on. `results.claims_evidence` says what the verdicts mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from results import claims_grid, claims_search, claims_training, claims_variants, paper
from results.claims_evidence import LEVEL_UNITS, Evidence, Finding
from results.comparisons import is_of_two_domains
from results.grid import Grid, ratio
from results.ledger import Ledger
from results.paper_variants import ENSEMBLE_ROWS
from results.readable import interval_text, p_text
from results.search import Search, load_search, search_ids
from results.statistics import ALPHA, Estimate, holm

__all__ = ["CLAIMS", "Claim", "claims_table", "claims_text", "exbert_search"]

Check = Callable[[Evidence], Iterator[Finding]]


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and how it is checked."""

    family: str
    """Holm's correction is over the tested claims of one family."""
    title: str
    paper: str
    """What the paper says, in a few words."""
    source: str
    check: Check
    about: str = ""
    """The trainable that it is about, without which it is not asked; empty: the ExBERT paper's mixture of two domains."""

    def is_asked(self, grid: Grid) -> bool:
        """Whether a grid of this kind can say anything on it."""
        if not self.about:
            return is_of_two_domains(grid)
        return any(name.partition(":")[0] == self.about for name in grid.trainables)


def _levels() -> Iterator[Claim]:
    for level in paper.LEVELS:
        trained = ("full set, " if level.full_set else "") + ratio(level.share)
        title = f"EM of {paper.model_title(level.trainable)}, {trained}"
        shown = f"{'at least ' if level.at_least else ''}{level.em:.0f} %"
        yield Claim("levels", title, shown, level.section, partial(claims_grid.check_level, level=level))


def _gains() -> Iterator[Claim]:
    families = {paper.TUNED: "tuned", paper.UNTUNED: "untuned", None: "orders"}
    for gain in paper.GAINS:
        check = partial(claims_grid.check_gain, gain=gain)
        yield Claim(families[gain.trainable], gain.title, gain.shown, gain.section, check)


_ROW_OF = {row.title: row for row in ENSEMBLE_ROWS}
_BETTER, _WORSE = (0, math.inf), (-math.inf, 0)
_ALIKE = (-1.2, 1.2)
"""EM points: less than the smallest difference from which document B concludes anything, 1.3."""

_EXPERTS, _ADAPTERS, _ENSEMBLE = "moe_variants", "adapters", "gated_ensemble"
_MIXED = {"model.num_experts": frozenset(range(2, 61))}


def _of_ensembles(title: str, row: str, shown: str, published: tuple[float, float], *, inside: bool = False) -> Claim:
    check = partial(claims_variants.ensemble_row, row=_ROW_OF[row], published=published, inside=inside)
    return Claim("ensembles", title, shown, "Sesame Street Ensemble, Table 1", check, _ENSEMBLE)


def _of_experts(title: str, shown: str, source: str, check: Callable[..., Iterator[Finding]], **given: Any) -> Claim:
    where = {"architecture": _EXPERTS, **given.pop("where", {})}
    return Claim("experts", title, shown, f"FLAN-MoE, {source}", partial(check, where=where, **given), _EXPERTS)


def _of_adapters(title: str, shown: str, source: str, check: Callable[..., Iterator[Finding]], **given: Any) -> Claim:
    where = {"architecture": _ADAPTERS, **given.pop("where", {})}
    return Claim("adapters", title, shown, f"MoV/MoLoRA, {source}", partial(check, where=where, **given), _ADAPTERS)


_EC, _ST = ({"model.router": name} for name in ("expert_choice", "st_top2"))
_BALANCE = {"model.balance_loss_coef": 1e-2, "model.router_z_loss_coef": 0.0}
_Z = {"model.balance_loss_coef": 0.0, "model.router_z_loss_coef": 1e-3}
_FREE = {"model.freeze": "none"}
_SOFT = {"model.merging": "soft"}

VARIANT_CLAIMS = (
    _of_ensembles("a gated ensemble is below the joint baseline", "gated ensemble", "-1.3", _WORSE),
    _of_ensembles("a fourth epoch changes nothing", "4 epochs", "0.0", _ALIKE, inside=True),
    _of_ensembles("four blocks drawn again cost", "4 blocks drawn again", "-1.8", _WORSE),
    _of_ensembles("an ensemble of such experts is near the baseline", "gated ensemble of experts with 4 blocks drawn again",
                  "-0.2", _ALIKE, inside=True),
    _of_experts("expert choice beats GShard's top-2", "40.3 over 38.3", "routing", claims_variants.between,
                base={"model.router": "gshard_top2"}, other=_EC, published=_BETTER),
    _of_experts("ST-MoE's top-2 is like expert choice", "40.4 and 40.3", "routing", claims_variants.between,
                base=_EC, other=_ST, published=_ALIKE, inside=True),
    _of_experts("a frozen gate helps a little", "+0.3, +0.4", "Table 2", claims_variants.between,
                base=_FREE, other={"model.freeze": "gate"}, published=_BETTER),
    _of_experts("frozen experts hurt", "-1.5, -0.5", "Table 2", claims_variants.between,
                base=_FREE, other={"model.freeze": "expert"}, published=_WORSE),
    _of_experts("frozen expert layers hurt", "-1.5, -0.9", "Table 2", claims_variants.between,
                base=_FREE, other={"model.freeze": "moe"}, published=_WORSE),
    _of_experts("expert choice: balance loss over z-loss", "38.3 over 36.8", "Table 2", claims_variants.between,
                where=_EC, base=_Z, other=_BALANCE, published=_BETTER),
    _of_experts("ST-MoE's top-2: z-loss over balance loss", "38.1 over 36.2", "Table 2", claims_variants.between,
                where=_ST, base=_BALANCE, other=_Z, published=_BETTER),
    _of_experts("more experts are better", "better", "Fig. 4", claims_variants.extremes,
                setting="model.num_experts", published=_BETTER),
    Claim("experts", "a stage on the mixture adds more with experts", "more", "FLAN-MoE, Fig. 6",
          partial(claims_variants.stages_pay_more, experts={"architecture": _EXPERTS},
                  dense={"architecture": paper.BASELINE}), _EXPERTS),
    _of_adapters("LoRA: a higher rank is better", "59.5 over 57.5", "Table 1", claims_variants.extremes,
                 where={"model.method": "lora"}, setting="model.rank", published=_BETTER),
    _of_adapters("MoV beats (IA)³", "59.9 over 52.9", "Table 1", claims_variants.between,
                 base={"model.method": "ia3", "model.num_experts": 1}, other={"model.method": "mov", **_MIXED},
                 published=_BETTER),
    _of_adapters("MoLoRA beats LoRA of its rank", "60.1 over 57.5", "Table 1", claims_variants.between,
                 base={"model.method": "lora", "model.num_experts": 1}, other={"model.method": "molora", **_MIXED},
                 published=_BETTER),
    _of_adapters("small models: MoLoRA beats MoV", "beats", "770M", claims_variants.between,
                 base={"model.method": "mov", "model.rank": None},
                 other={"model.method": "molora", "model.rank": frozenset(range(1, 65))}, published=_BETTER),
    _of_adapters("top-1 is below soft merging", "below", "ablation 2", claims_variants.between,
                 base=_SOFT, other={"model.merging": "top1"}, published=_WORSE),
    _of_adapters("top-2 is below soft merging", "below", "ablation 2", claims_variants.between,
                 base=_SOFT, other={"model.merging": "top2"}, published=_WORSE),
    _of_adapters("a balance loss lowers top-2", "lower", "ablation 3", claims_variants.between,
                 where={"model.merging": "top2"}, base={"model.balance_loss_coef": 0.0},
                 other={"model.balance_loss_coef": 1e-2}, published=_WORSE),
    _of_adapters("routing by the sentence is worse than by the token", "worse", "ablation 1", claims_variants.between,
                 base={"model.routing_input": "token"}, other={"model.routing_input": "sentence"}, published=_WORSE),
    _of_adapters("a small batch beats a large one", "small batches are stable", "sensitivity", claims_variants.extremes,
                 setting="training.batch_size", published=_WORSE),
    _of_adapters("long training hurts", "beyond 5,000 steps", "sensitivity", claims_variants.long_training,
                 least_steps=5000),
    _of_adapters("a low rate beats a high one", "small rates are stable", "sensitivity", claims_variants.extremes,
                 setting="training.learning_rate", published=_WORSE),
)  # fmt: skip
"""Those of the papers on the other systems, by trainable."""

CLAIMS: tuple[Claim, ...] = (
    *_levels(),
    *_gains(),
    Claim("tuned", "tuned ExBERT over V-DB at every ratio", "all", "§3.4", claims_grid.ahead_everywhere),
    Claim("untuned", "untuned ExBERT similar to V-DB", "similar", "§3.3", claims_grid.similar_untuned),
    Claim("untuned", "untuned ExBERT like V-DB on one whole data set", "no difference", "§3.1",
          claims_grid.contest_on_full_sets),
    Claim("untuned", "untuned ExBERT gains on SQuAD at 80:20", "10 %", "§3.3",
          partial(claims_grid.step_to_80, domain_index=0, low=10, high=10)),
    Claim("untuned", "untuned ExBERT declines on BioASQ at 80:20", "steeply", "§3.3",
          partial(claims_grid.step_to_80, domain_index=1, low=-math.inf, high=0)),
    Claim("orders", "the order of a mixture matters little", "minimal", "§3.2", claims_grid.order_matters_little),
    Claim("mixtures", "EM rises with the domain's share", "rises", "§3.2, Fig. 3", claims_grid.rises_with_share),
    Claim("mixtures", "BioASQ is best at 0:100", "best", "§3.2", claims_grid.best_alone),
    Claim("mixtures", f"V-DB keeps at {ratio(paper.RETAINED_SHARE)} of its EM at 0:100", f"{paper.RETAINED_PERCENT:.0f} %",
          "§3.2", claims_grid.retained_share),
    Claim("mixtures", "SQuAD gains slow between 80:20 and 100:0", "slower", "§3.2", claims_grid.gains_slow),
    Claim("answers", "V-DB's answers are longer", "longer", "§3.4, Table 1", claims_grid.answers_longer),
    Claim("answers", "V-DB's answers contain the true one and more", "often", "§3.4, Table 1",
          claims_grid.answers_contain_gold),
    Claim("training", "ExBERT's loss is lowest at epoch 2", "2", "§4",
          partial(claims_training.lowest_loss_epoch, tuned=True, epoch=2)),
    Claim("training", "V-DB's loss is lowest at epoch 3", "3", "§4",
          partial(claims_training.lowest_loss_epoch, tuned=False, epoch=3)),
    Claim("training", "ExBERT's loss is lowest earlier", "33 %", "§4", claims_training.lowest_loss_earlier),
    Claim("settings", "removing blocks raises the loss", "raises", "§3.4, Fig. 4", claims_search.blocks_lower_loss),
    Claim("settings", "with 3 or 4 blocks both losses track closely", "closer", "§3.4, Fig. 4",
          claims_search.few_blocks_track_closely),
    Claim("settings", "with 5 or 6 blocks the loss rises again", "rises", "§3.4, Fig. 4", claims_search.few_blocks_rise_less),
    Claim("settings", "5 times the learning rate has the lowest loss", "5 times", "§3.4, Fig. 5",
          claims_search.best_learning_rate),
    Claim("settings", "high learning rates overfit", "severe", "§3.4, Fig. 5", claims_search.high_rates_overfit),
    Claim("settings", "dropout before the experts lowers the loss", "< 0.5 %", "§3.4", claims_search.dropout_before_helps),
    Claim("settings", "dropout of 0.3 raises the loss", "higher", "§3.4", claims_search.heavy_dropout_hurts),
    Claim("settings", "the number of experts matters little", "minimal", "§3.4", claims_search.experts_matter_little),
    Claim("settings", "the search beats its random configurations", "–", "Yang et al. 2020", claims_search.best_over_random),
    *VARIANT_CLAIMS,
)  # fmt: skip
"""Every claim, in the order of the table."""


def claims_table(ledger: Ledger, grid: Grid, search: Search | None = None) -> tuple[pa.Table, list[str]]:
    """One row per claim and what it was tested on, and notes on the examples, the noise floor and missing trials.

    `absolute` is in `unit`, `relative` in percent. p is that of no difference; Holm's correction is over a family, and a claim
    of a difference holds only where that leaves p below 0.05.
    """
    evidence = Evidence(ledger, grid, search)
    found = [(claim, finding) for claim in CLAIMS if claim.is_asked(grid) for finding in claim.check(evidence)]
    adjusted = _adjusted(found)
    rows = [_row(claim, _corrected(finding, p), p) for (claim, finding), p in zip(found, adjusted, strict=True)]
    table = pa.Table.from_pylist(rows, schema=_SCHEMA)
    verdicts = table.column("verdict").to_pylist()
    counts = ", ".join(f"{words}: {verdicts.count(verdict)}" for verdict, words in _COUNTED.items() if verdict in verdicts)
    why = "; the note of each `not measured` says what it takes" if "not measured" in verdicts else ""
    notes = [f"{len(verdicts)} checks: {counts}{why}", *evidence.examples.notes(), evidence.floor.describe()]
    return table, [*notes, *evidence.lenders, *grid.missing()]


_COUNTED = {"holds": "hold", "does not": "do not hold", "within noise": "within noise", "not measured": "not measured"}
"""How many findings have a verdict, in words."""


def claims_text(table: pa.Table) -> pa.Table:
    """The table for people: values with their intervals in one cell, without the columns that repeat."""
    rows = [
        {
            "claim": row["claim"],
            "tested on": row["tested on"],
            "paper": row["paper"],
            "ours": row["ours"],
            "absolute": _value_text(row, "absolute", row["unit"]),
            "relative": _value_text(row, "relative", "%"),
            "p": p_text(row["p"]),
            "Holm p": p_text(row["holm p"]),
            "verdict": row["verdict"] + (f" ({row['holds as']})" if row["holds as"] in ("absolute", "relative") else ""),
            "note": row["note"],
        }
        for row in table.to_pylist()
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, pa.string()) for name in _TEXT_COLUMNS]))


def exbert_search(ledger: Ledger) -> Search | None:
    """The newest search of ExBERT's settings, which the claims on settings are about; None where there is none."""
    searches = (load_search(ledger, sweep_id) for sweep_id in search_ids(ledger))
    return next((search for search in searches if search.trainable.startswith(paper.UNTUNED)), None)


def _adjusted(found: list[tuple[Claim, Finding]]) -> list[float | None]:
    adjusted: list[float | None] = [None] * len(found)
    for family in dict.fromkeys(claim.family for claim, _ in found):
        places = [index for index, (claim, _) in enumerate(found) if claim.family == family]
        p_values = [found[index][1].p if found[index][1].rests_on_p else None for index in places]
        for index, p in zip(places, holm(p_values), strict=True):
            adjusted[index] = p
    return adjusted


def _corrected(finding: Finding, adjusted: float | None) -> Finding:
    if finding.verdict != "holds" or adjusted is None or adjusted < ALPHA:
        return finding
    note = "; ".join(filter(None, (finding.note, "not after Holm's correction")))
    return replace(finding, verdict="within noise", holds_as="", note=note)


def _row(claim: Claim, finding: Finding, adjusted: float | None) -> dict[str, Any]:
    return {
        "family": claim.family,
        "claim": claim.title,
        "tested on": finding.tested_on,
        "paper": claim.paper,
        "ours": finding.ours,
        "unit": finding.unit,
        **_bounds("absolute", finding.absolute),
        **_bounds("relative", finding.relative),
        "p": finding.p,
        "holm p": adjusted,
        "verdict": finding.verdict,
        "holds as": finding.holds_as,
        "source": claim.source,
        "note": finding.note,
    }


def _bounds(name: str, found: Estimate | None) -> dict[str, float | None]:
    if found is None:
        return {}
    return {name: found.value, f"{name} low": found.low, f"{name} high": found.high}


def _value_text(row: dict[str, Any], name: str, unit: str) -> str:
    text = interval_text(row[name], row[f"{name} low"], row[f"{name} high"], signed=unit not in LEVEL_UNITS)
    return f"{text} {unit}" if text else ""


_TEXT_COLUMNS = ("claim", "tested on", "verdict", "paper", "ours", "absolute", "relative", "p", "Holm p", "note")
_NUMBERS = ("absolute", "absolute low", "absolute high", "relative", "relative low", "relative high", "p", "holm p")
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("family", "claim", "tested on", "paper", "ours", "unit")),
        *((name, pa.float64()) for name in _NUMBERS),
        *((name, pa.string()) for name in ("verdict", "holds as", "source", "note")),
    ]
)
