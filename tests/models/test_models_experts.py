"""The expert layer: equal to the package where that is well defined, mended where it is not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from st_moe_pytorch import MoE

from trainables.models.experts import ExactMoE, LibraryMoE, route
from trainables.models.tally import num_active

DIM = 16


def a_layer(kind: type[MoE], num_experts: int = 4, **settings_: float) -> MoE:
    torch.manual_seed(0)
    return kind(dim=DIM, num_experts=num_experts, is_distributed=False, **settings_)


def with_mask(layer: ExactMoE, mask_BT: torch.Tensor) -> ExactMoE:
    layer.token_mask_BT = mask_BT
    return layer


@pytest.mark.parametrize("num_experts", [2, 4, 16])
@pytest.mark.parametrize("capacity", [0.5, 1.25, 4.0])
def test_training_equals_the_package_on_sequences_without_padding(num_experts: int, capacity: float) -> None:
    library = a_layer(MoE, num_experts, capacity_factor_train=capacity)
    exact = a_layer(ExactMoE, num_experts, capacity_factor_train=capacity)
    exact.load_state_dict(library.state_dict())
    x_BTD = torch.randn(3, 40, DIM)
    passes = []
    for layer in (library, exact):
        inputs = x_BTD.clone().requires_grad_()
        torch.manual_seed(7)
        result = layer(inputs)
        (result.outputs.square().sum() + result.total_aux_loss.sum()).backward()
        passes.append((result, inputs.grad, [p.grad for p in layer.parameters()]))
    (theirs, their_input, their_grads), (ours, our_input, our_grads) = passes
    torch.testing.assert_close(ours.outputs, theirs.outputs, rtol=1e-5, atol=1e-6)
    for name in ("total_aux_loss", "balance_loss", "router_z_loss"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(our_input, their_input, rtol=1e-4, atol=1e-6)
    for mine, other in zip(our_grads, their_grads, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def passes(layer: ExactMoE, way: str, x_BTD: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Output, auxiliary loss and all gradients of a training pass whose experts are run in the given way."""
    layer.zero_grad()
    layer._mix = getattr(layer, way)  # type: ignore[method-assign]
    inputs = x_BTD.clone().requires_grad_()
    torch.manual_seed(7)
    result = layer(inputs)
    (result.outputs.square().sum() + result.total_aux_loss.sum()).backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
    return result.outputs, result.total_aux_loss, inputs.grad, *(p.grad.clone() for p in layer.parameters())


