"""What of adapters and their mixtures is varied (papers, document D, section 3.3 of the digest; axes: section 3.4)."""

from __future__ import annotations

from search_spaces.space import Choice, Space

__all__ = ["adapters_lora", "adapters_molora", "adapters_mov", "adapters_routing", "adapters_sensitivity", "adapters_steps"]

adapters_lora = Space(
    name="adapters_lora",
    trainable="adapters",
    dimensions={"model.rank": Choice([4, 8, 16])},
    fixed={"model.method": "lora", "model.num_experts": 1},
)
"""Plain LoRA at the paper's ranks. Plain (IA)3 is the variant `adapters:ia3`."""

adapters_mov = Space(
    name="adapters_mov",
    trainable="adapters",
    dimensions={"model.num_experts": Choice([2, 5, 10, 30, 60])},
    fixed={"model.method": "mov", "model.rank": None},
)
"""Mixtures of vectors; one is (IA)3."""

adapters_molora = Space(
    name="adapters_molora",
    trainable="adapters",
    dimensions={"model.num_experts": Choice([2, 5, 10, 15]), "model.rank": Choice([4, 8, 16])},
    fixed={"model.method": "molora"},
)
"""Mixtures of LoRA adapters."""

adapters_routing = Space(
    name="adapters_routing",
    trainable="adapters",
    dimensions={
        "model.routing_input": Choice(["token", "sentence"]),
        "model.merging": Choice(["soft", "top1", "top2"]),
        # The paper's weight of the load-balancing loss, and none
        "model.balance_loss_coef": Choice([0.0, 1e-2]),
    },
    fixed={"model.method": "mov", "model.num_experts": 10, "model.rank": None},
)
"""The paper's ablations on MoV-10: what is routed by, soft or discrete merging, load balancing."""

adapters_sensitivity = Space(
    name="adapters_sensitivity",
    trainable="adapters",
    dimensions={
        "model.num_experts": Choice([2, 10]),
        "training.batch_size": Choice([8, 16, 32, 64, 128]),
        "training.learning_rate": Choice([3e-5, 1e-4, 3e-4, 1e-3, 3e-3]),
    },
    fixed={"model.method": "mov", "model.rank": None},
)
"""Batch size by learning rate: the paper finds small ones of both stable."""

adapters_steps = Space(
    name="adapters_steps",
    trainable="adapters",
    dimensions={"model.num_experts": Choice([2, 10]), "training.epochs": Choice([1, 2, 4, 8, 16, 32])},
    fixed={"model.method": "mov", "model.rank": None},
)
"""How long training pays: in the paper, more than 5,000 steps degrade."""
