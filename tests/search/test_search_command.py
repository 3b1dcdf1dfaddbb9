"""The command that asks what early stopping would have saved on what was recorded."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from results.parts import attempt_part, write_part

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """Nine trials of four epochs whose losses never cross, one that took two attempts, and one of two epochs."""
    keys = [f"{number:016x}" for number in range(11)]
    epochs = dict.fromkeys(keys, 4) | {keys[10]: 2}
    plans = [{"trial_key": key, "sweep_id": "grid-1", "epochs": epochs[key], "planned_at": NOW} for key in keys]
    write_part(tmp_path, "plans", "grid-1", plans)
    for rank, key in enumerate(keys):
        attempt = 2 if key == keys[9] else 1
        for number in range(1, attempt + 1):
            status = "completed" if number == attempt else "lost"
            row = {"trial_key": key, "attempt": number, "status": status, "resumed_step": 0, "train_seconds": 40.0}
            write_part(tmp_path, "attempts", attempt_part(key, number), [row])
        rows = [
            {"trial_key": key, "attempt": attempt, "step": epoch, "epoch": float(epoch), "val_qa_loss": 1 + rank / epoch}
            for epoch in range(1, epochs[key] + 1)
        ]
        write_part(tmp_path, "reports", attempt_part(key, attempt), rows)
    return tmp_path


def test_losses_that_never_cross_cost_nothing_and_save_epochs(cli: Callable, storage: Path) -> None:
    arguments = ("--eta", "3", "--slots", "1", "--searches", "40")
    code, out, _ = cli("simulate", "--storage", str(storage), *arguments, "--json")
    assert code == 0
    rows = json.loads(out)
    assert [(row["variant"], row["eta"], row["slots"], row["searches"]) for row in rows] == [
        ("stopping", 3, 1, 40),
        ("promotion", 3, 1, 40),
    ]
    for row in rows:
        assert row["found_best"] == 1
        assert row["regret_high"] == 0
        assert 0.4 < row["epochs_saved_share_median"] <= 0.75
    code, out, err = cli("simulate", "--storage", str(storage), *arguments)
    assert out.splitlines()[0].split()[:4] == ["variant", "grace", "eta", "slots"]
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "9 recorded curves of 4 epochs, 40 orders each" in err  # neither the one of two epochs nor the one of two attempts


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--sweep", "grid-2"], "sweep grid-2 has 0 completed trials with learning curves"),
        (["--grace", "9"], "grace must be in (0, max_fidelity=4], got 9.0"),
        (["--eta", "1"], "eta must be a whole number of 2 or more, got 1"),
    ],
)
def test_what_cannot_be_simulated_is_one_clear_line(cli: Callable, storage: Path, arguments: list[str], complaint: str) -> None:
    code, _, err = cli("simulate", "--storage", str(storage), *arguments)
    assert code == 2
    assert err.startswith("error: ")
    assert complaint in err
