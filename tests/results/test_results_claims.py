"""The paper's claims: a world in which they hold, one in which models are alike, ledgers that lack trials, searches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from synthetic_answers import answers_ledger
from synthetic_ledger import synthetic_ledger

from results import paper
from results.claims import CLAIMS, claims_table, claims_text, exbert_search
from results.claims_evidence import judge_inside, judge_range
from results.grid import load_grid
from results.ledger import Ledger
from results.readable import interval_text, p_text
from results.search import load_search
from results.search_tables import search_table
from results.statistics import Estimate

_SQUAD = {0: 5.0, 20: 28.0, 40: 38.0, 60: 45.0, 80: 50.0, 100: 52.0}
_BIOASQ = {0: 64.0, 20: 64.0, 40: 63.5, 60: 63.5, 80: 46.0, 100: 40.0}
"""V-DB's EM as the paper tells it: 52 % at 100:0, little lost on BioASQ up to 60:40, slower at the end."""


def _as_published(trainable: str, share: int, order: str, domain: str) -> float:
    em = (_SQUAD if domain == "squad" else _BIOASQ)[share]
    if trainable == paper.TUNED:
        if share == 80:
            return em + (8.0 if domain == "squad" else 13.1)
        return em + 12.5
    return em


def _alike(trainable: str, share: int, order: str, domain: str) -> float:
    return 50.0


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[tuple[str, str], dict[str, Any]]]:
    """Rows of the claims table by claim and what it was tested on, of one of the two worlds."""
    worlds = {"published": _as_published, "alike": _alike}
    known: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}

    def rows(world: str) -> dict[tuple[str, str], dict[str, Any]]:
        if world not in known:
            trainables = ("distilbert", "exbert", paper.TUNED)
            storage = answers_ledger(tmp_path_factory.mktemp(world), worlds[world], trainables=trainables)
            ledger = Ledger(storage)
            table = claims_table(ledger, load_grid(ledger))[0].to_pylist()
            known[world] = {(row["claim"], row["tested on"]): row for row in table}
        return known[world]

    return rows


_BOTH = "SQuAD and BioASQ"


@pytest.mark.parametrize(
    ("claim", "tested_on", "verdict", "holds_as"),
    [
        ("EM of V-DB (DistilBERT), 100:0", "SQuAD", "holds", "absolute"),
        ("EM of ExBERT, tuned, 40:60", "SQuAD", "within noise", ""),  # 50.5 [44, 57] may be below 50
        ("EM of V-DB (DistilBERT), full set, 0:100", "SQuAD", "holds", "absolute"),
        ("EM of V-DB (DistilBERT), full set, 100:0", "SQuAD", "not measured", ""),
        ("tuned ExBERT over V-DB", _BOTH, "holds", "absolute both"),
        ("tuned ExBERT over V-DB, mixed data", _BOTH, "holds", "absolute both"),
        ("tuned ExBERT over V-DB, 80:20", "SQuAD", "holds", "absolute both"),
        ("tuned ExBERT over V-DB, 80:20", "BioASQ", "holds", "absolute"),
        ("tuned ExBERT over V-DB at every ratio", _BOTH, "holds", "both"),
        ("V-DB shuffled over concatenated, 20:80 and 40:60", _BOTH, "within noise", ""),
        ("EM rises with the domain's share", "SQuAD", "holds", "both"),
        ("EM rises with the domain's share", "BioASQ", "holds", "both"),
        ("V-DB keeps at 60:40 of its EM at 0:100", "BioASQ", "holds", ""),
        ("SQuAD gains slow between 80:20 and 100:0", "SQuAD", "holds", "both"),
        ("V-DB's answers are longer", _BOTH, "holds", "both"),
        ("V-DB's answers contain the true one and more", _BOTH, "holds", "both"),
        ("ExBERT's loss is lowest at epoch 2", "validation loss", "holds", "absolute"),
        ("V-DB's loss is lowest at epoch 3", "validation loss", "holds", "absolute"),
        ("ExBERT's loss is lowest earlier", "validation loss", "not measured", ""),
        ("removing blocks raises the loss", "validation loss", "not measured", ""),
    ],
)
def test_claims_in_a_world_as_the_paper_tells_it(
    verdicts: Callable[[str], dict[tuple[str, str], dict[str, Any]]], claim: str, tested_on: str, verdict: str, holds_as: str
) -> None:
    row = verdicts("published")[claim, tested_on]
    # Every pair has its lowest loss at 2 against 3: no resample changes that, so that p is not known.
    if claim == "ExBERT's loss is lowest earlier":
        assert row["relative"] == pytest.approx(100 / 3)
        assert row["ours"] == "epoch 2.00 against 3.00"
        return
    assert row["verdict"] == verdict, row
    # How far a mean is off in percent depends on the draw; in points the claims are met as they were put in.
    assert row["holds as"] in holds_as.split() or row["holds as"] == holds_as, row


def test_nothing_is_claimed_where_models_are_alike(verdicts: Callable[[str], dict[tuple[str, str], dict[str, Any]]]) -> None:
    rows = verdicts("alike")
    tuned = [row for row in rows.values() if row["family"] == "tuned"]
    assert len(tuned) == 5
    assert {row["verdict"] for row in tuned} <= {"does not", "within noise"}
    assert rows["tuned ExBERT over V-DB", _BOTH]["verdict"] == "does not"
    assert rows["untuned ExBERT similar to V-DB", _BOTH]["verdict"] == "holds"
    assert rows["the order of a mixture matters little", _BOTH]["verdict"] == "holds"
    assert rows["EM rises with the domain's share", "SQuAD"]["verdict"] in ("does not", "within noise")


