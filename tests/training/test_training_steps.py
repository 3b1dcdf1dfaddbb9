"""The gradients of a batch that goes through the model in parts are those of the whole batch; the learning rate's schedule."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    DistilBertConfig,
    DistilBertForQuestionAnswering,
    DistilBertModel,
    get_linear_schedule_with_warmup,
)

from trainables.config import TrainingConfig
from trainables.contract import TrialContext
from trainables.data.spec import DataSpec
from trainables.exbert.config import ModelConfig
from trainables.exbert.model import ExBertForQuestionAnswering
from trainables.training.steps import add_gradients, make_optimizer, make_schedule

SMALL = DistilBertConfig(
    vocab_size=50, dim=16, hidden_dim=32, n_layers=2, n_heads=2, max_position_embeddings=32,
    dropout=0.0, attention_dropout=0.0, qa_dropout=0.0,
)  # fmt: skip
HEAVY = {"num_experts": 4, "threshold": 1e-9, "balance_loss_coef": 1.0, "router_z_loss_coef": 1.0}
MODELS = {
    "distilbert": lambda: DistilBertForQuestionAnswering(SMALL),
    "exbert": lambda: ExBertForQuestionAnswering(DistilBertModel(SMALL), ModelConfig(**HEAVY)),
    "two expert layers": lambda: ExBertForQuestionAnswering(
        DistilBertModel(SMALL), ModelConfig(**HEAVY, moe_position="replace_all_ffn")
    ),
    "library": lambda: ExBertForQuestionAnswering(DistilBertModel(SMALL), ModelConfig(**HEAVY, moe_semantics="library")),
}


def a_batch() -> dict[str, torch.Tensor]:
    """Eight windows of 4 to 30 tokens: parts differ in their real tokens, and some need less padding than the batch."""
    generator = torch.Generator().manual_seed(1)
    lengths_B = torch.tensor([4, 6, 5, 30, 28, 8, 12, 20])
    ids_BT = torch.randint(1, 50, (8, 30), generator=generator)
    mask_BT = (torch.arange(30) < lengths_B[:, None]).long()
    return {
        "input_ids": ids_BT * mask_BT,
        "attention_mask": mask_BT,
        "start_positions": lengths_B // 3,
        "end_positions": lengths_B // 2,
    }


def gradients(kind: str, num_parts: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The losses of the batch and the gradients, by parameter, in float64."""
    torch.manual_seed(0)
    model = MODELS[kind]().double()
    losses = add_gradients(model, a_batch(), num_parts, nullcontext)
    return losses, {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("num_parts", [2, 3, 100])
def test_losses_and_gradients_do_not_depend_on_the_number_of_parts(kind: str, num_parts: int) -> None:
    losses, grads = gradients(kind, 1)
    losses_of_parts, grads_of_parts = gradients(kind, num_parts)
    torch.testing.assert_close(losses_of_parts, losses, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(grads_of_parts, grads, rtol=1e-5, atol=1e-7)


def test_every_auxiliary_loss_is_among_those_returned() -> None:
    assert set(gradients("distilbert", 2)[0]) == {"train_qa_loss"}
    assert set(gradients("exbert", 2)[0]) == {"train_qa_loss", "train_aux_loss", "balance_loss", "router_z_loss"}


def test_the_fused_optimiser_takes_the_steps_of_the_plain_one() -> None:
    torch.manual_seed(0)
    fused, plain = (nn.Linear(40, 30) for _ in range(2))
    plain.load_state_dict(fused.state_dict())
    mine = make_optimizer(fused, TrainingConfig(learning_rate=1e-2, weight_decay=0.1))
    groups = [{"params": [plain.weight], "weight_decay": 0.1}, {"params": [plain.bias], "weight_decay": 0.0}]
    theirs = torch.optim.AdamW(groups, lr=1e-2, foreach=False)
    for _ in range(20):
        for here, there in zip(fused.parameters(), plain.parameters(), strict=True):
            here.grad = torch.randn_like(here)
            there.grad = here.grad.clone()
        mine.step(), theirs.step()
    torch.testing.assert_close(fused.state_dict(), plain.state_dict(), rtol=1e-6, atol=1e-7)


def test_fewer_than_one_part_is_refused(data: DataSpec, tmp_path: Path) -> None:
    folders = {"checkpoint_dir": tmp_path, "prepared_dir": tmp_path}
    with pytest.raises(ValueError, match="micro_batches must be at least 1, got 0"):
        TrialContext(seed=0, data=data, device="cpu", num_threads=1, micro_batches=0, **folders)


@pytest.mark.parametrize(("warmup_share", "warmup_steps"), [(0.0, 0), (0.1, 2), (0.3, 4), (0.5, 7), (1.0, 13)])
def test_the_learning_rate_is_that_of_transformers_linear_schedule(warmup_share: float, warmup_steps: int) -> None:
    num_steps = 13
    ours = rates(lambda optimizer: make_schedule(optimizer, num_steps, warmup_share), num_steps)
    theirs = rates(lambda optimizer: get_linear_schedule_with_warmup(optimizer, warmup_steps, num_steps), num_steps)
    assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-18)
    assert max(ours) == 1e-3 or warmup_share == 1.0
    assert (ours[0] == 0) == (warmup_steps > 0)


def rates(schedule_of: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler], num_steps: int) -> list[float]:
    """The learning rate of each step, under a peak of 1e-3."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule = schedule_of(optimizer)
    found = []
    for _ in range(num_steps):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found
