"""Routers and routed feed-forward experts: the identities of the digest, section 3.4."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from st_moe_pytorch.st_moe_pytorch import TopNGating
from transformers import DistilBertConfig, DistilBertModel

from trainables.models.routed_experts import FeedForwardExpert, RoutedExperts
from trainables.models.routers import ROUTERS, Assignment, Router, balance
from trainables.moe_variants.config import ModelConfig
from trainables.moe_variants.model import MoEVariantForQuestionAnswering, places

DIM = 16
SMALL = DistilBertConfig(vocab_size=50, dim=DIM, hidden_dim=24, n_layers=2, n_heads=2, max_position_embeddings=32)
EVERY = sorted(ROUTERS)


def a_router(name: str, num_experts: int = 4, **given_: float | bool) -> Router:
    torch.manual_seed(0)
    return ROUTERS[name](DIM, num_experts, **given_)


def tokens(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random states (B, T, D), and which of them are real."""
    total = max(lengths) + 2
    x_BTD = torch.randn(len(lengths), total, DIM, generator=torch.Generator().manual_seed(sum(lengths)))
    return x_BTD, torch.arange(total).expand(len(lengths), total) < torch.tensor(lengths)[:, None]


def dense_and_routed(**given_: object) -> tuple[DistilBertModel, MoEVariantForQuestionAnswering]:
    """The same encoder twice: as it is, and with expert layers."""
    torch.manual_seed(1)
    dense = DistilBertModel(SMALL).eval()
    copy = DistilBertModel(SMALL)
    copy.load_state_dict(dense.state_dict())
    return dense, MoEVariantForQuestionAnswering(copy, ModelConfig(**given_)).eval()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("training", [False, True])
@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4), num_experts=st.sampled_from([2, 4, 7]))
def test_whatever_is_assigned_is_consistent(name: str, training: bool, lengths: list[int], num_experts: int) -> None:
    x_BTD, mask_BT = tokens(*lengths)
    found: Assignment = a_router(name, num_experts).train(training)(x_BTD, mask_BT)
    assert not (found.kept_BTE & ~found.wanted_BTE).any()
    assert not found.wanted_BTE[~mask_BT].any()
    assert ((found.weight_BTE != 0) == found.kept_BTE).all()
    assert (found.weight_BTE >= 0).all()
    assert (found.weight_BTE.sum(dim=-1) <= 1 + 1e-5).all() or name == "expert_choice"
    torch.testing.assert_close(found.probability_BTE.sum(dim=-1), torch.ones(mask_BT.shape))
    if not training:
        assert found.balance_loss == found.router_z_loss == 0


@pytest.mark.parametrize("name", EVERY)
def test_padding_and_neighbours_in_the_batch_change_nothing_in_evaluation(name: str) -> None:
    router = a_router(name).eval()
    x_BTD, mask_BT = tokens(9, 20)
    alone = router(x_BTD[:1, :9], mask_BT[:1, :9])
    beside = router(x_BTD, mask_BT)
    torch.testing.assert_close(beside.weight_BTE[:1, :9], alone.weight_BTE)


@pytest.mark.parametrize(("name", "most"), [("switch_top1", 1), ("gshard_top2", 2), ("st_top2", 2)])
def test_a_token_has_at_most_k_experts_and_all_of_them_in_evaluation(name: str, most: int) -> None:
    x_BTD, mask_BT = tokens(9, 20)
    router = a_router(name)
    assert router.train()(x_BTD, mask_BT).kept_BTE.sum(dim=-1).max() <= most
    assert (router.eval()(x_BTD, mask_BT).kept_BTE.sum(dim=-1)[mask_BT] == most).all()


@pytest.mark.parametrize("factor", [1.0, 2.0, 4.0])
def test_expert_choice_gives_every_expert_exactly_its_tokens(factor: float) -> None:
    x_BTD, mask_BT = tokens(8, 20, 3)
    found = a_router("expert_choice", 4, capacity_factor=factor)(x_BTD, mask_BT)
    counts_BE = found.kept_BTE.sum(dim=1)
    expected = [max(1, min(length, int(length * factor / 4))) for length in (8, 20, 3)]
    assert counts_BE.tolist() == [[count] * 4 for count in expected]
    for b, length in enumerate((8, 20, 3)):  # those that give it the highest probability
        probability_TE = found.probability_BTE[b, :length]
        taken_TE = found.kept_BTE[b, :length]
        for expert in range(4):
            others = probability_TE[~taken_TE[:, expert], expert]
            assert not len(others) or probability_TE[taken_TE[:, expert], expert].min() >= others.max()


