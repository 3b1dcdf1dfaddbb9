"""A plain fine-tuning script around `transformers.Trainer`, which the other sides of `overhead.py` run or call.

    python overhead_plain.py --kind tiny --rows ROWS.json --number 3

Like transformers' question-answering example it loads tokenizer and model, tokenises its rows, trains, evaluates (the losses
alone) and saves the weights. Imports nothing of this project but the clock, and heavy things where they are used.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from step_log import StepClock

clock = cache(StepClock)


def run_trial(kind: str, rows: str, number: int) -> float:
    """Trial `number`, which is its seed; what it would be judged by."""
    if kind == "tiny":
        return fine_tune(json.loads(Path(rows).read_text(encoding="utf-8")), number)
    with clock().step(1):
        return 0.0


def fine_tune(work: dict[str, Any], seed: int) -> float:
    """The validation loss of the model after training."""
    import torch
    from transformers import (
        AutoModelForQuestionAnswering,
        AutoTokenizer,
        DataCollatorWithPadding,
        PrinterCallback,
        Trainer,
        TrainingArguments,
    )

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(work["encoder"])
    rows = {split: windows_of(tokenizer, work[split], work) for split in ("train", "val", "test")}
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, seed=seed, num_train_epochs=work["epochs"], per_device_train_batch_size=work["batch_size"],
            per_device_eval_batch_size=work["batch_size"], learning_rate=work["learning_rate"], use_cpu=True,
            weight_decay=work["weight_decay"], save_strategy="no", report_to=[], disable_tqdm=True,
        )  # fmt: skip
        model = AutoModelForQuestionAnswering.from_pretrained(work["encoder"])
        collate = DataCollatorWithPadding(tokenizer)
        trainer = Trainer(model, arguments, collate, train_dataset=rows["train"], callbacks=[timed_steps()])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        losses = [trainer.evaluate(rows[split])["eval_loss"] for split in ("val", "test")]
        trainer.save_model(folder)
    return float(losses[0])


def windows_of(tokenizer: Any, rows: list[dict[str, Any]], work: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows' windows with the tokens of their answers, (0, 0) where a window lacks its answer."""
    encoded = tokenizer(
        [row["question"] for row in rows], [row["context"] for row in rows], truncation="only_second",
        max_length=work["max_length"], stride=work["stride"], return_overflowing_tokens=True,
    )  # fmt: skip
    windows = []
    for index, row_number in enumerate(encoded["overflow_to_sample_mapping"]):
        row = rows[row_number]
        places = (row["answer_start"], row["answer_start"] + len(row["answer"]) - 1)
        start, end = (encoded.char_to_token(index, place, sequence_index=1) for place in places)
        inside = start is not None and end is not None
        inputs = {name: encoded[name][index] for name in ("input_ids", "attention_mask")}
        windows.append({**inputs, "start_positions": start if inside else 0, "end_positions": end if inside else 0})
    return windows


def timed_steps() -> Any:
    """A callback that logs the steps of one training."""
    from transformers import TrainerCallback

    class Timed(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.timing = clock().step(state.global_step + 1)
            self.timing.__enter__()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.timing.__exit__(None, None, None)

    return Timed()


def main() -> None:
    """One trial from the command line; a scheduler's own arguments are ignored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=["no-op", "tiny"], required=True)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--syne", action="store_true", help="report to Syne Tune")
    given, _ = parser.parse_known_args()
    loss = run_trial(given.kind, given.rows, given.number)
    if given.syne:
        from syne_tune import Reporter

        Reporter()(loss=loss, epoch=1)


if __name__ == "__main__":
    main()
