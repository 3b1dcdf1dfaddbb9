"""What of ExBERT is searched.

Sources: papers, document A, sections 2.1 and 3.4; "reading 2" is the second of the digest's section 1.3.
"""

from __future__ import annotations

from search_spaces.space import Choice, Condition, Dimension, Float, Int, Space

__all__ = ["DROPOUT", "LEARNING_RATE", "N_LAYERS", "TRAINING", "exbert", "exbert_extended"]

N_LAYERS = Int(3, 6)
"""Section 3.4: "3 and 4" against "5 and 6" layers, Fig 4; reading 1. Needs an encoder of 6 blocks."""

LEARNING_RATE = Float(1e-5, 1.1e-4, log=True)
"""Section 3.4: half, twice and five times 2e-5, and Fig 5: 2e-5 to 1.1e-4; reading 5: an interval that has both."""

TRAINING: dict[str, Dimension] = {
    # Reading 32 gives 16, which the paper leaves unsaid; digest, section 6: 8, 16, 32
    "training.batch_size": Choice([8, 16, 32]),
    # Reading 32 gives 0.01; section 6 names it without a range: a decade to either side
    "training.weight_decay": Float(1e-3, 1e-1, log=True),
    # Digest, section 6: none, as the paper's recipe, or a tenth of the steps
    "training.warmup_share": Choice([0.0, 0.1]),
}
"""What the paper left at its defaults, shared by the extended spaces."""

DROPOUT: dict[str, Dimension] = {
    # Section 3.4: none, before, after, both; reading 3
    "model.dropout_placement": Choice(["none", "before", "after", "both"]),
    # Section 3.4: 0.1, and "a more aggressive dropout of 0.3"; reading 4: for every placement
    "model.moe_dropout": Choice([0.1, 0.3], when=Condition("model.dropout_placement", ["before", "after", "both"])),
}
"""Beside the expert layer."""

exbert = Space(
    name="exbert",
    trainable="exbert",
    dimensions={
        "model.n_layers": N_LAYERS,
        # Section 2.1: "8-16 experts"; reading 2: every whole number
        "model.num_experts": Int(8, 16),
        "training.learning_rate": LEARNING_RATE,
        **DROPOUT,
    },
)
"""The four things that the paper tuned, jointly."""

exbert_extended = Space(
    name="exbert_extended",
    trainable="exbert",
    dimensions={
        **exbert.dimensions,
        # Section 4, future work: "balancing coefficient"; digest, section 6: two decades about the library's 1e-2
        "model.balance_loss_coef": Float(1e-4, 1e-1, log=True),
        # Digest, section 6, about the library's 1e-3; 0 switches the loss off
        "model.router_z_loss_coef": Choice([0.0, 1e-4, 1e-3, 1e-2]),
        # Digest, section 1.4 (c), about the library's 1.25, at which a token gets 1.25 of its 2 experts
        "model.capacity_factor": Choice([1.0, 1.25, 1.5, 2.0]),
        # Section 4, future work: "dropout rates within its expert NNs"; digest, section 6: 0 to 0.4
        "model.expert_dropout": Float(0.0, 0.4),
        **TRAINING,
    },
)
"""And what it names as future work, or left at the libraries' defaults."""
