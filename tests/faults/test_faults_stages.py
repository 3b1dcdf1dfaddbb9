"""Trials that begin from others: the order, what is blocked, and kills at the seam between the stages. Real drivers, forked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from campaign import SMALL, Campaign, Tally
from drivers import DriverServer, grid

from results.ledger import Ledger

STAGED: dict[str, Any] = {
    **SMALL,
    "trainables": ["gated_ensemble:logits", "gated_ensemble:probabilities"],
    "shares": [60],
    "orders": ["shuffled"],
}
"""Two ensembles, which have their two experts in common."""


@pytest.fixture(scope="module")
def staged(
    server: DriverServer, tally: Tally, tmp_path_factory: pytest.TempPathFactory, write_preset: Callable[..., Path]
) -> Campaign:
    folder = tmp_path_factory.mktemp("staged")
    return Campaign.of(server, grid(write_preset(folder, **STAGED)), folder, tally)


def told(storage: Path, columns: str, order: str = "ALL") -> list[tuple[Any, ...]]:
    table = Ledger(storage).sql(f"SELECT {columns} FROM trials ORDER BY {order}")
    return [tuple(row.values()) for row in table.to_pylist()]


def test_parents_are_trained_once_and_before_their_children(staged: Campaign) -> None:
    storage = staged.folder / "golden"
    rows = told(storage, "stage, architecture, squad_share, len(parent_keys)")
    assert rows == [
        (1, "distilbert", 0, 0),
        (1, "distilbert", 100, 0),
        (2, "gated_ensemble", 60, 2),
        (2, "gated_ensemble", 60, 2),
    ]
    assert len({parents for (parents,) in told(storage, "array_to_string(parent_keys, ' ')", "stage") if parents}) == 1
    [(late,)] = told(storage, "max(finished_at) FILTER (stage = 1) <= min(started_at) FILTER (stage = 2)", "1")
    assert late
    loads = Ledger(storage).sql("SELECT count(*) AS n, round(sum(mean_gate), 6) AS gates FROM routing WHERE split = 'test'")
    assert loads.to_pylist() == [{"n": 8, "gates": 4.0}]  # two trials, domains and experts


def test_kills_anywhere_leave_the_undisturbed_ledger(staged: Campaign) -> None:
    """Also between a parent's final weights, its completion, and its child's start."""
    names = staged.recording.names
    seam = [place for place, (kind, _) in enumerate(names) if kind == "checkpoints/*/final.safetensors"]
    beside = sorted({place + step for place in seam[:2] for step in (0, 1, 2, 3)})
    assert staged.kill_at_boundaries(beside, empty=False) == []
    assert staged.kill_at_moments(3, in_a_row=3, empty=False) == []


def test_a_failed_parent_blocks_its_children_and_retrying_it_frees_them(
    staged: Campaign, faulty: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    storage = staged.storage()
    ended = staged.server.run(staged.command, storage, environment=faulty("raise", architecture="distilbert", times=2))
    assert ended.status == 1
    [failed] = Ledger(storage).sql("SELECT trial_key FROM trials WHERE status = 'failed'").to_pylist()
    key = failed["trial_key"]
    assert f"2 trials are blocked: they begin from {key}" in ended.stderr
    assert told(storage, "stage, status") == [(1, "completed"), (1, "failed"), (2, "planned"), (2, "planned")]

    again = staged.server.run(staged.command, storage)  # runs nothing, and says why
    assert again.status == 1
    assert f"2 trials are blocked: they begin from {key}" in again.stderr

    sweep = next((storage / "sweeps").glob("grid-*")).name
    freed = staged.server.run(["retry", "--failed", sweep], storage)
    assert freed.status == 0, freed.stderr
    assert staged.compare(storage, []) == []


def test_weights_that_children_need_are_kept_whatever_is_asked_for(
    staged: Campaign, write_preset: Callable[..., Path], tmp_path: Path
) -> None:
    storage = staged.storage()
    kept = {**STAGED["recovery"], "keep_checkpoints": "none"}
    preset = write_preset(tmp_path, **{**STAGED, "recovery": kept})
    assert staged.server.run(grid(preset), storage).status == 0
    [parents] = {parents for (parents,) in told(storage, "array_to_string(list_sort(parent_keys), ' ')") if parents}
    assert " ".join(sorted(path.parent.name for path in storage.glob("checkpoints/*/final.safetensors"))) == parents
    for path in storage.glob("checkpoints/*/final.safetensors"):
        path.unlink()
    more = staged.server.run([*grid(preset), "--set", "model.gate_hidden=32"], storage)
    assert more.status == 2
    assert "its weights are no longer kept, and another trial begins from them" in more.stderr