@settings(max_examples=15, deadline=None)
@given(
    num_experts=st.sampled_from([2, 5, 16]),
    capacity=st.sampled_from([0.5, 1.0, 1.25, 4.0]),
    threshold=st.sampled_from([1e-9, 0.2, 1.0]),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    sharpness=st.sampled_from([0.0, 1.0, 20.0]),
)
def test_experts_in_slots_equal_experts_one_by_one(
    num_experts: int, capacity: float, threshold: float, lengths: list[int], sharpness: float
) -> None:
    layer = a_layer(ExactMoE, num_experts, capacity_factor_train=capacity, threshold_train=threshold)
    with torch.no_grad():
        layer.gate.to_gates.weight.mul_(sharpness)  # from all tokens at one expert to all over the place
    total = max(lengths) + 3
    with_mask(layer, torch.arange(total).expand(len(lengths), total) < torch.tensor(lengths)[:, None])
    x_BTD = torch.randn(len(lengths), total, DIM, generator=torch.Generator().manual_seed(sum(lengths)))
    simple, slots = (passes(layer, way, x_BTD) for way in ("_mix_one_by_one", "_mix_in_slots"))
    for found, expected in zip(slots, simple, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_experts", [4, 16])
def test_slots_equal_the_package_where_no_draw_matters(num_experts: int) -> None:
    given = {"threshold_train": 1e-9, "capacity_factor_train": 1.0}
    library, exact = a_layer(MoE, num_experts, **given), a_layer(ExactMoE, num_experts, **given)
    assert list(exact.state_dict()) == list(library.state_dict())
    library.load_state_dict(exact.state_dict())
    x_BTD = torch.randn(3, 40, DIM)
    outputs, aux, *grads = passes(exact, "_mix_in_slots", x_BTD)
    inputs = x_BTD.clone().requires_grad_()
    result = library(inputs)
    (result.outputs.square().sum() + result.total_aux_loss.sum()).backward()
    torch.testing.assert_close(outputs, result.outputs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(aux, result.total_aux_loss, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(grads, [inputs.grad, *(p.grad for p in library.parameters())], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_slots_are_left_where_they_would_be_many_or_experts_drop_out() -> None:
    x_BTD = torch.randn(2, 40, DIM)
    assert a_layer(ExactMoE, 4)._fits_slots(x_BTD)
    assert not a_layer(ExactMoE, 16, capacity_factor_train=8.0)._fits_slots(x_BTD)
    layer = a_layer(ExactMoE, 4)
    layer.experts.experts[0].net.insert(2, torch.nn.Dropout(0.1))
    assert not layer._fits_slots(x_BTD)


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 30), padding=st.integers(0, 30), others=st.integers(0, 3), seed=st.integers(0, 10))
def test_an_output_in_evaluation_depends_on_its_own_tokens_alone(length: int, padding: int, others: int, seed: int) -> None:
    layer = a_layer(ExactMoE).eval()
    generator = torch.Generator().manual_seed(seed)
    alone_1TD = torch.randn(1, length, DIM, generator=generator)
    total = length + padding
    batch_BTD = torch.randn(1 + others, total, DIM, generator=generator)
    batch_BTD[0, :length] = alone_1TD[0]
    mask_BT = torch.ones(1 + others, total, dtype=torch.bool)
    mask_BT[0, length:] = False
    with torch.no_grad():
        single = with_mask(layer, torch.ones(1, length, dtype=torch.bool))(alone_1TD).outputs[0]
        together = with_mask(layer, mask_BT)(batch_BTD).outputs[0, :length]
    torch.testing.assert_close(together, single, rtol=1e-4, atol=1e-5)


def test_evaluation_is_the_same_bits_twice() -> None:
    layer = a_layer(ExactMoE).eval()
    x_BTD = torch.randn(2, 50, DIM)
    assert torch.equal(layer(x_BTD).outputs, layer(x_BTD).outputs)


def test_evaluation_drops_no_token_however_crowded_an_expert_is() -> None:
    layer = a_layer(ExactMoE).eval()
    routing = route(layer.gate, torch.ones(1, 100, DIM), torch.ones(1, 100, dtype=torch.bool))
    assert routing.kept_BTK.all()


def test_padding_changes_neither_outputs_nor_losses_in_training() -> None:
    layer = a_layer(ExactMoE, threshold_train=1e-9)  # both experts always taken: nothing depends on draws
    x_BTD = torch.randn(2, 20, DIM)
    padded_BTD = torch.cat([x_BTD, torch.randn(2, 15, DIM) * 100], dim=1)
    mask_BT = torch.arange(35).expand(2, 35) < 20
    plain = with_mask(layer, torch.ones(2, 20, dtype=torch.bool))(x_BTD)
    padded = with_mask(layer, mask_BT)(padded_BTD)
    torch.testing.assert_close(padded.outputs[:, :20], plain.outputs)
    assert padded.outputs[:, 20:].abs().max() == 0
    torch.testing.assert_close(padded.total_aux_loss, plain.total_aux_loss)


def test_capacity_is_never_exceeded_in_training() -> None:
    layer = a_layer(ExactMoE, capacity_factor_train=1.0)
    mask_BT = torch.arange(64).expand(3, 64) < torch.tensor([64, 40, 10])[:, None]
    routing = route(layer.gate, torch.randn(3, 64, DIM) + 2.0, mask_BT)
    used_BE = torch.nn.functional.one_hot(routing.expert_BTK, 4).mul(routing.kept_BTK[..., None]).sum(dim=(1, 2))
    assert (used_BE <= torch.tensor([16, 10, 4])[:, None]).all()
    assert not routing.kept_BTK[~mask_BT].any()


def test_the_tally_counts_every_assignment_once() -> None:
    layer = with_mask(a_layer(ExactMoE).eval(), torch.arange(30).expand(2, 30) < 25)
    layer(torch.randn(2, 30, DIM))
    assert layer.tally.tokens == 50
    assert layer.tally.wanted.sum() == 100
    assert layer.tally.probability.sum() == pytest.approx(50)


def test_library_semantics_keep_the_packages_chance_in_evaluation() -> None:
    layer = a_layer(LibraryMoE, num_experts=2).eval()
    with torch.no_grad():
        layer.gate.to_gates.weight.mul_(20)  # sharp gates: the second share is often below the threshold
    x_BTD = torch.randn(4, 64, DIM)
    assert not torch.equal(layer(x_BTD).outputs, layer(x_BTD).outputs)
    assert layer.tally.wanted.sum() == 2 * 2 * 4 * 64


def test_of_an_expert_layer_two_experts_count_as_active() -> None:
    layer = ExactMoE(dim=8, num_experts=5)
    expert = sum(p.numel() for p in layer.experts.experts[0].parameters())
    total = sum(p.numel() for p in layer.parameters())
    assert num_active(layer) == total - 3 * expert
    assert num_active(torch.nn.Linear(3, 4)) == 16
