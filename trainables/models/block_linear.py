"""Linear layers by oneDNN's matrix product, in blocks of rows, for CPUs on which torch's own product is slow.

On x86 torch multiplies float32 by MKL, which on CPUs that are not Intel's keeps to AVX2: oneDNN, which torch brings as well, is
twice as fast where there is AVX-512 (benchmarks/moe.py, training.py). It compiles and keeps a product for every shape, about
0.7 MB each, and no two batches have as many tokens: hence blocks of few sizes, and the last rows by torch's own product.

Shapes: N = rows (tokens), I = inputs, O = outputs.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import FunctionCtx, once_differentiable

__all__ = ["BlockLinear", "gains_by_blocks", "use_blocks"]

_BLOCK_ROWS = (1024, 512, 256, 128, 64)
"""Of two to seven sizes tried none took less time by more than noise: fewer leave more rows to torch, or more to join."""

_LEAST_MULTIPLICATIONS = 2**23
"""Below, what blocks save is less than what they cost: an expert's few tokens, the demo's attention."""

_LEAST_FEATURES = 32
"""With fewer inputs or outputs (a head, a router) the product takes no time."""


def use_blocks(model: nn.Module, device: str) -> nn.Module:
    """Lets the model's linear layers multiply by blocks where that is faster; parameters, names and results (1e-5) stay."""
    if device == "cpu" and gains_by_blocks():
        for module in model.modules():
            if type(module) is nn.Linear and min(module.weight.shape) >= _LEAST_FEATURES:
                module.__class__ = BlockLinear
    return model


def gains_by_blocks() -> bool:
    """Whether this machine's CPU has AVX-512 and is not Intel's. By its kind, not by measuring: that would differ each time."""
    found = torch.cpu.get_capabilities()
    return (
        torch.backends.mkldnn.is_available()
        and bool(found.get("avx512_f"))
        and "Intel" not in str(found.get("cpu_name", "Intel"))
    )


class BlockLinear(nn.Linear):
    """A linear layer of float32 on a CPU; what autocast runs in bfloat16 is left to torch, which takes oneDNN for it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x`: (..., I)."""
        is_small = x.numel() * self.out_features < _LEAST_MULTIPLICATIONS
        if is_small or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        out_NO: torch.Tensor = _Product.apply(x.reshape(-1, self.in_features), self.weight, self.bias)
        return out_NO.view(*x.shape[:-1], self.out_features)


class _Product(torch.autograd.Function):
    """x W^T + b."""

    @staticmethod
    def forward(ctx: FunctionCtx, x_NI: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
        of_x, of_weight, _ = ctx.needs_input_grad  # type: ignore[attr-defined]
        ctx.save_for_backward(x_NI if of_weight else None, weight_OI if of_x else None)  # type: ignore[arg-type]
        return _times(x_NI, weight_OI, bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_NO: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_NI, weight_OI = ctx.saved_tensors  # type: ignore[attr-defined]
        of_x, of_weight, of_bias = ctx.needs_input_grad  # type: ignore[attr-defined]
        return (
            _times(grad_NO, weight_OI.T, None) if of_x else None,
            _transposed_times(grad_NO, x_NI) if of_weight else None,
            grad_NO.sum(dim=0) if of_bias else None,
        )


def _times(x_NI: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
    parts = [
        _onednn(x_NI[begin:end], weight_OI, bias_O) if is_block else F.linear(x_NI[begin:end], weight_OI, bias_O)
        for begin, end, is_block in _blocks(len(x_NI))
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _transposed_times(grad_NO: torch.Tensor, x_NI: torch.Tensor) -> torch.Tensor:
    """The weight's gradient (O, I): a sum over rows, block by block."""
    total: torch.Tensor | None = None
    for begin, end, is_block in _blocks(len(x_NI)):
        grad_ON, x_IN = grad_NO[begin:end].T, x_NI[begin:end].T
        part_OI = _onednn(grad_ON, x_IN, None) if is_block else grad_ON @ x_IN.T
        total = part_OI if total is None else total.add_(part_OI)
    assert total is not None
    return total


def _blocks(num_rows: int) -> Iterator[tuple[int, int, bool]]:
    """Begin and end of each block, the largest first, and at last of the rows that fill none (False)."""
    begin = 0
    for rows in _BLOCK_ROWS:
        while num_rows - begin >= rows:
            yield begin, begin + rows, True
            begin += rows
    if begin < num_rows:
        yield begin, num_rows, False


def _onednn(x_NI: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
    out_NO: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x_NI, weight_OI, bias_O, "none", [], "")
    return out_NO
