"""The random-number generators that training draws from: seeding, keeping and restoring them."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

__all__ = ["restore_generators", "seed_everything", "state_of_generators"]


def seed_everything(seed: int) -> None:
    """Seeds every generator that a training step may draw from."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (libraries draw from it; our own code does not)
    torch.manual_seed(seed)


def state_of_generators(device: str) -> dict[str, Any]:
    """The states of all generators that a training step on `device` may draw from."""
    states: dict[str, Any] = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}  # noqa: NPY002
    return states if device == "cpu" else {**states, "cuda": torch.cuda.get_rng_state(device)}


def restore_generators(states: dict[str, Any], device: str) -> None:
    """Puts the generators back where `state_of_generators` found them."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["torch"].cpu())
    if "cuda" in states and device != "cpu":
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
