"""Claims on the other systems: which trials they are judged on, and both verdicts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from results.claims import VARIANT_CLAIMS, Claim, claims_table
from results.claims_variants import between, extremes, stages_pay_more
from results.grid import load_grid
from results.ledger import Ledger
from results.parts import attempt_part, write_part
from results.trial_settings import TrialSettings

AT = datetime(2026, 1, 5, tzinfo=UTC)
DOMAINS = ("squad", "bioasq")
NUM_EXAMPLES = 40

USUAL: dict[str, dict[str, Any]] = {
    "distilbert": {"model.n_layers": 3},
    "moe_variants": {
        "model.router": "st_top2",
        "model.num_experts": 8,
        "model.balance_loss_coef": 1e-2,
        "model.router_z_loss_coef": 1e-3,
        "model.freeze": "none",
    },
    "adapters": {
        "model.method": "molora",
        "model.num_experts": 10,
        "model.rank": 4,
        "model.merging": "soft",
        "model.routing_input": "token",
        "model.balance_loss_coef": 0.0,
    },
}


def write_grid(storage: Path, trials: Sequence[tuple[Mapping[str, Any], int]]) -> Ledger:
    """Completed trials by their settings (with `architecture`, and what of `USUAL` differs) and right answers in 40."""
    plans = []
    for number, (settings, right) in enumerate(trials):
        architecture = settings["architecture"]
        every = {"training.epochs": 3, "training.batch_size": 16, **USUAL[architecture], **settings}
        config: dict[str, dict[str, Any]] = {}
        for name, value in every.items():
            section, _, setting = name.partition(".")
            if setting:
                config.setdefault(section, {})[setting] = value
        key = f"{number:016x}"
        plans.append(
            {
                "trial_key": key,
                "sweep_id": "grid-1",
                "sweep_kind": "grid",
                "planned_at": AT,
                "trainable": f"{architecture}:number={number}",
                "architecture": architecture,
                "seed": 0,
                "config": json.dumps(config),
                "data_fingerprint": "f" * 64,
                "domains": list(DOMAINS),
                "domain_examples": [300, 200],
                "squad_share": 60,
                "data_order": "shuffled",
                "mixture_size": 500,
            }
        )
        write_scores(storage, key, right)
    write_part(storage, "plans", "grid-1", plans)
    return Ledger(storage)


def write_scores(storage: Path, key: str, right: int) -> None:
    part = attempt_part(key, 1)
    write_part(storage, "attempts", part, [{"trial_key": key, "attempt": 1, "sweep_id": "grid-1", "status": "completed"}])
    ids = {"trial_key": key, "attempt": 1}
    scores = [
        {**ids, "step": 9, "split": "test", "domain": domain, "em": 100 * right / NUM_EXAMPLES, "f1": 50.0}
        for domain in DOMAINS
    ]
    write_part(storage, "evaluations", part, scores)
    answers = [
        {**ids, "domain": domain, "example_id": str(n), "group_id": str(n), "prediction": "x", "em": float(n < right)}
        for domain in DOMAINS
        for n in range(NUM_EXAMPLES)
    ]
    write_part(storage, "predictions", part, answers)


def one_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, of alternatives the least."""
    return {name: min(value) if isinstance(value, frozenset) else value for name, value in settings.items()}


