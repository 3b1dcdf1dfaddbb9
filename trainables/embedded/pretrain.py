"""Train the embedded encoder from nothing: `python -m trainables.embedded.pretrain --out DIR`.
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
from transformers import DistilBertConfig, DistilBertForQuestionAnswering, PreTrainedTokenizerFast

from trainables.embedded.names import text_rng
from trainables.embedded.pretraining import PretrainingExample, pretraining_example
from trainables.embedded.vocabulary import build_tokenizer, vocabulary, write_tokenizer

__all__ = ["encode", "exact_match", "main", "new_model", "pretrain"]

# Shapes: B = examples in a batch, T = tokens.
Batch = dict[str, Tensor]

_WARMUP_STEPS = 200
_EMBEDDING_SCALE = 0.05
_NUM_HELD_OUT = 256


def encode(tokenizer: PreTrainedTokenizerFast, examples: list[PretrainingExample]) -> Batch:
    """Token ids (B, T) with the answers' first and last token, both inclusive, as (B,)."""
    batch = tokenizer(
        [example.question for example in examples],
        [example.context for example in examples],
        padding=True,
        return_tensors="pt",
    )
    firsts = [batch.char_to_token(i, e.answer_start, 1) for i, e in enumerate(examples)]
    lasts = [batch.char_to_token(i, e.answer_start + len(e.answer) - 1, 1) for i, e in enumerate(examples)]
    return {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "start_positions": torch.tensor(firsts),
        "end_positions": torch.tensor(lasts),
    }


def new_model(seed: int) -> DistilBertForQuestionAnswering:
    """A small DistilBERT whose first weights already favour equal tokens and near positions.

    Queries and keys start as the same projection, and positions as sinusoids, so attention begins
    by looking at copies of a token and at its neighbours; without it, matching appears only after
    some 6,500 steps. Source: Trockman & Kolter 2023, "Mimetic Initialization of Self-Attention".
    """
    torch.manual_seed(seed)
    config = DistilBertConfig(
        vocab_size=len(vocabulary()), dim=96, hidden_dim=384, n_layers=3, n_heads=4, max_position_embeddings=512,
        dropout=0.0, attention_dropout=0.0, qa_dropout=0.0, sinusoidal_pos_embds=True, pad_token_id=0,
        initializer_range=0.1,  # about 1 / sqrt(dim); the default 0.02 is for a width of 768
    )
    model = DistilBertForQuestionAnswering(config)
    config.sinusoidal_pos_embds = False
    embeddings = model.distilbert.embeddings
    nn.init.normal_(embeddings.word_embeddings.weight, std=_EMBEDDING_SCALE)
    with torch.no_grad():
        embeddings.position_embeddings.weight.mul_(_EMBEDDING_SCALE)
        for block in model.distilbert.transformer.layer:
            nn.init.orthogonal_(block.attention.q_lin.weight)
            block.attention.k_lin.weight.copy_(block.attention.q_lin.weight)
    embeddings.position_embeddings.weight.requires_grad_(True)
    return model


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


def pretrain(*, num_steps: int, seed: int, out: Path, batch_size: int = 64, learning_rate: float = 1e-3) -> None:
    """Train on fresh passages and write encoder and tokenizer to `out`, also every 1,000 steps."""
    tokenizer, model = build_tokenizer(), new_model(seed)
    rng, started = text_rng("pretraining", seed), time.monotonic()
    held_out_rng = text_rng("pretraining held out", seed)
    held_out = encode(tokenizer, [pretraining_example(held_out_rng) for _ in range(_NUM_HELD_OUT)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate_factor(step, num_steps))
    max_facts, smooth_loss = 2, 3.0
    for step in range(num_steps):
        batch = encode(tokenizer, [pretraining_example(rng, max_facts=max_facts) for _ in range(batch_size)])
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        smooth_loss = 0.98 * smooth_loss + 0.02 * loss.item()
        if smooth_loss < 0.35 and max_facts < 6:
            max_facts, smooth_loss = max_facts + 1, 1.0
        if (step + 1) % 100 == 0 or step + 1 == num_steps:
            seconds = time.monotonic() - started
            print(f"step {step + 1} facts {max_facts} loss {smooth_loss:.3f} "
                  f"held-out EM {exact_match(model, held_out):.3f} seconds {seconds:.0f}", flush=True)
        if (step + 1) % 1000 == 0 or step + 1 == num_steps:
            _write(model, out)


def _write(model: DistilBertForQuestionAnswering, out: Path) -> None:
    """Replace `out` by a folder with the encoder (without the question-answering head) and tokenizer."""
    fresh = out.with_name(out.name + ".tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    model.distilbert.save_pretrained(fresh)
    write_tokenizer(fresh)
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(fresh.iterdir()):
        os.replace(path, out / path.name)
    fresh.rmdir()


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; same names are replaced")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pretrain(num_steps=options.steps, seed=options.seed, out=options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
