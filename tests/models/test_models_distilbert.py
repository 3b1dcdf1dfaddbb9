"""V-DB with a dense block: as large as one of ExBERT's experts, and where its expert layer sits."""

import pytest
import torch
from transformers import DistilBertConfig, DistilBertForQuestionAnswering, DistilBertModel

from trainables.distilbert.model import add_dense_block
from trainables.exbert.config import ModelConfig
from trainables.exbert.model import ExBertForQuestionAnswering
from trainables.models.experts import DenseBlock

SMALL = DistilBertConfig(vocab_size=50, dim=16, hidden_dim=32, n_layers=2, n_heads=2, max_position_embeddings=32)


def num_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def a_model() -> DistilBertForQuestionAnswering:
    torch.manual_seed(0)
    model = DistilBertForQuestionAnswering(SMALL)
    add_dense_block(model)
    return model


def inputs() -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 50, (2, 12), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


# Source: papers digest 5.2, E4: 4,725,504 parameters an expert, at the encoder's width of 768; its normalisation has 768 more.
EXPERT = 4_725_504


def test_a_dense_block_is_as_large_as_an_expert_with_its_normalisation() -> None:
    with torch.device("meta"):
        plain, control = (DistilBertForQuestionAnswering(DistilBertConfig(n_layers=4)) for _ in range(2))
        add_dense_block(control)
        exbert = ExBertForQuestionAnswering(DistilBertModel(DistilBertConfig(n_layers=4)), ModelConfig())
    assert num_parameters(control) - num_parameters(plain) == EXPERT + 768
    assert num_parameters(exbert.expert_layers[0].moe.experts.experts[0]) == EXPERT


def test_a_dense_block_does_what_an_expert_layer_does_whose_every_token_goes_to_one_expert() -> None:
    layer = ExBertForQuestionAnswering(DistilBertModel(SMALL), ModelConfig(num_experts=2)).expert_layers[0].block.eval()
    expert, other = layer.moe.experts.experts
    other.load_state_dict(expert.state_dict())  # whatever the router says
    layer.ff_after = None
    dense = DenseBlock(SMALL.dim)
    dense.expert.net[0].load_state_dict(layer.moe_prenorm.state_dict())
    for ours, theirs in zip(dense.expert.net[1:], expert.net, strict=True):
        ours.load_state_dict(theirs.state_dict())
    x_BTD = torch.randn(2, 12, SMALL.dim, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(dense(x_BTD), layer(x_BTD).outputs)


def test_the_dense_block_is_the_last_before_the_head_and_all_of_it_trains() -> None:
    model = a_model()
    seen: list[torch.Tensor] = []
    model.dense_block.register_forward_hook(lambda _module, _inputs, out_BTD: seen.append(out_BTD))
    output = model(**inputs(), start_positions=torch.tensor([1, 2]), end_positions=torch.tensor([3, 4]))
    assert torch.isfinite(output.loss)
    output.loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.dense_block.parameters())
    model.eval()
    logits_BT = model(**inputs()).start_logits
    assert len(seen) == 2
    torch.testing.assert_close(model.qa_outputs(seen[-1])[..., 0], logits_BT)


def test_its_parameters_have_one_name() -> None:
    names = [name for name in a_model().state_dict() if "expert" in name]
    assert all(name.startswith("dense_block.") for name in names)
    assert len(names) == len(list(DenseBlock(SMALL.dim).parameters()))


@pytest.mark.parametrize("bfloat16", [False, True])
def test_its_output_keeps_the_type_of_what_comes_in(bfloat16: bool) -> None:
    x_BTD = torch.randn(1, 3, SMALL.dim)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
        out_BTD = DenseBlock(SMALL.dim)(x_BTD)
    assert out_BTD.dtype == x_BTD.dtype