def sides_of(check: partial[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of two trials that a claim sets against each other."""
    where = one_of(check.keywords["where"])
    if check.func is extremes:
        low, high = (1e-4, 1e-3) if check.keywords["setting"].endswith("rate") else (4, 16)
        return {**where, check.keywords["setting"]: low}, {**where, check.keywords["setting"]: high}
    return {**where, **one_of(check.keywords["base"])}, {**where, **one_of(check.keywords["other"])}


def test_long_training_is_judged_against_the_best_before_it_and_only_where_it_was_long(tmp_path: Path) -> None:
    mov = {"architecture": "adapters", "model.method": "mov", "model.rank": None}
    epochs = ((1, 8), (4, 34), (16, 24))  # ever worse after the fourth
    ledger = write_grid(tmp_path, [({**mov, "training.epochs": number}, right) for number, right in epochs])

    def judged() -> dict[str, Any]:
        [found] = [
            row for row in claims_table(ledger, load_grid(ledger))[0].to_pylist() if row["claim"] == "long training hurts"
        ]
        return found

    assert judged()["verdict"] == "not measured"
    assert "more than 5,000 steps" in judged()["note"]
    steps = [{"trial_key": f"{2:016x}", "attempt": 1, "step": 6000, "epoch": 16.0, "val_qa_loss": 1.0}]
    write_part(tmp_path, "reports", attempt_part(f"{2:016x}", 1), steps)
    assert judged()["absolute"] == pytest.approx(100 * (24 - 34) / NUM_EXAMPLES)
    assert judged()["verdict"] == "holds"


def test_what_recorded_configurations_leave_out_is_what_was_done_before() -> None:
    from results.trial_settings import _WHERE_ABSENT
    from trainables.config import ADDED_LATER

    asked = {name for claim in VARIANT_CLAIMS if isinstance(claim.check, partial) for name in named_by(claim.check)}
    assert {name: ADDED_LATER[name] for name in _WHERE_ABSENT} == _WHERE_ABSENT
    assert asked & set(ADDED_LATER) <= set(_WHERE_ABSENT)


def named_by(check: partial[Any]) -> set[str]:
    """Every setting that a claim names."""
    given = [value for value in check.keywords.values() if isinstance(value, dict)]
    return {name for each in given for name in each} | {str(check.keywords.get("setting"))}


PAIRED = [claim for claim in VARIANT_CLAIMS if isinstance(claim.check, partial) and claim.check.func in (between, extremes)]


@pytest.mark.parametrize("claim", PAIRED, ids=lambda claim: claim.title)
@pytest.mark.parametrize("rises", [True, False])
def test_a_claim_is_judged_on_the_trials_whose_settings_it_names(tmp_path: Path, claim: Claim, rises: bool) -> None:
    assert isinstance(claim.check, partial)
    base, other = sides_of(claim.check)
    before, after = (10, 30) if rises else (30, 10)
    ledger = write_grid(tmp_path, [(base, before), (other, after)])
    found = next(row for row in claims_table(ledger, load_grid(ledger))[0].to_pylist() if row["claim"] == claim.title)
    assert found["absolute"] == pytest.approx(50.0 if rises else -50.0)
    assert found["tested on"] == "SQuAD, BioASQ"
    low, high = claim.check.keywords["published"]
    expected = "holds" if low <= found["absolute"] <= high else "does not"
    assert found["verdict"] == expected


def test_trials_that_differ_in_anything_else_are_no_pair(tmp_path: Path) -> None:
    lora = {"architecture": "adapters", "model.method": "lora", "model.num_experts": 1}
    trials = [({**lora, "model.rank": 4}, 10), ({**lora, "model.rank": 16, "training.epochs": 5}, 20)]
    ledger = write_grid(tmp_path, trials)
    settings = TrialSettings(ledger, load_grid(ledger))
    assert settings.pairs({"model.rank": 4}, {"model.rank": 16}, {}) == []
    assert len(settings.pairs({"model.rank": 4, "training.epochs": 3}, {"model.rank": 16, "training.epochs": 5}, {})) == 1
    assert settings.values("model.rank", {"model.method": "lora"}) == [4, 16]


def test_a_setting_that_a_configuration_lacks_has_the_value_of_its_time(tmp_path: Path) -> None:
    old = {"architecture": "distilbert"}
    ledger = write_grid(tmp_path, [(old, 10), ({**old, "model.reinit_k": 4}, 20)])
    settings = TrialSettings(ledger, load_grid(ledger))
    [(first, second)] = settings.pairs({"model.reinit_k": 0}, {"model.reinit_k": 4}, {"training.select": "last"})
    assert first.trial_key < second.trial_key


@pytest.mark.parametrize(("moe_after", "verdict"), [(36, "holds"), (12, "does not")])
def test_what_a_stage_adds_with_experts_is_set_against_what_it_adds_without(
    tmp_path: Path, moe_after: int, verdict: str
) -> None:
    moe, dense = ({"architecture": name} for name in ("moe_variants", "distilbert"))
    mixed = {"model.start_from": "mixed"}
    ledger = write_grid(tmp_path, [(moe, 10), ({**moe, **mixed}, moe_after), (dense, 10), ({**dense, **mixed}, 20)])
    table, _ = claims_table(ledger, load_grid(ledger))
    [found] = [row for row in table.to_pylist() if "stage on the mixture" in row["claim"]]
    assert found["absolute"] == pytest.approx(100 * (moe_after - 10 - 10) / NUM_EXAMPLES)
    assert found["verdict"] == verdict
    assert any(claim.check.func is stages_pay_more for claim in VARIANT_CLAIMS if isinstance(claim.check, partial))


def test_claims_are_asked_of_grids_that_have_their_trainables(tmp_path: Path) -> None:
    ledger = write_grid(tmp_path, [({"architecture": "distilbert"}, 10)])
    families = set(claims_table(ledger, load_grid(ledger))[0].column("family").to_pylist())
    assert not families & {"ensembles", "experts", "adapters"}
    assert "tuned" in families
