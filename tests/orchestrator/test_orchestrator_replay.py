"""Replaying a recorded trial: the same bits on the same machine, and a clear answer where they differ."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from orchestrator.errors import SweepError
from orchestrator.replay import compare_rows, replay_trial
from results.ledger import Ledger
from results.parts import write_part

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def completed(tmp_path: Path, preset_file: Callable[..., Path], cli: Cli) -> tuple[Path, str]:
    """A storage with one completed trial, and its key."""
    storage = tmp_path / "storage"
    preset = preset_file(trainables=["exbert"], shares=[60], orders=["shuffled"])
    code, _, err = cli("grid", "--preset", str(preset), "--storage", str(storage), "--backend", "inline")
    assert code == 0, err
    return storage, Ledger(storage, must_exist=False).sql("SELECT trial_key FROM trials").to_pylist()[0]["trial_key"]


def test_a_replayed_trial_is_identical_and_leaves_the_storage_as_it_was(completed: tuple[Path, str], cli: Cli) -> None:
    storage, key = completed
    before = sorted(path for path in (storage / "ledger").rglob("*"))
    code, out, _ = cli("replay", key, "--storage", str(storage))
    assert code == 0, out
    assert f"{key}: identical to the bit" in out
    assert "predictions: 24 rows, identical" in out
    assert sorted(path for path in (storage / "ledger").rglob("*")) == before


def test_a_record_that_was_changed_is_found_out(completed: tuple[Path, str], cli: Cli) -> None:
    storage, key = completed
    [part] = (storage / "ledger" / "reports").glob("*.parquet")
    rows = pq.read_table(part).to_pylist()
    rows[2]["train_qa_loss"] += 0.5
    write_part(storage, "reports", part.stem, rows)
    code, out, _ = cli("replay", key, "--storage", str(storage))
    assert code == 1
    assert "reports.train_qa_loss: " in out
    assert "DIFFERENT, and nothing that was recorded explains it" in out


def test_only_a_completed_trial_of_the_ledger_is_replayed(completed: tuple[Path, str]) -> None:
    with pytest.raises(SweepError, match=r"trial 0123 is not in the ledger; `python -m results table trials` lists the keys"):
        replay_trial("0123", completed[0], print)


def test_a_trial_of_another_version_is_not_replayed(completed: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.exbert.config.VERSION", 99)
    with pytest.raises(SweepError, match="exbert version 2, and this is version 99"):
        replay_trial(completed[1], completed[0], print)


def rows(**changes: Any) -> list[dict[str, Any]]:
    return [{"trial_key": "k", "step": 5, "val_qa_loss": 1.25, "em": 40.0, **changes}]


def test_rounding_is_within_the_tolerance_and_more_is_not() -> None:
    assert compare_rows("evaluations", rows(), rows()) == (0, [])
    assert compare_rows("evaluations", rows(), rows(val_qa_loss=1.2505)) == (1, [])
    assert compare_rows("evaluations", rows(), rows(em=41.5)) == (1, [])
    assert compare_rows("evaluations", rows(), rows(val_qa_loss=1.26)) == (
        1,
        ["evaluations.val_qa_loss: 1.25 was recorded, 1.26 now"],
    )
    assert compare_rows("evaluations", rows(), [])[1] == ["evaluations: 1 rows were recorded, 0 now"]
