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
            f"{parent.weights}, the weights of trial {parent.key}, which this one begins from: the file {fault}; "
            "bring it back from a copy, or train both in a new storage"
        )
    model.load_state_dict(load_file(parent.weights))


def take_over(model: nn.Module, parents: Sequence[Parent]) -> None:
    """The same where there is a parent; without one the model stays as it is."""
    for parent in parents:
        load_parent(model, parent)
