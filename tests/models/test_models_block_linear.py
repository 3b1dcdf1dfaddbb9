"""Linear layers by blocks of rows equal torch's own."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import DistilBertModel

from trainables.embedded import ENCODER_PATH
from trainables.exbert.config import ModelConfig
from trainables.exbert.model import ExBertForQuestionAnswering
from trainables.models import block_linear
from trainables.models.block_linear import BlockLinear, use_blocks
from trainables.models.encoder import load_encoder

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@pytest.fixture(autouse=True, scope="module")
def small_products_too() -> Iterator[None]:
    """What is small goes through blocks as well, or these tests would take minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_linear, "_LEAST_MULTIPLICATIONS", 1)
        yield


@pytest.fixture
def gaining(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are taken whatever CPU this is."""
    monkeypatch.setattr(block_linear, "gains_by_blocks", lambda: True)


def results(layer: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Output and all gradients."""
    inputs = x.clone().requires_grad_()
    out = layer(inputs)
    (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
    assert inputs.grad is not None
    return [out.detach(), inputs.grad, *(p.grad for p in layer.parameters() if p.grad is not None)]


@settings(max_examples=30, deadline=None)
@given(rows=st.one_of(st.integers(0, 2500), st.sampled_from([63, 64, 65, 256, 1024, 1088, 1344, 2048])), bias=st.booleans())
def test_output_and_gradients_equal_those_of_a_plain_layer(rows: int, bias: bool) -> None:
    torch.manual_seed(rows)
    plain = nn.Linear(40, 72, bias=bias)
    blocks = BlockLinear(40, 72, bias=bias)
    blocks.load_state_dict(plain.state_dict())
    x = torch.randn(rows, 40)
    for mine, theirs in zip(results(blocks, x), results(plain, x), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5 * max(1.0, rows**0.5))


def test_a_small_product_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_linear, "_LEAST_MULTIPLICATIONS", 100 * 32 * 32)
    layer, calls = BlockLinear(32, 32), []
    monkeypatch.setattr(block_linear, "_onednn", lambda *arguments: calls.append(1) or torch.zeros(64, 32))
    assert torch.equal(layer(torch.ones(99, 32)), nn.functional.linear(torch.ones(99, 32), layer.weight, layer.bias))
    assert calls == []
    layer(torch.ones(100, 32))
    assert calls == [1]


def test_each_output_row_is_where_it_belongs_whatever_its_block() -> None:
    layer = BlockLinear(32, 32, bias=False)
    layer.weight.data = torch.eye(32)
    x = torch.arange(3 * 453 * 32, dtype=torch.float32).view(3, 453, 32)
    assert torch.equal(layer(x), x)


def test_frozen_weights_get_no_gradient_and_inputs_still_do() -> None:
    layer = BlockLinear(32, 48)
    layer.requires_grad_(False)
    x = torch.randn(300, 32, requires_grad=True)
    out = layer(x)
    assert out.grad_fn is not None
    out.sum().backward()  # whose gradient is one number, expanded
    assert layer.weight.grad is None
    torch.testing.assert_close(x.grad, layer.weight.sum(dim=0).expand_as(x))


def test_what_no_gradient_needs_is_not_kept() -> None:
    layer, x = BlockLinear(32, 48), torch.randn(300, 32, requires_grad=True)
    kept: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: kept.append(saved.shape) or saved, lambda saved: saved):
        layer(x)
        layer.requires_grad_(False)
        layer(x)
        layer.requires_grad_()
        layer(x.detach())
    assert kept == [(300, 32), (48, 32), (48, 32), (300, 32)]


def test_the_same_rows_give_the_same_bits() -> None:
    layer, x = BlockLinear(96, 96), torch.randn(1500, 96)
    first = results(layer, x)
    layer.zero_grad(set_to_none=True)
    for mine, again in zip(first, results(layer, x), strict=True):
        assert torch.equal(mine, again)


def test_autocast_still_computes_in_bfloat16() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert BlockLinear(32, 32)(torch.randn(70, 32)).dtype == torch.bfloat16


@pytest.mark.usefixtures("gaining")
def test_a_model_keeps_its_parameters_names_loss_and_gradients() -> None:
    def passed(*, by_blocks: bool) -> tuple[float, dict[str, torch.Tensor]]:
        torch.manual_seed(0)
        encoder = load_encoder(str(ENCODER_PATH), None, DistilBertModel)
        model = ExBertForQuestionAnswering(encoder, ModelConfig(num_experts=4, threshold=1e-9))
        if by_blocks:
            use_blocks(model, "cpu")
            assert sum(isinstance(module, BlockLinear) for module in model.modules()) > 20
        ids = torch.randint(5, 900, (9, 90), generator=torch.Generator().manual_seed(1))
        output = model(ids, torch.ones_like(ids), torch.full((9,), 3), torch.full((9,), 7))
        output.loss.backward()
        return float(output.loss.detach()), {name: p.grad for name, p in model.named_parameters()}

    (loss, gradients), (plain_loss, plain_gradients) = passed(by_blocks=True), passed(by_blocks=False)
    assert loss == pytest.approx(plain_loss, abs=1e-5)
    assert gradients.keys() == plain_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, plain_gradients[name], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("gaining")
def test_only_layers_of_a_cpu_that_are_wide_enough_are_changed() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 2))
    assert not any(isinstance(module, BlockLinear) for module in use_blocks(model, "cuda:0").modules())
    assert [type(module) for module in use_blocks(model, "cpu")] == [BlockLinear, nn.Linear]


@pytest.mark.parametrize(
    ("found", "gains"),
    [
        ({"avx512_f": True, "cpu_name": "AMD EPYC 9755"}, True),
        ({"avx512_f": True, "cpu_name": "Intel(R) Xeon(R) Platinum"}, False),
        ({"avx512_f": False, "cpu_name": "AMD EPYC 7763"}, False),
        ({"architecture": "aarch64"}, False),
    ],
)
def test_blocks_are_for_cpus_with_avx512_that_are_not_intels(
    found: dict[str, object], gains: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert block_linear.gains_by_blocks() is gains
