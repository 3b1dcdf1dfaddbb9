"""Adapters and their mixtures: the identities and sizes of the digest, section 3.4."""

import pytest
import torch
from transformers import DistilBertConfig, DistilBertModel

from trainables.adapters.config import ModelConfig
from trainables.adapters.model import AdaptersForQuestionAnswering
from trainables.models.adapters import AdapterMixture, LoraMixture, VectorMixture

SMALL = DistilBertConfig(
    vocab_size=50, dim=16, hidden_dim=24, n_layers=2, n_heads=2, max_position_embeddings=32, dropout=0.0, attention_dropout=0.0
)
BASE = DistilBertConfig()
EVERY = [
    {"method": "ia3", "num_experts": 1, "rank": None},
    {"method": "lora", "num_experts": 1, "rank": 3},
    {"method": "mov", "num_experts": 4, "rank": None},
    {"method": "molora", "num_experts": 4, "rank": 3},
    {"method": "molora", "num_experts": 4, "rank": 3, "merging": "top2"},
    {"method": "mov", "num_experts": 4, "rank": None, "merging": "top1"},
    {"method": "mov", "num_experts": 4, "rank": None, "routing_input": "sentence"},
    {"method": "molora", "num_experts": 4, "rank": 3, "routing_input": "sentence", "merging": "top2"},
]


def plain_and_adapted(**given: object) -> tuple[DistilBertModel, AdaptersForQuestionAnswering]:
    torch.manual_seed(1)
    plain = DistilBertModel(SMALL).eval()
    copy = DistilBertModel(SMALL)
    copy.load_state_dict(plain.state_dict())
    return plain, AdaptersForQuestionAnswering(copy, ModelConfig(**given)).eval()


def adapters_of(model: AdaptersForQuestionAnswering) -> list[AdapterMixture]:
    return [module for module in model.modules() if isinstance(module, AdapterMixture)]


def some_windows() -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([[12], [7], [3]])
    return torch.randint(50, (3, 12), generator=torch.Generator().manual_seed(2)), (torch.arange(12) < lengths).long()


def scrambled(model: AdaptersForQuestionAnswering) -> AdaptersForQuestionAnswering:
    """Adapters and routers far from where they begin."""
    torch.manual_seed(5)
    for adapter in adapters_of(model):
        for parameter in adapter.parameters():
            torch.nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("given", EVERY, ids=str)
def test_adapters_begin_as_the_identity(given: dict[str, object]) -> None:
    plain, model = plain_and_adapted(**given)
    ids, mask = some_windows()
    expected = plain(ids, mask).last_hidden_state
    found = model(ids, mask, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("given", EVERY, ids=str)
def test_only_adapters_and_the_head_learn(given: dict[str, object]) -> None:
    _, model = plain_and_adapted(**given)
    model.train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        ids, mask = some_windows()
        model(ids, mask, torch.tensor([1, 2, 1]), torch.tensor([4, 3, 2])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, parameter in model.named_parameters():
        if name.startswith("distilbert"):
            assert torch.equal(parameter, before[name]), name
        else:
            assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"method": "ia3", "num_experts": 1, "rank": None}, 27_648),
        *(({"method": "lora", "num_experts": 1, "rank": rank}, 82_944 * rank) for rank in (4, 8, 16)),
        # vectors + routers of 768 inputs at three places of six blocks
        *(({"method": "mov", "num_experts": n, "rank": None}, n * 27_648 + 18 * 768 * n) for n in (10, 30, 60)),
        # adapters + routers of each projection's own input, of which one in six has 3,072
        *(({"method": "molora", "num_experts": n, "rank": 4}, n * (331_776 + 6 * (5 * 768 + 3_072))) for n in (2, 10, 15)),
    ],
    ids=str,
)  # fmt: skip
def test_as_many_parameters_learn_as_the_digest_says(given: dict[str, object], expected: int) -> None:
    with torch.device("meta"):
        model = AdaptersForQuestionAnswering(DistilBertModel(BASE), ModelConfig(**given))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) - (768 * 2 + 2) == expected


