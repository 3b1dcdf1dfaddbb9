"""Checkpoint files: whole or passed over, and the older one there until the newer one is."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from storage_faults import file_size_limit

from trainables.config import QAConfig
from trainables.contract import Parent
from trainables.data.errors import DataError
from trainables.training import checkpoints
from trainables.training.parents import load_parent

OLDER, NEWER = 3, 5


def state_of(step: int) -> dict[str, object]:
    return {"model": {"weight": torch.arange(30.0) + step}, "step": step, "rate": 0.1}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A trial's folder with two checkpoints."""
    for step in (OLDER, NEWER):
        checkpoints.save(tmp_path / "trial", step, state_of(step))
    return tmp_path / "trial"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint's bytes."""
    return checkpoints.save(tmp_path_factory.mktemp("whole"), NEWER, state_of(NEWER)).read_bytes()


def replaced(directory: Path, content: bytes) -> Path:
    """The folder with other bytes in its newest checkpoint."""
    (directory / f"step-{NEWER:08d}.safetensors").write_bytes(content)
    return directory


def loaded_step(directory: Path) -> int:
    state = checkpoints.load_newest(directory, "cpu", lambda _: None)
    assert state is None or torch.equal(state["model"]["weight"], torch.arange(30.0) + state["step"])
    return state["step"] if state else 0


def test_a_checkpoint_comes_back_as_it_was_saved(directory: Path) -> None:
    assert loaded_step(directory) == checkpoints.newest_step(directory) == NEWER
    assert checkpoints.newest(directory) == directory / f"step-{NEWER:08d}.safetensors"


def test_checkpoints_and_weights_are_files_that_safetensors_reads(directory: Path) -> None:
    assert torch.equal(load_file(checkpoints.newest(directory))["model.weight"], torch.arange(30.0) + NEWER)
    model = torch.nn.Linear(2, 1)
    assert load_file(checkpoints.save_final_weights(directory, model)).keys() == model.state_dict().keys()


def test_a_checkpoint_cut_off_at_any_byte_is_passed_over(directory: Path, written: bytes) -> None:
    for length in range(len(written)):
        assert checkpoints.newest_step(replaced(directory, written[:length])) == OLDER


class Bomb:
    """Runs code where it is unpickled."""

    def __init__(self, harm: Path) -> None:
        self._harm = harm

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self._harm,)


