"""Beginning from other trials' final weights."""

from __future__ import annotations

from collections.abc import Sequence

from safetensors.torch import load_file
from torch import nn

from trainables.contract import Parent
from trainables.data.errors import DataError
from trainables.training.state_files import fault_of

__all__ = ["load_parent", "take_over"]


def load_parent(model: nn.Module, parent: Parent) -> None:
    """Gives the model the parent's weights, all of them.

    Raises:
        DataError: the file is not as it was written.
    """
    if fault := fault_of(parent.weights):
        raise DataError(
            f"the final weights of {parent.key}, which this trial begins from: {parent.weights} {fault}; put them back, or "
            "remove them and run `python -m results verify --repair` to have that trial trained again"
        )
    model.load_state_dict(load_file(parent.weights))


def take_over(model: nn.Module, parents: Sequence[Parent]) -> None:
    """The same where there is a parent; without one the model stays as it is."""
    for parent in parents:
        load_parent(model, parent)
