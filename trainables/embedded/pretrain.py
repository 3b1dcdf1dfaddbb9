"""Train the embedded encoder from nothing: `python -m trainables.embedded.pretrain --out DIR`.

The shipped files in `encoder/` were made by

    python -m trainables.embedded.pretrain --steps 2600 --seed 0 --out DIR

with Python 3.11, torch 2.13.0 (CPU, one thread) and transformers 5.23.0, in 1,148 seconds on a
shared core: exact match 0.996 on 256 held-out passages of two to six facts. On the way it was
0.066 at step 100, 0.375 at 300, 0.957 at 1,000 and 0.992 at 2,000. The same command on the same
versions prints the same lines. Only the encoder is kept; the question-answering head, like the
two hints' heads, is dropped.

What made matching quick to learn: the first weights (`initial_weights`), a loss on what the first
two blocks are to compute (the hints below), and passages that start with two facts. Tried, and without
any matching: both hints with only equal tokens favoured at first (700 steps), and these first
weights with the hint `repeated` alone (400 steps).
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BatchEncoding, DistilBertForQuestionAnswering, PreTrainedTokenizerFast

from trainables.embedded.initial_weights import new_model
from trainables.embedded.names import text_rng
from trainables.embedded.pretraining import FUNCTION_WORDS, PretrainingExample, pretraining_example
from trainables.embedded.vocabulary import build_tokenizer, write_tokenizer

__all__ = ["encode", "exact_match", "main", "pretrain", "pretraining_loss"]

# Shapes: B = examples in a batch, T = tokens.
Batch = dict[str, Tensor]

_BATCH_SIZE = 64
_LEARNING_RATE = 1e-3
_WARMUP_STEPS = 200
_FEWEST_FACTS, _MOST_FACTS = 2, 6
_MASTERED_LOSS = 0.75
"""Sum of the span loss and both hints' losses below which passages grow."""
_NUM_HELD_OUT = 256
# Which block's output each hint is read from: the last block answers, the ones before it prepare.
_HINT_BLOCKS = {"repeated": 1, "asked": 2}


def encode(tokenizer: PreTrainedTokenizerFast, examples: list[PretrainingExample]) -> Batch:
    """Token ids (B, T), the answers' first and last token (B,), inclusive, and two hints (B, T).

    `repeated` marks content words that question and passage share (and the separators around them),
    `asked` the sentence to find.
    """
    batch = tokenizer(
        [example.question for example in examples],
        [example.context for example in examples],
        padding=True,
        return_token_type_ids=True,
        return_tensors="pt",
    )
    ids_BT, is_context_BT = batch["input_ids"], batch["token_type_ids"].bool()
    equal_BTT = ids_BT[:, :, None] == ids_BT[:, None, :]
    other_part_BTT = is_context_BT[:, :, None] != is_context_BT[:, None, :]
    answers_B2 = _token_spans(batch, [example.answer_span for example in examples])
    sentences_B2 = _token_spans(batch, [example.sentence_span for example in examples])
    common_ids = torch.tensor(tokenizer.convert_tokens_to_ids([*FUNCTION_WORDS, "?", "."]))
    positions_T = torch.arange(ids_BT.shape[1])
    return {
        "input_ids": ids_BT,
        "attention_mask": batch["attention_mask"],
        "start_positions": answers_B2[:, 0],
        "end_positions": answers_B2[:, 1],
        "repeated": ((equal_BTT & other_part_BTT).any(-1) & ~torch.isin(ids_BT, common_ids)).float(),
        "asked": ((positions_T >= sentences_B2[:, :1]) & (positions_T <= sentences_B2[:, 1:])).float(),
    }


def _token_spans(batch: BatchEncoding, spans: list[tuple[int, int]]) -> Tensor:
    """First and last token (B, 2), both inclusive, of character spans of the passages."""
    return torch.tensor(
        [(batch.char_to_token(row, first, 1), batch.char_to_token(row, end - 1, 1)) for row, (first, end) in enumerate(spans)]
    )