@pytest.mark.parametrize("factor", [0.5, 1.25, 4.0])
def test_switch_fills_experts_with_earlier_tokens_first(factor: float) -> None:
    x_BTD, mask_BT = tokens(12, 30)
    found = a_router("switch_top1", capacity_factor=factor).train()(x_BTD, mask_BT)
    for b, length in enumerate((12, 30)):
        room = max(1, min(length, int(length * factor / 4)))
        for expert in range(4):
            wanted = found.wanted_BTE[b, :, expert].nonzero().flatten().tolist()
            assert found.kept_BTE[b, :, expert].nonzero().flatten().tolist() == wanted[:room]


def test_soft_weights_are_the_probabilities() -> None:
    x_BTD, mask_BT = tokens(9, 20)
    found = a_router("soft")(x_BTD, mask_BT)
    torch.testing.assert_close(found.weight_BTE[mask_BT].sum(dim=-1), torch.ones(29))
    assert found.kept_BTE[mask_BT].all()


@pytest.mark.parametrize("capacity", [0.5, 1.25, 4.0])
def test_st_top2_equals_the_package_on_sequences_without_padding(capacity: float) -> None:
    router = a_router("st_top2", capacity_factor=capacity).train()
    theirs = TopNGating(DIM, 4, capacity_factor_train=capacity).train()
    theirs.load_state_dict(router.gate.state_dict())
    x_BTD = torch.randn(3, 40, DIM)
    torch.manual_seed(7)
    _, combine_BTEC, balance_loss, z_loss = theirs(x_BTD)
    torch.manual_seed(7)
    ours = router(x_BTD, torch.ones(3, 40, dtype=torch.bool))
    torch.testing.assert_close(ours.weight_BTE, combine_BTEC.sum(dim=-1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.balance_loss, balance_loss)
    torch.testing.assert_close(ours.router_z_loss, z_loss)


def test_the_second_expert_is_drawn_by_each_routers_threshold() -> None:
    """GShard: with probability min(1, 2 x share); ST-MoE: min(1, 5 x share)."""
    x_BTD, mask_BT = tokens(4000)
    for name, slope in (("gshard_top2", 2.0), ("st_top2", 5.0)):
        router = a_router(name, capacity_factor=64.0).train()
        shares = router.eval()(x_BTD, mask_BT).weight_BTE[mask_BT].topk(2, dim=-1).values[:, 1]
        taken = router.train()(x_BTD, mask_BT).kept_BTE[mask_BT].sum(dim=-1) == 2
        assert abs(taken.double().mean() - (slope * shares).clamp(max=1).mean()) < 0.03


def test_random_routing_draws_one_expert_in_training_and_takes_their_mean_in_evaluation() -> None:
    x_BTD, mask_BT = tokens(4000)
    router = a_router("random")
    drawn = router.train()(x_BTD, mask_BT)
    assert (drawn.weight_BTE[mask_BT].sum(dim=-1) == 1).all()
    assert (drawn.kept_BTE.sum(dim=(0, 1)) / 4000 - 0.25).abs().max() < 0.03
    assert (router.eval()(x_BTD, mask_BT).weight_BTE[mask_BT] == 0.25).all()
    assert not list(router.parameters())


@pytest.mark.parametrize("num_experts", [2, 4, 8])
def test_the_balance_loss_is_1_for_uniform_and_n_for_collapsed_routing(num_experts: int) -> None:
    mask_BT = torch.tensor([[True] * num_experts + [False], [True] * num_experts + [False]])
    uniform_BTE = torch.full((2, num_experts + 1, num_experts), 1 / num_experts)
    for token in range(num_experts):  # ties broken evenly
        uniform_BTE[:, token, token] += 1e-6
    assert balance(uniform_BTE, mask_BT).item() == pytest.approx(1, abs=1e-4)
    collapsed_BTE = torch.zeros(2, num_experts + 1, num_experts)
    collapsed_BTE[..., 1] = 1
    assert balance(collapsed_BTE, mask_BT).item() == pytest.approx(num_experts)


@pytest.mark.parametrize("name", ["switch_top1", "expert_choice"])
def test_normalized_gates_sum_to_1(name: str) -> None:
    x_BTD, mask_BT = tokens(9, 20)
    weight_BTE = a_router(name, normalized=True).eval()(x_BTD, mask_BT).weight_BTE
    sums = weight_BTE[mask_BT].sum(dim=-1)
    assert ((sums - 1).abs() < 1e-5)[sums > 0].all()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("placement", ["last_blocks", "every_second", "all"])
def test_upcycled_experts_equal_the_dense_model_at_step_0(name: str, placement: str) -> None:
    """With weights that sum to 1, and room for every token."""
    alone = {"switch_top1": {"normalized_gates": True}, "expert_choice": {"normalized_gates": True, "capacity_factor": 4}}
    dense, routed = dense_and_routed(router=name, num_experts=4, placement=placement, **alone.get(name, {}))
    ids = torch.randint(50, (3, 12))
    mask = torch.arange(12).expand(3, 12) < torch.tensor([[12], [7], [3]])
    expected = dense(ids, mask.long()).last_hidden_state
    for layer in routed.expert_layers:
        layer.moe.token_mask_BT = mask
    found = routed.distilbert(ids, mask.long()).last_hidden_state
    torch.testing.assert_close(found[mask], expected[mask], rtol=1e-4, atol=1e-5)


def test_noise_and_random_experts_do_not_equal_the_dense_model() -> None:
    ids = torch.randint(50, (2, 8))
    for init in ("upcycled_noise", "random"):
        dense, routed = dense_and_routed(router="soft", num_experts=2, expert_init=init, expert_noise=0.1)
        assert not torch.allclose(dense(ids).last_hidden_state, routed.distilbert(ids).last_hidden_state, atol=1e-4)


def test_noise_has_the_size_that_is_asked_for() -> None:
    dense, routed = dense_and_routed(num_experts=8, expert_init="upcycled_noise", expert_noise=0.25)
    trained = dense.transformer.layer[-1].ffn.lin1.weight
    experts = routed.expert_layers[0].moe.experts
    noise = torch.stack([expert.lin1.weight - trained for expert in experts]).std() / trained.std()
    assert noise.item() == pytest.approx(0.25, rel=0.1)


@pytest.mark.parametrize(
    ("freeze", "frozen"), [("none", set()), ("gate", {"router"}), ("expert", {"experts"}), ("moe", {"router", "experts"})]
)
def test_what_is_frozen_does_not_learn_and_all_else_does(freeze: str, frozen: set[str]) -> None:
    _, model = dense_and_routed(num_experts=2, freeze=freeze)
    model.train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        ids = torch.randint(50, (4, 12))
        model(ids, torch.ones_like(ids), torch.randint(12, (4,)), torch.randint(12, (4,))).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, parameter in model.named_parameters():
        is_frozen = name.startswith("expert_layers") and any(f".{part}." in name for part in frozen)
        unused = "k_lin.bias" in name or "position_embeddings" in name or "word_embeddings" in name
        if is_frozen:
            assert torch.equal(parameter, before[name]), name
        elif not unused:
            assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize(
    ("placement", "num_blocks", "expected"),
    [("after_last", 1, [5]), ("last_blocks", 2, [4, 5]), ("every_second", 1, [1, 3, 5]), ("all", 1, [0, 1, 2, 3, 4, 5])],
)
def test_expert_layers_sit_where_the_settings_say(placement: str, num_blocks: int, expected: list[int]) -> None:
    init = "random" if placement == "after_last" else "upcycled"
    assert list(places(ModelConfig(placement=placement, num_blocks=num_blocks, expert_init=init), 6)) == expected


def test_mixing_is_the_weighted_sum_of_the_experts_that_take_a_token() -> None:
    torch.manual_seed(0)
    layer = RoutedExperts(a_router("gshard_top2"), [FeedForwardExpert(SMALL, 0.0) for _ in range(4)], 0.0, 0.0).eval()
    x_BTD, mask_BT = tokens(9, 20)
    layer.token_mask_BT = mask_BT
    weight_BTE = layer.router(x_BTD, mask_BT).weight_BTE
    expected = sum(weight_BTE[..., e, None] * expert(x_BTD) for e, expert in enumerate(layer.experts))
    torch.testing.assert_close(layer(x_BTD), expected)
    assert layer.tally.tokens == 58 / 2


def test_settings_that_do_not_go_together_are_refused() -> None:
    for given_, said in (
        ({"placement": "after_last"}, "no feed-forward to copy"),
        ({"normalized_gates": True}, "sum to 1 anyway"),
        ({"router": "soft", "capacity_factor": 2}, "no capacity"),
        ({"router": "random", "freeze": "gate"}, "no gate"),
        ({"n_layers": 1, "num_blocks": 2}, r"\[1, n_layers=1\]"),
        ({"n_layers": 1, "placement": "every_second"}, "no second block"),
    ):
        with pytest.raises(ValueError, match=said):
            ModelConfig(**given_)
