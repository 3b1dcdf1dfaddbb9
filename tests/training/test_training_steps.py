"""The gradients of a batch that goes through the model in parts are those of the whole batch."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from transformers import DistilBertConfig, DistilBertForQuestionAnswering, DistilBertModel

from trainables.contract import TrialContext
from trainables.data.spec import DataSpec
from trainables.exbert.config import ModelConfig
from trainables.exbert.model import ExBertForQuestionAnswering
from trainables.training.steps import add_gradients

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


def test_fewer_than_one_part_is_refused(data: DataSpec, tmp_path: Path) -> None:
    folders = {"checkpoint_dir": tmp_path, "prepared_dir": tmp_path}
    with pytest.raises(ValueError, match="micro_batches must be at least 1, got 0"):
        TrialContext(seed=0, data=data, device="cpu", num_threads=1, micro_batches=0, **folders)
