"""What of the mixture-of-experts layers is varied (papers, document D, section 3.2 of the digest; axes: section 3.4).

Each space is a factorial about the same defaults, so that their common points are trained once.
"""

from __future__ import annotations

from search_spaces.space import Choice, Condition, Float, Space

__all__ = ["moe_auxiliary", "moe_experts", "moe_freezing", "moe_initialisation", "moe_routing", "moe_search", "staged_moe"]

_ROUTERS = ["switch_top1", "gshard_top2", "expert_choice", "st_top2", "soft", "random"]

_LEARNT = Condition("model.router", _ROUTERS[:-1])
"""Random routing has no auxiliary losses."""

moe_routing = Space(
    name="moe_routing",
    trainable="moe_variants",
    dimensions={"model.router": Choice(_ROUTERS)},
)
"""Routing strategies (FLAN-MoE's four), dense mixing, and the control without learnt routing."""

moe_auxiliary = Space(
    name="moe_auxiliary",
    trainable="moe_variants",
    dimensions={
        "model.router": Choice(["expert_choice", "st_top2"]),
        "model.balance_loss_coef": Choice([0.0, 1e-2]),
        "model.router_z_loss_coef": Choice([0.0, 1e-3]),
    },
)
"""No auxiliary loss, balance, z, or both: FLAN-MoE's Table 2 for FLAN-EC and FLAN-ST."""

moe_freezing = Space(
    name="moe_freezing",
    trainable="moe_variants",
    dimensions={
        "model.router": Choice(["expert_choice", "st_top2"]),
        "model.freeze": Choice(["none", "gate", "expert", "moe"]),
    },
)
"""What of the expert layers learns: FLAN-MoE's Table 2 for FLAN-EC and FLAN-ST."""

moe_experts = Space(
    name="moe_experts",
    trainable="moe_variants",
    dimensions={
        "model.router": Choice(["switch_top1", "gshard_top2", "expert_choice", "st_top2"]),
        "model.num_experts": Choice([2, 4, 8, 16, 32]),
    },
)
"""More experts: FLAN-MoE's Figure 4, at this size."""

moe_initialisation = Space(
    name="moe_initialisation",
    trainable="moe_variants",
    dimensions={
        "model.expert_init": Choice(["random", "upcycled", "upcycled_noise"]),
        "model.placement": Choice(["last_blocks", "every_second", "all"]),
    },
)
"""Sparse upcycling against experts freshly drawn, in one block, every second one, and all."""

staged_moe = Space(
    name="staged_moe",
    trainable="moe_variants",
    dimensions={"model.start_from": Choice(["base", "mixed"])},
)
"""The same with experts; with `staged_dense` the four ways of FLAN-MoE's Figure 6."""

moe_search = Space(
    name="moe_search",
    trainable="moe_variants",
    dimensions={
        "model.router": Choice(_ROUTERS),
        "model.num_experts": Choice([2, 4, 8, 16]),
        # Digest, section 3.4: balance coefficient log-uniform over three decades
        "model.balance_loss_coef": Float(1e-4, 1e-1, log=True, when=_LEARNT),
        "model.router_z_loss_coef": Choice([0.0, 1e-4, 1e-3, 1e-2], when=_LEARNT),
        "model.expert_init": Choice(["random", "upcycled", "upcycled_noise"]),
        "model.expert_noise": Float(1e-3, 1e-1, log=True, when=Condition("model.expert_init", ["upcycled_noise"])),
        "model.placement": Choice(["last_blocks", "every_second", "all"]),
        # Digest, section 3.4: 0 to 0.4 within the experts
        "model.expert_dropout": Float(0.0, 0.4),
        # Digest, section 3.2: small batches and rates are stable
        "training.batch_size": Choice([8, 16, 32, 64, 128]),
        "training.learning_rate": Float(1e-5, 1e-3, log=True),
    },
)
"""All of it at once, for a search."""
