"""The expert layer's training pass against st-moe-pytorch's own loop over experts: forward, backward, the same parameters.

    python benchmarks/moe.py                   # one thread, as a trial has by default; --device cuda for a GPU

At the paper's width and at the embedded encoder's, windows without padding, every second expert taken, so that both compute the
same: outputs, gradients and state dicts are compared first. Goals: 1.5 times as fast on a CPU, 3 times on a GPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from st_moe_pytorch import MoE

from trainables.models.block_linear import use_blocks
from trainables.models.experts import ExactMoE

SIZES = {"paper": (16, 384, 768), "embedded": (16, 96, 96)}
"""Sequences, tokens, width: the presets' batch, and the width of their encoders. 96 tokens: a middling embedded batch."""


class Way(NamedTuple):
    """A contender: its layer and, of ours, how the experts are run."""

    name: str
    layer: MoE
    mix: str | None


def ways(width: int, num_experts: int, device: str) -> list[Way]:
    """The package first; all with the same parameters under the same names."""
    torch.manual_seed(0)
    settings = {"dim": width, "num_experts": num_experts, "threshold_train": 1e-9, "is_distributed": False}
    package = MoE(**settings).to(device)
    ours = ExactMoE(**settings).to(device)
    ours.load_state_dict(package.state_dict())
    use_blocks(ours, device)
    return [
        Way("st-moe-pytorch", package, None),
        Way("one by one", ours, "_mix_one_by_one"),
        Way("in slots", ours, "_mix_in_slots"),
    ]


def training_pass(way: Way, x_BTD: torch.Tensor) -> list[torch.Tensor]:
    """Output, auxiliary loss and every gradient, which the layer then forgets."""
    if way.mix is not None:
        way.layer._mix = getattr(way.layer, way.mix)
    inputs_BTD = x_BTD.clone().requires_grad_()
    result = way.layer(inputs_BTD)
    (result.outputs.square().mean() + result.total_aux_loss.sum()).backward()
    found = [result.outputs.detach(), result.total_aux_loss.detach().view(()), inputs_BTD.grad]
    found += [parameter.grad for parameter in way.layer.parameters()]
    way.layer.zero_grad(set_to_none=True)
    return found


def largest_difference(way: Way, reference: Way, x_BTD: torch.Tensor) -> float:
    """Of any output or gradient, in absolute terms."""
    pairs = zip(training_pass(way, x_BTD), training_pass(reference, x_BTD), strict=True)
    return max(float((mine - theirs).abs().max()) for mine, theirs in pairs)


def seconds_of(work: Callable[[], object], device: str) -> float:
    """CPU seconds of all threads, which other work on the machine does not count in; on a GPU wall seconds until it is done."""
    if device == "cpu":
        began = time.process_time()
        work()
        return time.process_time() - began
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    torch.cuda.synchronize(device)
    return time.perf_counter() - began


def measure(size: tuple[int, int, int], num_experts: int, device: str, repeats: int) -> list[tuple[str, list[float], float]]:
    """Each way's seconds, taken in turn, and its difference from the package."""
    contenders = ways(size[2], num_experts, device)
    x_BTD = torch.randn(size, generator=torch.Generator().manual_seed(1)).to(device)
    differences = [largest_difference(way, contenders[0], x_BTD) for way in contenders]  # also warms up
    seconds: list[list[float]] = [[] for _ in contenders]
    for _ in range(repeats):
        for way, taken in zip(contenders, seconds, strict=True):
            taken.append(seconds_of(lambda way=way: training_pass(way, x_BTD), device))
    return [(way.name, taken, gap) for way, taken, gap in zip(contenders, seconds, differences, strict=True)]


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 16, 64])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on a CPU (default: 1)")
    parser.add_argument("--repeats", type=int, default=5, help="passes of each, in turn (default: 5)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    console = Console(width=130)
    spread_of = f"median (least to most) of {arguments.repeats} passes"
    title = f"Forward and backward, float32, {arguments.device}, {arguments.threads} thread(s): {spread_of}"
    shown = Table(
        "size",
        "experts",
        "experts run",
        "CPU ms" if arguments.device == "cpu" else "ms",
        "package ÷ this",
        "largest difference",
        title=title,
    )
    for name in arguments.sizes:
        for num_experts in arguments.experts:
            found = measure(SIZES[name], num_experts, arguments.device, arguments.repeats)
            for way, seconds, gap in found:
                if gap > 1e-5:
                    raise SystemExit(f"{way} differs from {found[0][0]} by {gap:.1e} at {name} size, allowed is 1e-5")
                ratios = [theirs / mine for theirs, mine in zip(found[0][1], seconds, strict=True)]
                milliseconds = [1000 * each for each in seconds]
                spread = f"{median(milliseconds):.1f} ({min(milliseconds):.1f} to {max(milliseconds):.1f})"
                shown.add_row(name, str(num_experts), way, spread, f"{median(ratios):.2f}", f"{gap:.0e}")
    console.print(shown)


if __name__ == "__main__":
    main()
