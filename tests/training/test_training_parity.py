"""The same weights and batches as transformers' Trainer give the same losses."""

from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset, SequentialSampler
from transformers import DistilBertForQuestionAnswering, Trainer, TrainerCallback, TrainingArguments

from trainables.config import TrainingConfig
from trainables.embedded import ENCODER_PATH
from trainables.training.steps import make_optimizer, make_schedule, update

NUM_STEPS = 20
BATCH = 4


class Windows(Dataset):
    """Random windows of one length, so that both sides pad alike."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(10, 200, (NUM_STEPS * BATCH, 24), generator=generator)
        self.spans = torch.randint(1, 20, (NUM_STEPS * BATCH, 2), generator=generator).sort(dim=1).values

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        start, end = self.spans[index]
        ids = self.ids[index]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "start_positions": start, "end_positions": end}


class SequentialTrainer(Trainer):
    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> SequentialSampler:
        return SequentialSampler(train_dataset or self.train_dataset)


class KeepLosses(TrainerCallback):
    def __init__(self) -> None:
        self.losses: list[float] = []
        self.rates: list[float] = []

    def on_log(self, args: object, state: object, control: object, logs: dict[str, float] | None = None, **_: object) -> None:
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])
            self.rates.append(logs["learning_rate"])


def a_model() -> DistilBertForQuestionAnswering:
    torch.manual_seed(0)
    return DistilBertForQuestionAnswering.from_pretrained(ENCODER_PATH, dtype=torch.float32)


def losses_of_trainer(settings: TrainingConfig, folder: Path) -> tuple[list[float], list[float]]:
    kept = KeepLosses()
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=settings.batch_size,
        num_train_epochs=1,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )
    trainer = SequentialTrainer(model=a_model(), args=arguments, train_dataset=Windows(), callbacks=[kept])
    torch.manual_seed(1)
    trainer.train()
    return kept.losses, kept.rates


def losses_of_ours(settings: TrainingConfig) -> tuple[list[float], list[float]]:
    model, windows = a_model(), Windows()
    torch.manual_seed(1)
    optimizer = make_optimizer(model, settings)
    schedule = make_schedule(optimizer, NUM_STEPS)
    model.train()
    losses, rates = [], []
    for step in range(NUM_STEPS):
        rows = [windows[i] for i in range(step * BATCH, (step + 1) * BATCH)]
        output = model(**{name: torch.stack([row[name] for row in rows]) for name in rows[0]})
        losses.append(float(output.loss.detach()))
        rates.append(schedule.get_last_lr()[0])
        output.loss.backward()
        update(optimizer, schedule, settings.max_grad_norm)
    return losses, rates


@pytest.mark.parametrize("max_grad_norm", [1.0, 0.1])
def test_twenty_steps_equal_the_trainers(tmp_path: Path, max_grad_norm: float) -> None:
    settings = TrainingConfig(batch_size=BATCH, learning_rate=1e-3, weight_decay=0.1, max_grad_norm=max_grad_norm)
    their_losses, their_rates = losses_of_trainer(settings, tmp_path)
    our_losses, our_rates = losses_of_ours(settings)
    assert len(our_losses) == NUM_STEPS
    assert our_losses == pytest.approx(their_losses, abs=1e-5)
    assert our_rates == pytest.approx(their_rates, rel=1e-6)
