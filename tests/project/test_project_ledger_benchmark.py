"""The ledger's benchmark: the same sweeps from the same seed, and every contender that is installed gives the same answers."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from results.compact import compact
from results.ledger import Ledger

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
EXPRESSED_BY_ALL = {"best", "curve", "mean curve", "scores", "experts"}


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    names = ("child", "data", "goals", "markdown", "ours", "peers", "queries", "questions")
    yield SimpleNamespace(**{name: importlib.import_module(f"ledger_{name}") for name in names})
    for name in set(sys.modules) - before:
        if name.startswith("ledger_"):
            del sys.modules[name]


@pytest.fixture
def ledger(benchmark: Any, tmp_path: Path) -> Path:
    place = tmp_path / "ledger"
    benchmark.ours.Ours().load(place, benchmark.data.make_sweeps(1, seed=3))
    return place


def test_the_same_seed_gives_the_same_rows(benchmark: Any) -> None:
    first, again, other = (next(benchmark.data.make_sweeps(1, seed)) for seed in (3, 3, 4))
    assert first == again
    assert first["reports"] != other["reports"]


def test_sweeps_have_superseded_rows_and_failures(benchmark: Any, ledger: Path) -> None:
    rows = Ledger(ledger)
    [counts] = rows.sql("SELECT (SELECT count(*) FROM all_reports) AS stored, count(*) AS current FROM reports").to_pylist()
    assert 0 < counts["current"] < counts["stored"]
    assert {row["status"] for row in rows.table("trials").to_pylist()} >= {"completed", "stopped", "failed"}


@pytest.mark.parametrize("name", ["Optuna journal", "Ray CSV", "TensorBoard"])
def test_a_peer_answers_as_the_ledger_does(benchmark: Any, ledger: Path, tmp_path: Path, name: str) -> None:
    peer = benchmark.peers.CONTENDERS[name]
    missing = importlib.import_module("ledger_contender").missing_packages(peer)
    if missing:
        pytest.skip(f"needs {' '.join(missing)}")
    peer_place, asked = tmp_path / "peer", benchmark.data.asked(seed=3)
    peer_place.mkdir()
    peer.load(peer_place, benchmark.data.make_sweeps(1, seed=3))
    ours, theirs = benchmark.peers.CONTENDERS["ledger"].open(ledger, asked), peer.open(peer_place, asked)
    assert theirs.keys() >= EXPRESSED_BY_ALL
    for question, ask in theirs.items():
        assert benchmark.queries.same_rows(ours[question](), ask()), question


def test_every_question_has_rows_also_after_compaction(benchmark: Any, ledger: Path) -> None:
    asked = benchmark.data.asked(seed=3)
    before = {name: ask() for name, ask in benchmark.peers.CONTENDERS["ledger"].open(ledger, asked).items()}
    assert list(before) == [question.name for question in benchmark.questions.QUESTIONS]
    compact(ledger)
    for name, ask in benchmark.peers.CONTENDERS["ledger"].open(ledger, asked).items():
        assert before[name], name
        assert benchmark.queries.same_rows(before[name], ask()), name


def test_different_answers_are_told_apart(benchmark: Any) -> None:
    same_rows = benchmark.queries.same_rows
    assert same_rows([("a", 1.0)], [("a", 1.0 + 1e-7)])  # single precision
    assert not same_rows([("a", 1.0)], [("a", 1.001)])
    assert not same_rows([("a", 1.0)], [("b", 1.0)])
    assert not same_rows([("a", 1.0)], [])


def test_a_process_that_fails_is_one_line(benchmark: Any) -> None:
    with pytest.raises(benchmark.child.ChildError, match=r"FileNotFoundError: .*no-such-place"):
        benchmark.child.in_child(Path.read_bytes, Path("/no-such-place"), limit_seconds=60)