def test_the_digests_shares_of_parameters() -> None:
    """Percent of the 66,364,418 of the base model."""
    shares = {
        ("ia3", 1, None): 0.042, ("mov", 10, None): 0.63, ("mov", 30, None): 1.9, ("mov", 60, None): 3.8,
        ("molora", 2, 4): 1.1, ("molora", 10, 4): 5.6, ("molora", 15, 4): 8.4,
    }  # fmt: skip
    for (method, number, rank), percent in shares.items():
        with torch.device("meta"):
            model = AdaptersForQuestionAnswering(
                DistilBertModel(BASE), ModelConfig(method=method, num_experts=number, rank=rank)
            )
        learning = sum(p.numel() for p in model.parameters() if p.requires_grad) - (768 * 2 + 2)
        assert 100 * learning / 66_364_418 == pytest.approx(percent, rel=0.03)


def test_ia3_is_its_formula() -> None:
    """softmax(Q (l_k * K)' / sqrt d) (l_v * V), and W2 (l_ff * gelu(W1 x))."""
    plain, model = plain_and_adapted(method="ia3", num_experts=1, rank=None)
    scrambled(model)
    with torch.no_grad():  # scaling a projection's output is scaling its rows, and its input its columns
        for block, (keys, values, inner) in zip(plain.transformer.layer, in_threes(adapters_of(model)), strict=True):
            for linear, adapter in ((block.attention.k_lin, keys), (block.attention.v_lin, values)):
                linear.weight.mul_(adapter.vectors_EO.T)
                linear.bias.mul_(adapter.vectors_EO[0])
            block.ffn.lin2.weight.mul_(inner.vectors_EO)
    ids, mask = some_windows()
    found = model(ids, mask, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(found[mask.bool()], plain(ids, mask).last_hidden_state[mask.bool()], rtol=1e-3, atol=1e-4)


def in_threes(adapters: list[AdapterMixture]) -> list[tuple[VectorMixture, ...]]:
    return [tuple(adapters[i : i + 3]) for i in range(0, len(adapters), 3)]


def test_lora_is_its_formula() -> None:
    """W x + B A x on all six projections."""
    plain, model = plain_and_adapted(method="lora", num_experts=1, rank=3)
    scrambled(model)
    adapters = iter(adapters_of(model))
    with torch.no_grad():
        for block in plain.transformer.layer:
            attention, feed_forward = block.attention, block.ffn
            for linear in (
                attention.q_lin, attention.k_lin, attention.v_lin, attention.out_lin, feed_forward.lin1, feed_forward.lin2
            ):  # fmt: skip
                adapter = next(adapters)
                linear.weight.add_(adapter.up_ERO[0].T @ adapter.down_ERI[0])
    ids, mask = some_windows()
    found = model(ids, mask, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(found[mask.bool()], plain(ids, mask).last_hidden_state[mask.bool()], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("mixture", "plain"), [("mov", "ia3"), ("molora", "lora")])
def test_a_mixture_of_one_is_the_plain_adapter(mixture: str, plain: str) -> None:
    rank = 3 if plain == "lora" else None
    models = [plain_and_adapted(method=method, num_experts=1, rank=rank)[1] for method in (mixture, plain)]
    ids, mask = some_windows()
    first, second = (scrambled(model)(ids, mask) for model in models)
    torch.testing.assert_close(first.start_logits, second.start_logits, rtol=0, atol=0)
    assert [n for n, _ in models[0].named_parameters()] == [n for n, _ in models[1].named_parameters()]


def a_mixture(kind: str, merging: str, num_experts: int = 5) -> AdapterMixture:
    torch.manual_seed(0)
    if kind == "mov":
        mixture: AdapterMixture = VectorMixture(12, 8, num_experts, merging, 0.0)
    else:
        mixture = LoraMixture(8, 12, 3, 8, num_experts, merging, 0.0)
    for parameter in mixture.parameters():
        torch.nn.init.normal_(parameter)
    return mixture.eval()


def test_soft_merging_is_the_weighted_sum() -> None:
    x_BTD, scaled_BTO = torch.randn(2, 7, 8), torch.randn(2, 7, 12)
    vectors, lora = a_mixture("mov", "soft"), a_mixture("molora", "soft")
    for mixture, found, parts in (
        (vectors, vectors(x_BTD, scaled_BTO), [scaled_BTO * vector for vector in vectors.vectors_EO]),
        (lora, lora(x_BTD), [x_BTD @ down.T @ up for down, up in zip(lora.down_ERI, lora.up_ERO, strict=True)]),
    ):
        share_BTE = mixture.router(x_BTD).softmax(dim=-1)
        torch.testing.assert_close(
            found, sum(share_BTE[..., e, None] * part for e, part in enumerate(parts)), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize(("merging", "number"), [("top1", 1), ("top2", 2), ("soft", 5)])
@pytest.mark.parametrize("kind", ["mov", "molora"])
def test_exactly_k_weights_are_not_zero_and_they_sum_to_1(kind: str, merging: str, number: int) -> None:
    mixture = a_mixture(kind, merging)
    weight_BTE = mixture.weights(torch.randn(3, 9, 8))
    assert ((weight_BTE != 0).sum(dim=-1) == number).all()
    torch.testing.assert_close(weight_BTE.sum(dim=-1), torch.ones(3, 9))
    likeliest = mixture.router(x := torch.randn(1, 1, 8)).topk(number, dim=-1).indices
    assert (mixture.weights(x).gather(-1, likeliest) > 0).all()


@pytest.mark.parametrize("merging", ["soft", "top1", "top2"])
def test_the_router_learns_however_adapters_are_merged(merging: str) -> None:
    mixture = a_mixture("molora", merging).train()
    mixture(torch.randn(2, 6, 8)).square().sum().backward()
    assert mixture.router.weight.grad.abs().max() > 0


def test_by_sentence_all_tokens_of_a_window_have_the_same_weights() -> None:
    _, model = plain_and_adapted(method="mov", num_experts=4, rank=None, routing_input="sentence")
    scrambled(model)
    seen = []
    for adapter in adapters_of(model):
        usual = adapter.weights
        adapter.weights = lambda x, usual=usual: seen.append(usual(x)) or seen[-1]  # type: ignore[method-assign]
    ids, mask = some_windows()
    model(ids, mask)
    assert len(seen) == 6
    for weight_BTE in seen:
        torch.testing.assert_close(weight_BTE, weight_BTE[:, :1].expand_as(weight_BTE))
        assert not torch.allclose(weight_BTE[0], weight_BTE[1])


def test_the_sentence_does_not_depend_on_the_adapters_or_padding() -> None:
    _, model = plain_and_adapted(method="mov", num_experts=4, rank=None, routing_input="sentence")
    ids, mask = some_windows()
    model(ids, mask)
    before = model.expert_layers[0].sentence_BD
    scrambled(model)(ids, mask)
    torch.testing.assert_close(model.expert_layers[0].sentence_BD, before)
    model.train()(ids[1:2, :7], mask[1:2, :7], torch.tensor([1]), torch.tensor([2]))
    torch.testing.assert_close(model.expert_layers[0].sentence_BD, before[1:2])
    assert model.distilbert.training


def test_settings_that_do_not_go_together_are_refused() -> None:
    for given, said in (
        ({"method": "ia3", "rank": None}, "num_experts must be 1 with method='ia3', got 10; its mixture is 'mov'"),
        ({"method": "mov", "rank": 4}, "rank must be null"),
        ({"method": "molora", "rank": None}, "rank must be given"),
        ({"num_experts": 1, "merging": "top2"}, "merging must be 'soft' with num_experts=1"),
        ({"num_experts": 1, "routing_input": "sentence"}, "routing_input must be 'token'"),
    ):
        with pytest.raises(ValueError, match=said):
            ModelConfig(**given)