def test_both_readings_stand_beside_each_other(verdicts: Callable[[str], dict[tuple[str, str], dict[str, Any]]]) -> None:
    row = verdicts("published")["tuned ExBERT over V-DB, 80:20", "BioASQ"]
    ours, base = (float(text) for text in row["ours"].split(" against "))
    assert row["absolute"] == pytest.approx(ours - base, abs=0.11)
    assert row["relative"] == pytest.approx(100 * (ours - base) / base, abs=0.4)
    assert row["absolute low"] < 13.1 < row["absolute high"]
    assert row["holm p"] >= row["p"]


@pytest.mark.parametrize(
    ("found", "low", "high", "noise", "verdict"),
    [
        (Estimate(10, 8, 12), 9, 13, 0, "holds"),
        (Estimate(10, 8, 12), 13.1, 13.1, 0, "does not"),
        (Estimate(7.6, 7.2, 7.7), 8, 8, 0, "holds"),  # 7.6 is printed as 8
        (Estimate(7.2, 7.0, 7.4), 8, 8, 0, "does not"),
        (Estimate(4, -3, 11), 9, 13, 0, "within noise"),
        (Estimate(10, 8, 12), 9, 13, 10.5, "within noise"),
        (Estimate(-0.3, -0.4, -0.1), 0, 1, 0, "does not"),  # zero is not rounded
        (Estimate(2.0), 2, 2, 0, "holds"),
        (None, 2, 2, 0, "not measured"),
    ],
)
def test_verdict_of_a_range(found: Estimate | None, low: float, high: float, noise: float, verdict: str) -> None:
    assert judge_range(found, low, high, noise) == verdict


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (Estimate(0.1, -0.9, 0.9), "holds"),
        (Estimate(0.1, -1.1, 0.9), "within noise"),
        (Estimate(2, 1.1, 3), "does not"),
        (None, "not measured"),
    ],
)
def test_verdict_of_smallness(found: Estimate | None, verdict: str) -> None:
    assert judge_inside(found, -1, 1) == verdict


def test_ledger_without_the_trials_says_which_it_lacks(tmp_path: Path) -> None:
    synthetic_ledger(tmp_path, trainables=("exbert",), orders=("shuffled",), shares=(20, 40))
    ledger = Ledger(tmp_path)
    table, notes = claims_table(ledger, load_grid(ledger))
    rows = table.to_pylist()
    # The one model's own curve is all that there is: its loss still falls at the last epoch.
    assert {row["claim"] for row in rows if row["verdict"] != "not measured"} == {"ExBERT's loss is lowest at epoch 2"}
    assert all(row["note"] for row in rows)
    assert {row["claim"] for row in rows} == {claim.title for claim in CLAIMS if not claim.about}
    similar = next(row for row in rows if row["claim"] == "untuned ExBERT similar to V-DB")
    assert "distilbert at 0:100, 20:80" in similar["note"]
    assert "of exbert at 0:100, 60:40, 80:20, 100:0" in similar["note"]
    assert notes[0].startswith(f"{len(rows)} checks: do not hold: 1, ")
    assert claims_text(table).num_rows == len(rows)


def test_empty_ledger_can_be_asked(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, must_exist=False)
    table, _ = claims_table(ledger, load_grid(ledger), exbert_search(ledger))
    assert {row["verdict"] for row in table.to_pylist()} == {"not measured"}


def test_claims_on_settings_come_from_the_search(searched: Path) -> None:
    ledger = Ledger(searched)
    search = load_search(ledger, "search-1")
    rows = {row["claim"]: row for row in claims_table(ledger, load_grid(ledger), search)[0].to_pylist()}
    done = [row for row in search_table(search).to_pylist() if row["state"] == "completed" and row["val_qa_loss"] is not None]
    tau = stats.kendalltau([row["model.n_layers"] for row in done], [row["val_qa_loss"] for row in done])
    assert rows["removing blocks raises the loss"]["absolute"] == pytest.approx(tau.statistic)
    assert rows["removing blocks raises the loss"]["p"] == pytest.approx(tau.pvalue)
    rate = rows["5 times the learning rate has the lowest loss"]
    assert rate["absolute"] == pytest.approx(done[0]["training.learning_rate"] / 2e-5)
    groups = [[r["val_qa_loss"] for r in done if r["model.dropout_placement"] == placement] for placement in ("none", "before")]
    dropout = rows["dropout before the experts lowers the loss"]
    if min(map(len, groups)) > 1:
        assert dropout["p"] == pytest.approx(stats.ttest_ind(*groups, equal_var=False).pvalue)
    else:
        assert dropout["verdict"] == "not measured"


def test_newest_search_of_exbert_is_the_one_that_counts(searched: Path) -> None:
    found = exbert_search(Ledger(searched))
    assert found is not None
    assert found.sweep_id == "narrowing-1"


def test_numbers_are_short_and_signed_where_they_are_differences() -> None:
    assert interval_text(1.23, -0.34, 2.71) == "+1.2 [-0.3, +2.7]"
    assert interval_text(0.0123, 0.001, 0.02) == "+0.012 [+0.001, +0.020]"
    assert interval_text(52.0, 50.0, 54.0, signed=False) == "52.0 [50.0, 54.0]"
    assert (interval_text(None, None, None), interval_text(3.0, None, None)) == ("", "+3.0")
    assert (p_text(0.0123), p_text(0.0002), p_text(None)) == ("0.012", "< 0.001", "")
