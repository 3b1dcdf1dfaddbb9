"""Training steps of every family of models at the paper's size, relative to V-DB's.

    python benchmarks/families.py              # minutes on a CPU; on a GPU: --device cuda --steps 100 --warm-up 10

DistilBERT-base (6 blocks) with random weights; expert layers of the usual placements and sizes, adapters at the papers'
sizes, gates over two and three experts. The windows and the steps are those of `training.py`; each family takes turns with
V-DB, step by step, so that what else the machine does meets both alike.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from training import Sizes, encoder_config, make_model, make_windows, steps_of
from transformers import DistilBertForQuestionAnswering, DistilBertModel

from trainables.adapters.config import ModelConfig as AdapterSettings
from trainables.adapters.model import AdaptersForQuestionAnswering
from trainables.gated_ensemble.config import ModelConfig as EnsembleSettings
from trainables.gated_ensemble.model import GatedEnsemble
from trainables.models.routers import ROUTERS
from trainables.moe_variants.config import ModelConfig as MoESettings
from trainables.moe_variants.model import MoEVariantForQuestionAnswering

BASELINE = "distilbert (V-DB)"


def families(sizes: Sizes) -> dict[str, Callable[[], nn.Module]]:
    """How a model of each family is made, the baseline first; mixtures have `sizes.num_experts` at most."""
    config = encoder_config(sizes)

    def moe(router: str) -> nn.Module:
        settings = MoESettings.model_validate({"router": router, "num_experts": min(8, sizes.num_experts)})
        return MoEVariantForQuestionAnswering(DistilBertModel(config), settings)

    def adapters(method: str, num_experts: int, rank: int | None) -> nn.Module:
        settings = AdapterSettings.model_validate({"method": method, "num_experts": num_experts, "rank": rank})
        return AdaptersForQuestionAnswering(DistilBertModel(config), settings)

    def ensemble(num_experts: int) -> nn.Module:
        experts = [DistilBertForQuestionAnswering(config) for _ in range(num_experts)]
        return GatedEnsemble(DistilBertModel(config), experts, EnsembleSettings())

    mixed = min(10, sizes.num_experts)
    return {
        BASELINE: lambda: make_model("distilbert", sizes),
        f"exbert, {sizes.num_experts} experts": lambda: make_model("exbert", sizes),
        **{f"moe_variants, {router}": lambda router=router: moe(router) for router in ROUTERS},  # type: ignore[misc]
        "adapters, ia3": lambda: adapters("ia3", 1, None),
        "adapters, lora of rank 4": lambda: adapters("lora", 1, 4),
        f"adapters, mov-{mixed}": lambda: adapters("mov", mixed, None),
        f"adapters, molora-{mixed} of rank 4": lambda: adapters("molora", mixed, 4),
        "gated_ensemble, 2 experts": lambda: ensemble(2),
        "gated_ensemble, 3 experts": lambda: ensemble(3),
    }


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of torch, on a CPU (default: 2)")
    parser.add_argument("--steps", type=int, default=4, help="optimiser steps of each family (default: 4)")
    parser.add_argument("--warm-up", type=int, default=1, help="steps not measured (default: 1)")
    parser.add_argument("--width", type=int, default=768, help="of the model, a multiple of 64 (default: 768)")
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--experts", type=int, default=16, help="most experts of a layer (default: 16)")
    parser.add_argument("--max-length", type=int, default=384, help="tokens (default: 384)")
    parser.add_argument("--batch-size", type=int, default=16)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    sizes = Sizes(given.width, given.blocks, given.experts, given.max_length, given.batch_size, given.steps)
    batches = make_windows(sizes)
    measured = given.steps - given.warm_up
    title = (
        f"Training on {given.device}, median (least to most) of {measured} steps of {sizes.batch_size}, each beside one of V-DB"
    )
    shown = Table("model", "÷ V-DB's examples/s", "parameters trained", "of all", title=title)
    for name, make in families(sizes).items():
        torch.manual_seed(0)
        model, baseline = make(), make_model("distilbert", sizes)
        learns = sum(p.numel() for p in model.parameters() if p.requires_grad)
        every = sum(p.numel() for p in model.parameters())
        both = zip(*(steps_of(each, batches, sizes, given.device, given.warm_up) for each in (baseline, model)), strict=True)
        ratios = [base / own for (_, base), (_, own) in both][given.warm_up :]
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        shown.add_row(name, spread, f"{learns:,}", f"{100 * learns / every:.3g} %")
    Console(width=120).print(shown)


if __name__ == "__main__":
    main()