def pretraining_loss(model: DistilBertForQuestionAnswering, hints: nn.ModuleDict, batch: Batch) -> Tensor:
    """The span loss plus, after each of the first blocks, the loss of the hint it is to compute."""
    spans = {name: batch[name] for name in ("input_ids", "attention_mask", "start_positions", "end_positions")}
    output = model(**spans, output_hidden_states=True)
    loss = output.loss
    for name, block in _HINT_BLOCKS.items():
        logits_BT = hints[name](output.hidden_states[block]).squeeze(-1)
        loss = loss + nn.functional.binary_cross_entropy_with_logits(
            logits_BT, batch[name], weight=batch["attention_mask"].float()
        )
    return loss


@torch.no_grad()
def exact_match(model: DistilBertForQuestionAnswering, batch: Batch) -> float:
    """The share of examples whose likeliest first and last token are both right, in [0, 1]."""
    model.eval()
    output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    right_B = (output.start_logits.argmax(-1) == batch["start_positions"]) & (
        output.end_logits.argmax(-1) == batch["end_positions"]
    )
    model.train()
    return right_B.float().mean().item()


def _learning_rate_factor(step: int, num_steps: int) -> float:
    """Linear warm-up, then a half cosine down to zero."""
    if step < _WARMUP_STEPS:
        return (step + 1) / _WARMUP_STEPS
    return 0.5 * (1 + math.cos(math.pi * (step - _WARMUP_STEPS) / max(1, num_steps - _WARMUP_STEPS)))


class _Curriculum:
    """Passages grow by one fact each time the smoothed loss falls below a threshold."""

    def __init__(self) -> None:
        self.max_facts = _FEWEST_FACTS
        self.smoothed_loss = 3.0

    def update(self, loss: float) -> None:
        """Take in one step's loss."""
        self.smoothed_loss = 0.98 * self.smoothed_loss + 0.02 * loss
        if self.smoothed_loss < _MASTERED_LOSS and self.max_facts < _MOST_FACTS:
            self.max_facts += 1
            self.smoothed_loss = 1.0


def pretrain(*, num_steps: int, seed: int, out: Path) -> None:
    """Train on fresh passages and write encoder and tokenizer to `out`, also every 1,000 steps."""
    tokenizer = build_tokenizer()
    model = new_model(len(tokenizer), seed)
    hints = nn.ModuleDict({name: nn.Linear(model.config.dim, 1) for name in _HINT_BLOCKS})
    parameters = [*model.parameters(), *hints.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=_LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate_factor(step, num_steps))
    rng, held_out_rng = text_rng("pretraining", seed), text_rng("pretraining held out", seed)
    held_out = encode(tokenizer, [pretraining_example(held_out_rng) for _ in range(_NUM_HELD_OUT)])
    curriculum, started = _Curriculum(), time.monotonic()
    for step in range(num_steps):
        # Every tenth batch is longer, so that later positions are met too.
        facts = curriculum.max_facts + 3 if step % 10 == 9 else curriculum.max_facts
        batch = encode(tokenizer, [pretraining_example(rng, max_facts=facts) for _ in range(_BATCH_SIZE)])
        loss = pretraining_loss(model, hints, batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        curriculum.update(loss.item())
        if (step + 1) % 100 == 0 or step + 1 == num_steps:
            _print_progress(step + 1, curriculum, exact_match(model, held_out), time.monotonic() - started)
        if (step + 1) % 1000 == 0 or step + 1 == num_steps:
            _write(model, out)


def _print_progress(step: int, curriculum: _Curriculum, held_out_exact_match: float, wall_seconds: float) -> None:
    """One line to standard output."""
    print(
        f"step {step} facts {curriculum.max_facts} loss {curriculum.smoothed_loss:.3f} "
        f"held-out EM {held_out_exact_match:.3f} seconds {wall_seconds:.0f}",
        flush=True,
    )


def _write(model: DistilBertForQuestionAnswering, out: Path) -> None:
    """Replace the files of `out` by the encoder, without its question-answering head, and the tokenizer."""
    fresh = out.with_name(f"{out.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    model.distilbert.save_pretrained(fresh)
    write_tokenizer(fresh)
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(fresh.iterdir()):
        path.chmod(0o644)  # safetensors writes files that only their owner may read
        os.replace(path, out / path.name)
    fresh.rmdir()


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; same names are replaced")
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pretrain(num_steps=options.steps, seed=options.seed, out=options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
