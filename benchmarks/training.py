"""Training steps at the paper's size against `transformers.Trainer`: its defaults, and its best settings for this work.

    python benchmarks/training.py              # minutes on a CPU; on a GPU: --device cuda --steps 200 --warm-up 20

DistilBERT-base (6 blocks) and ExBERT (16 experts) with random weights, windows of SQuAD's lengths up to 384 tokens, batches of
16. All read the same windows in the same order and without dropout, so that the losses of every step can be compared. The
defaults pad every window to 384 as the question-answering example does (padding is in its loss, which therefore differs); the
best settings pad to the longest of a batch and use
the fused optimiser and, on a GPU, bfloat16. Goal: 1.5 times the examples a second of the best settings on a GPU, equal losses.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import (
    DistilBertConfig,
    DistilBertForQuestionAnswering,
    DistilBertModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from trainables.config import TrainingConfig
from trainables.exbert.config import ModelConfig
from trainables.exbert.model import ExBertForQuestionAnswering
from trainables.models.block_linear import use_blocks
from trainables.models.tally import num_active
from trainables.training.steps import (
    STEPS_UNREAD,
    add_gradients,
    autocast,
    make_optimizer,
    make_schedule,
    read_together,
    update,
)

VOCABULARY = 30_522  # of distilbert-base-uncased


class Sizes(NamedTuple):
    """Of the models and the work."""

    width: int
    blocks: int
    num_experts: int
    max_length: int
    batch_size: int
    steps: int


class Run(NamedTuple):
    """What one side did: the loss of each step, and the wall seconds of each."""

    losses: list[float]
    seconds: list[float]


Window = dict[str, Any]


def make_windows(sizes: Sizes, seed: int = 0) -> list[list[Window]]:
    """The batches of every step, sorted by length within 50 batches as a shuffled mixture's are."""
    generator = np.random.default_rng(seed)
    count = sizes.steps * sizes.batch_size
    lengths = np.clip(generator.lognormal(np.log(162), 0.4, count), 16, sizes.max_length).astype(int)  # see squad_sized
    order = [part[np.argsort(lengths[part])] for part in np.array_split(np.arange(count), max(1, sizes.steps // 50))]
    batches = np.array_split(np.concatenate(order), sizes.steps)
    generator.shuffle(batches)
    return [[_window(generator, int(lengths[i])) for i in batch] for batch in batches]


def _window(generator: np.random.Generator, length: int) -> Window:
    start, end = sorted(generator.integers(1, length, 2).tolist())
    ids = generator.integers(1, VOCABULARY, length).tolist()
    return {"input_ids": ids, "start_positions": start, "end_positions": end}


def padded(windows: Sequence[Window], width: int | None = None) -> dict[str, torch.Tensor]:
    """A batch of int64 tensors, padded to `width` or to its longest window."""
    width = width or max(len(window["input_ids"]) for window in windows)
    ids = torch.zeros(len(windows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, window in enumerate(windows):
        ids[row, : len(window["input_ids"])] = torch.tensor(window["input_ids"])
        mask[row, : len(window["input_ids"])] = 1
    spans = {name: torch.tensor([window[name] for window in windows]) for name in ("start_positions", "end_positions")}
    return {"input_ids": ids, "attention_mask": mask, **spans}


def encoder_config(sizes: Sizes) -> DistilBertConfig:
    """Without dropout."""
    return DistilBertConfig(
        vocab_size=VOCABULARY, dim=sizes.width, hidden_dim=4 * sizes.width, n_layers=sizes.blocks, n_heads=sizes.width // 64,
        dropout=0.0, attention_dropout=0.0, qa_dropout=0.0,
    )  # fmt: skip


def make_model(kind: str, sizes: Sizes) -> nn.Module:
    """Random weights, the same each time."""
    torch.manual_seed(0)
    config = encoder_config(sizes)
    if kind == "distilbert":
        return DistilBertForQuestionAnswering(config)
    settings = ModelConfig(n_layers=sizes.blocks, num_experts=sizes.num_experts, threshold=1e-9)  # nothing is drawn
    return ExBertForQuestionAnswering(DistilBertModel(config), settings)


def run_ours(model: nn.Module, batches: Sequence[Sequence[Window]], sizes: Sizes, device: str, warm_up: int) -> Run:
    """All of `steps_of`."""
    run = Run([], [])
    for loss, seconds in steps_of(model, batches, sizes, device, warm_up):
        run.losses.append(loss)
        run.seconds.append(seconds)
    return run


def steps_of(
    model: nn.Module, batches: Sequence[Sequence[Window]], sizes: Sizes, device: str, warm_up: int
) -> Iterator[tuple[float, float]]:
    """Loss and wall seconds of each step, taken as `trainables.training.loop` takes them, without reports.

    Of steps whose losses are read together, each took an equal part; the first `warm_up` are not read with others.
    """
    model = use_blocks(model.to(device), device)
    training = TrainingConfig(batch_size=sizes.batch_size)
    optimizer = make_optimizer(model, training)
    schedule = make_schedule(optimizer, len(batches))
    unread: list[dict[str, torch.Tensor]] = []
    began = time.perf_counter()
    for number, windows in enumerate(batches, 1):
        batch = {name: tensor.to(device, non_blocking=True) for name, tensor in padded(windows).items()}
        losses = add_gradients(model, batch, 1, partial(autocast, training, device))
        unread.append({**losses, "norm": update(optimizer, schedule, training.max_grad_norm)})
        if len(unread) == STEPS_UNREAD[torch.device(device).type] or number in (warm_up, len(batches)):
            read = read_together(unread)
            seconds = (time.perf_counter() - began) / len(unread)
            for step in read:
                assert math.isfinite(step["norm"])
                yield step["train_qa_loss"] + step.get("train_aux_loss", 0.0), seconds
            unread.clear()
            began = time.perf_counter()


class InOrder(Trainer):
    """The batches as they are given."""

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)


class Clock(TrainerCallback):
    """Losses and times of a Trainer's steps."""

    def __init__(self) -> None:
        self.run = Run([], [])
        self._began = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = self._began or time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            now = time.perf_counter()
            self.run.losses.append(logs["loss"])
            self.run.seconds.append(now - self._began)
            self._began = now  # so that fetching the next batch counts


def run_trainer(kind: str, batches: Sequence[Sequence[Window]], sizes: Sizes, device: str, *, best: bool) -> Run:
    """Defaults, or the settings that are fastest for this work, which log each step to compare it."""
    tuned: dict[str, Any] = {"optim": "adamw_torch_fused", "bf16": device != "cpu"} if best else {}
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=sizes.batch_size, num_train_epochs=1, learning_rate=2e-5,
            weight_decay=0.01, logging_steps=1, save_strategy="no", report_to=[], use_cpu=device == "cpu", disable_tqdm=True,
            remove_unused_columns=False, logging_nan_inf_filter=False, **tuned,
        )  # fmt: skip
        collate: Callable[[Sequence[Window]], Any] = partial(padded, width=None if best else sizes.max_length)
        rows: Any = [window for batch in batches for window in batch]
        trainer = InOrder(make_model(kind, sizes), arguments, collate, train_dataset=rows, callbacks=[clock])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return clock.run


@torch.inference_mode()
def matrix_flops(device: str, size: int) -> float:
    """Measured floating-point operations a second of a square matrix product, bfloat16 on a GPU, else float32."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    layer = use_blocks(nn.Linear(size, size, bias=False), device).to(device, dtype)  # on a CPU by the faster library
    one = torch.randn(size, size, device=device, dtype=dtype)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        layer(one)
        if device != "cpu":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return float(2 * size**3 / median(seconds))


def flops_of_a_token(model: nn.Module) -> float:
    """Of matrix products, forward and backward: 6 a parameter used (Kaplan et al. 2020, section 2.1), attention not counted."""
    embeddings = sum(part.weight.numel() for part in model.modules() if isinstance(part, nn.Embedding))
    return 6.0 * (num_active(model) - embeddings)


def measure(kind: str, sizes: Sizes, device: str, warm_up: int, tolerance: float) -> list[list[str]]:
    """Rows of the table: each side's examples a second, its ratio, the achieved share, the difference of losses."""
    batches = make_windows(sizes)
    sides = {
        "Trainer, defaults": run_trainer(kind, batches, sizes, device, best=False),
        "Trainer, best": run_trainer(kind, batches, sizes, device, best=True),
        "ours": run_ours(make_model(kind, sizes), batches, sizes, device, warm_up),
    }
    best, real_tokens = sides["Trainer, best"], [sum(len(window["input_ids"]) for window in batch) for batch in batches]
    peak, per_token = matrix_flops(device, 2048 if device == "cpu" else 8192), flops_of_a_token(make_model(kind, sizes))
    rows = []
    for name, run in sides.items():
        gap = max(abs(mine - theirs) for mine, theirs in zip(run.losses, best.losses, strict=True))
        if name == "ours" and device == "cpu" and gap > tolerance:  # on a GPU bfloat16 rounds in other places
            raise SystemExit(f"{kind}: losses of {name} differ by {gap:.1e} from those of Trainer, allowed is {tolerance:.0e}")
        per_second = [sizes.batch_size / seconds for seconds in run.seconds[warm_up:]]
        ratios = [theirs / mine for theirs, mine in zip(best.seconds[warm_up:], run.seconds[warm_up:], strict=True)]
        shares = [tokens * per_token / seconds / peak for tokens, seconds in zip(real_tokens, run.seconds, strict=True)]
        spread = f"{median(per_second):.2f} ({min(per_second):.2f} to {max(per_second):.2f})"
        rows.append([kind, name, spread, f"{median(ratios):.2f}", f"{100 * median(shares[warm_up:]):.0f} %", f"{gap:.0e}"])
    return rows


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=["distilbert", "exbert"], default=["distilbert", "exbert"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of torch, on a CPU (default: 2)")
    parser.add_argument("--steps", type=int, default=5, help="optimiser steps (default: 5)")
    parser.add_argument("--warm-up", type=int, default=1, help="steps not measured (default: 1)")
    parser.add_argument("--width", type=int, default=768, help="of the model, a multiple of 64 (default: 768)")
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--experts", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=384, help="tokens (default: 384)")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--tolerance", type=float, default=1e-3, help="of a step's loss in float32 (default: 1e-3)")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    sizes = Sizes(given.width, given.blocks, given.experts, given.max_length, given.batch_size, given.steps)
    measured = given.steps - given.warm_up
    title = f"Examples a second on {given.device}, median (least to most) of {measured} steps of {sizes.batch_size}"
    shown = Table("model", "", "examples/s", "÷ Trainer's best", "of matrix throughput", "largest gap of losses", title=title)
    for kind in given.models:
        for row in measure(kind, sizes, given.device, given.warm_up, given.tolerance):
            shown.add_row(*row)
    Console(width=130).print(shown)


if __name__ == "__main__":
    main()