def test_what_somebody_else_has_pickled_is_passed_over_and_runs_nothing(directory: Path, tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    pickle.loads(pickle.dumps(Bomb(harm)))
    assert harm.exists()
    harm.unlink()
    torch.save({"model": Bomb(harm), "step": NEWER}, directory / f"step-{NEWER:08d}.safetensors")
    assert loaded_step(directory) == OLDER
    torch.save(Bomb(harm), directory / checkpoints.FINAL_WEIGHTS)
    parent = Parent(
        key="k", trainable="distilbert", config=QAConfig.model_construct(), weights=directory / checkpoints.FINAL_WEIGHTS
    )
    with pytest.raises(DataError, match="the weights of trial k, which this one begins from: the file is torn or was changed"):
        load_parent(torch.nn.Linear(2, 1), parent)
    assert not harm.exists()


def test_a_checkpoint_with_any_byte_flipped_is_passed_over(directory: Path, written: bytes) -> None:
    for place in range(len(written)):
        flipped = bytearray(written)
        flipped[place] ^= 0xFF
        assert checkpoints.newest_step(replaced(directory, bytes(flipped))) == OLDER


@settings(max_examples=100, deadline=None)
@given(begin=st.integers(0, 500), length=st.integers(1, 500))
def test_a_checkpoint_with_a_zeroed_block_is_passed_over(
    tmp_path_factory: pytest.TempPathFactory, written: bytes, begin: int, length: int
) -> None:
    block = written[begin : begin + length]
    zeroed = written[:begin] + bytes(len(block)) + written[begin + length :]
    folder = tmp_path_factory.mktemp("trial")
    replaced(folder, zeroed)
    assert loaded_step(folder) == checkpoints.newest_step(folder) == (0 if any(block) else NEWER)


def test_the_step_named_is_the_step_loaded_and_one_warning_says_what_is_used_instead(directory: Path, written: bytes) -> None:
    checkpoints.save(directory, 7, state_of(7))
    (directory / "step-00000007.safetensors").write_bytes(b"")
    replaced(directory, written[:-1])
    checkpoints.save(directory, OLDER, state_of(OLDER))
    replaced(directory, written[:-1])
    (directory / "step-00000007.safetensors").write_bytes(b"")
    warnings: list[str] = []
    state = checkpoints.load_newest(directory, "cpu", warnings.append)
    assert state["step"] == checkpoints.newest_step(directory) == OLDER
    assert checkpoints.newest(directory) == directory / "step-00000003.safetensors"
    assert warnings == [
        f"unreadable checkpoints in {directory}, going on from step-00000003.safetensors: "
        "step-00000007.safetensors has only 0 bytes; "
        "step-00000005.safetensors is torn or was changed: its checksum does not match"
    ]


def test_without_a_readable_checkpoint_it_warns_and_begins_again(directory: Path) -> None:
    for path in directory.iterdir():
        path.write_bytes(b"torn")
    warnings: list[str] = []
    assert checkpoints.load_newest(directory, "cpu", warnings.append) is None
    assert "starting from the beginning: step-00000005.safetensors has only 4 bytes" in warnings[0]
    assert checkpoints.newest_step(directory) == 0
    assert checkpoints.newest(directory) is None


def test_a_checkpoint_that_may_not_be_opened_is_passed_over(directory: Path) -> None:
    path = directory / f"step-{NEWER:08d}.safetensors"
    path.unlink()
    path.mkdir()  # opening it fails for every user
    assert loaded_step(directory) == checkpoints.newest_step(directory) == OLDER


def test_a_folder_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert checkpoints.load_newest(nowhere, "cpu", pytest.fail) is None
    assert checkpoints.newest_step(nowhere) == 0
    assert checkpoints.newest(nowhere) is None
    checkpoints.remove_steps(nowhere)


def test_the_checkpoint_before_the_newest_stays_and_others_go(directory: Path) -> None:
    checkpoints.save(directory, 9, state_of(9))
    assert sorted(path.name for path in directory.iterdir()) == ["step-00000005.safetensors", "step-00000009.safetensors"]


def test_unreadable_checkpoints_of_later_steps_go_when_the_trial_comes_by_again(directory: Path) -> None:
    (directory / f"step-{NEWER:08d}.safetensors").write_bytes(b"torn")
    checkpoints.save(directory, 4, state_of(4))
    assert sorted(path.name for path in directory.iterdir()) == ["step-00000003.safetensors", "step-00000004.safetensors"]


@pytest.mark.parametrize("limit", [0, 100, 400])
def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(directory: Path, limit: int) -> None:
    before = {path: path.read_bytes() for path in directory.iterdir()}
    with file_size_limit(limit), pytest.raises(OSError, match="too large"):
        checkpoints.save(directory, 9, state_of(9))
    assert {path: path.read_bytes() for path in directory.iterdir()} == before


def test_what_a_killed_attempt_was_writing_goes_with_the_next_write(directory: Path) -> None:
    (directory / ".step-00000007.safetensors.tmp").write_bytes(b"half")
    checkpoints.save(directory, 9, state_of(9))
    assert not list(directory.glob(".*"))


def test_final_weights_stand_beside_the_checkpoints_until_these_are_removed(directory: Path) -> None:
    final = checkpoints.save_final_weights(directory, torch.nn.Linear(2, 1))
    (directory / ".step-00000007.safetensors.tmp").write_bytes(b"half")
    assert checkpoints.newest_step(directory) == NEWER
    assert checkpoints.newest(directory) == directory / f"step-{NEWER:08d}.safetensors"
    checkpoints.remove_steps(directory)
    assert list(directory.iterdir()) == [checkpoints.newest(directory)] == [final]
    assert set(torch.load(final)) == {"weight", "bias"}


def test_a_checkpoint_of_a_later_step_than_was_asked_for_is_left_alone(directory: Path) -> None:
    state = checkpoints.load_newest(directory, "cpu", pytest.fail, up_to=NEWER - 1)
    assert state is not None
    assert state["step"] == OLDER
