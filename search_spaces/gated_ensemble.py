"""What of the gated ensemble is varied (papers: document B; readings: section 2.3 of the digest)."""

from __future__ import annotations

from search_spaces.space import Choice, Space

__all__ = [
    "baseline_factorial",
    "baseline_selection",
    "ensemble_data",
    "ensemble_embedded",
    "ensemble_factorial",
    "ensemble_gates",
]

_GATE = {"training.learning_rate": 1e-3}
"""Digest, section 2.3: the gate's own."""

baseline_factorial = Space(
    name="baseline_factorial",
    trainable="distilbert",
    # Section 3.3: re-initialisation "varied from 2-4", here from 1 on, and epochs "in the range of 3-5"
    dimensions={"model.reinit_k": Choice([0, 1, 2, 3, 4]), "training.epochs": Choice([3, 4, 5])},
)
"""Few-sample fine-tuning without experts, on the whole mixture."""

baseline_selection = Space(
    name="baseline_selection",
    trainable="distilbert",
    dimensions={"training.select": Choice(["last", "best"]), "training.epochs": Choice([3, 4, 5])},
)
"""Whether a fourth epoch that changes nothing is one whose weights were never taken (section 2.3)."""

ensemble_factorial = Space(
    name="ensemble_factorial",
    trainable="gated_ensemble",
    dimensions={"model.reinit_k": Choice([0, 1, 2, 3, 4]), "model.expert_epochs": Choice([None, 4, 5])},
    fixed=_GATE,
)
"""The same of every expert; without a number they have the sweep's epochs, which in the paper are three."""

ensemble_data = Space(
    name="ensemble_data",
    trainable="gated_ensemble",
    dimensions={
        "model.gate_data": Choice(["mixture", "others", "all"]),
        "training.select": Choice(["last", "best"]),
    },
    fixed=_GATE,
)
"""What the gate learns from, and which weights are taken, the experts' too; for mixtures that leave domains out."""

ensemble_gates = Space(
    name="ensemble_gates",
    trainable="gated_ensemble",
    dimensions={
        "model.gate_input": Choice(["base_mean", "base_cls", "embedding_mean", "expert_cls"]),
        "model.combine": Choice(["logits", "probabilities"]),
    },
    fixed=_GATE,
)
"""What the gate reads, which the paper leaves unsaid; all have the same experts."""

ensemble_embedded = Space(
    name="ensemble_embedded",
    trainable="gated_ensemble",
    dimensions={"model.reinit_k": Choice([0, 1, 2]), "model.combine": Choice(["logits", "probabilities"])},
    fixed=_GATE,
)
"""The counterpart of `ensemble_factorial` for the shipped encoder, a toy of 3 blocks."""
