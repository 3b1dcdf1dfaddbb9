"""The gated ensemble: the checks of the digest, section 2."""

import copy

import pytest
import torch
from transformers import DistilBertConfig, DistilBertForQuestionAnswering, DistilBertModel

from trainables.gated_ensemble.config import Config, ModelConfig, parents_of
from trainables.gated_ensemble.model import GatedEnsemble
from trainables.models.encoder import draw_again

SMALL = DistilBertConfig(vocab_size=50, dim=16, hidden_dim=24, n_layers=4, n_heads=2, max_position_embeddings=32)
INPUTS = ["base_mean", "base_cls", "embedding_mean", "expert_cls"]


def an_ensemble(num_experts: int = 3, **given: object) -> GatedEnsemble:
    torch.manual_seed(0)
    experts = [DistilBertForQuestionAnswering(SMALL) for _ in range(num_experts)]
    for expert in experts:
        torch.nn.init.normal_(expert.qa_outputs.weight)
    return GatedEnsemble(DistilBertModel(SMALL), experts, ModelConfig(gate_hidden=8, **given))


def some_windows() -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([[12], [7], [3]])
    return torch.randint(50, (3, 12), generator=torch.Generator().manual_seed(2)), (torch.arange(12) < lengths).long()


def one_hot(model: GatedEnsemble, expert: int) -> None:
    """Makes the gate take this expert whatever it reads."""
    last = model.gate.layers[-1]
    torch.nn.init.zeros_(last.weight)
    last.bias.data = torch.full_like(last.bias, -1e4)
    last.bias.data[expert] = 1e4


@pytest.mark.parametrize("gate_input", INPUTS)
def test_gate_weights_sum_to_1_and_do_not_depend_on_padding(gate_input: str) -> None:
    model = an_ensemble(gate_input=gate_input).eval()
    seen = []
    model.gate.register_forward_hook(lambda _module, _inputs, weight_BE: seen.append(weight_BE))
    ids, mask = some_windows()
    model(ids, mask)
    model(ids[2:, :3], mask[2:, :3])
    torch.testing.assert_close(seen[0].sum(dim=-1), torch.ones(3))
    torch.testing.assert_close(seen[0][2:], seen[1], rtol=1e-4, atol=1e-5)
    assert seen[0].std(dim=0).min() > 0


@pytest.mark.parametrize("combine", ["logits", "probabilities"])
@pytest.mark.parametrize("expert", [0, 2])
def test_a_one_hot_gate_is_that_expert(combine: str, expert: int) -> None:
    model = an_ensemble(combine=combine).eval()
    one_hot(model, expert)
    ids, mask = some_windows()
    found, alone = model(ids, mask), model.experts[expert](ids, mask)
    real = mask.bool()
    for name in ("start_logits", "end_logits"):
        mine, theirs = getattr(found, name), getattr(alone, name)
        if combine == "probabilities":
            theirs = theirs.masked_fill(~real, -torch.inf).log_softmax(dim=-1)
        torch.testing.assert_close(mine[real], theirs[real], rtol=1e-4, atol=1e-5)


def test_probabilities_are_mixed_as_the_equation_says() -> None:
    model = an_ensemble(combine="probabilities").eval()
    weights = []
    model.gate.register_forward_hook(lambda _module, _inputs, weight_BE: weights.append(weight_BE))
    ids, mask = some_windows()
    found = model(ids, mask).start_logits
    shares = [expert(ids, mask).start_logits.masked_fill(mask == 0, -torch.inf).softmax(dim=-1) for expert in model.experts]
    expected = sum(weights[0][:, e, None] * share for e, share in enumerate(shares))
    torch.testing.assert_close(found.exp()[mask.bool()], expected[mask.bool()], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close((found.exp() * mask).sum(dim=-1), torch.ones(3))


@pytest.mark.parametrize("gate_input", INPUTS)
def test_only_the_gate_learns(gate_input: str) -> None:
    model = an_ensemble(gate_input=gate_input).train()
    assert not any(module.training for module in (*model.experts.modules(), *model.base.modules()))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        ids, mask = some_windows()
        model(ids, mask, torch.tensor([1, 2, 1]), torch.tensor([4, 3, 2])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != name.startswith("gate."), name


@pytest.mark.parametrize("num_blocks", [0, 2, 4])
def test_exactly_the_last_blocks_are_drawn_again_as_the_paper_says(num_blocks: int) -> None:
    torch.manual_seed(0)
    encoder = DistilBertModel(SMALL)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter)
    before = copy.deepcopy(encoder)
    draw_again(encoder, num_blocks)
    for place, (block, old) in enumerate(zip(encoder.transformer.layer, before.transformer.layer, strict=True)):
        is_new = place >= 4 - num_blocks
        for (name, parameter), was in zip(block.named_parameters(), old.parameters(), strict=True):
            assert torch.equal(parameter, was) != is_new, (place, name)
            if is_new and "norm" in name:
                assert torch.equal(parameter, torch.full_like(parameter, float(name.endswith("weight"))))
            elif is_new and name.endswith("bias"):
                assert not parameter.any()
            elif is_new:
                assert parameter.std().item() == pytest.approx(SMALL.initializer_range, rel=0.2)
    assert torch.equal(encoder.embeddings.word_embeddings.weight, before.embeddings.word_embeddings.weight)


def test_an_ensemble_begins_from_an_expert_of_each_domain() -> None:
    points = parents_of(Config.model_validate({"model": {"n_layers": 3, "reinit_k": 2}}))
    assert [(point.trainable, point.share) for point in points] == [("distilbert", 100), ("distilbert", 0)]
    assert all(point.model == {"n_layers": 3, "reinit_k": 2} for point in points)
