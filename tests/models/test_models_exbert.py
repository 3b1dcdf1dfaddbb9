"""ExBERT's architecture: sizes as published, every option reaching the model."""

from itertools import product

import pytest
import torch
from pydantic import ValidationError
from transformers import DistilBertConfig, DistilBertModel

from trainables.exbert.config import VARIANTS, ModelConfig
from trainables.exbert.model import ExBertForQuestionAnswering

SMALL = DistilBertConfig(vocab_size=50, dim=16, hidden_dim=32, n_layers=3, n_heads=2, max_position_embeddings=32)
POSITIONS = [("after_last", None), ("after_block", 1), ("replace_ffn", 2), ("replace_all_ffn", None)]
WIRINGS = ["bare", "bare_residual", "block_after", "block_before", "block_both"]


def a_model(**settings: object) -> ExBertForQuestionAnswering:
    torch.manual_seed(0)
    return ExBertForQuestionAnswering(DistilBertModel(SMALL), ModelConfig(**{"num_experts": 4, **settings}))


def inputs(num_tokens: int = 12) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 50, (2, num_tokens), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def num_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# Source: papers digest 1.4 (g), measured with st-moe-pytorch 0.1.8: DistilBERT-QA of 3..6 blocks, SparseMoEBlock of 8, 12, 16.
BLOCKS = {3: 45_100_802, 4: 52_188_674, 5: 59_276_546, 6: 66_364_418}
EXPERT_BLOCKS = {8: 42_537_216, 12: 61_442_304, 16: 80_347_392}


@pytest.mark.parametrize(("n_layers", "num_experts"), list(product(BLOCKS, EXPERT_BLOCKS)))
def test_parameter_counts_at_the_papers_size(n_layers: int, num_experts: int) -> None:
    with torch.device("meta"):
        encoder = DistilBertModel(DistilBertConfig(n_layers=n_layers))
        model = ExBertForQuestionAnswering(encoder, ModelConfig(n_layers=n_layers, num_experts=num_experts))
    assert num_parameters(model.expert_layers) == EXPERT_BLOCKS[num_experts]
    assert num_parameters(model) == BLOCKS[n_layers] + EXPERT_BLOCKS[num_experts]


@pytest.mark.parametrize("num_experts", [8, 12, 16])
def test_a_bare_expert_layer_has_the_published_size(num_experts: int) -> None:
    with torch.device("meta"):
        encoder = DistilBertModel(DistilBertConfig(n_layers=1))
        model = ExBertForQuestionAnswering(encoder, ModelConfig(num_experts=num_experts, moe_wiring="bare"))
    assert (
        num_parameters(model.expert_layers)
        == 4_726_272 * num_experts
        == {8: 37_810_176, 12: 56_715_264, 16: 75_620_352}[num_experts]
    )


@pytest.mark.parametrize("semantics", ["exact", "library"])
@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize(("position", "block"), POSITIONS)
def test_every_placement_and_wiring_trains_all_its_parameters(
    position: str, block: int | None, wiring: str, semantics: str
) -> None:
    model = a_model(moe_position=position, moe_block=block, moe_wiring=wiring, moe_semantics=semantics)
    output = model(**inputs(), start_positions=torch.tensor([1, 2]), end_positions=torch.tensor([3, 4]))
    torch.testing.assert_close(output.loss, output.qa_loss + output.aux_loss)
    assert output.aux_loss > 0
    output.loss.backward()
    routed = [layer.moe for layer in model.expert_layers]
    assert len(routed) == (3 if position == "replace_all_ffn" else 1)
    assert all(moe.gate.to_gates.weight.grad.abs().sum() > 0 for moe in routed)
    names = [name for name, _ in model.named_parameters()]
    assert len(names) == len(set(names)) == len(model.state_dict().keys() - {k for k in model.state_dict() if "threshold" in k})


def test_outputs_hold_logits_hidden_states_attentions_and_the_loss_in_parts() -> None:
    positions = {"start_positions": torch.tensor([1, 2]), "end_positions": torch.tensor([3, 4])}
    output = a_model()(**inputs(), **positions, output_hidden_states=True, output_attentions=True)
    assert output.start_logits.shape == output.end_logits.shape == (2, 12)
    assert [tuple(states.shape) for states in output.hidden_states] == [(2, 12, 16)] * 4
    assert [tuple(weights.shape) for weights in output.attentions] == [(2, 2, 12, 12)] * 3
    assert all(getattr(output, name).ndim == 0 for name in ("loss", "qa_loss", "aux_loss", "balance_loss", "router_z_loss"))


def test_the_last_hidden_state_has_passed_the_experts() -> None:
    model = a_model().eval()
    states = model(**inputs(), output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(model.qa_outputs(states)[..., 0], model(**inputs()).start_logits)


@pytest.mark.parametrize(
    ("placement", "rates"), [("none", (0, 0)), ("before", (0.3, 0)), ("after", (0, 0.3)), ("both", (0.3, 0.3))]
)
def test_dropout_stands_where_it_is_placed_and_rests_in_evaluation(placement: str, rates: tuple[float, float]) -> None:
    model = a_model(dropout_placement=placement, moe_dropout=0.3)
    layer = model.expert_layers[0]
    assert (layer.dropout_before.p, layer.dropout_after.p) == rates
    model.eval()
    assert torch.equal(model(**inputs()).start_logits, model(**inputs()).start_logits)


@pytest.mark.parametrize("semantics", ["exact", "library"])
def test_expert_dropout_stands_before_each_experts_last_projection(semantics: str) -> None:
    model, usual = (a_model(expert_dropout=rate, moe_semantics=semantics) for rate in (0.3, 0.0))
    layer = model.expert_layers[0]
    for expert in layer.moe.experts.experts:
        assert [type(part).__name__ for part in expert.net] == ["Linear", "GEGLU", "Dropout", "Linear"]
        assert expert.net[2].p == 0.3
    assert not any(isinstance(part, torch.nn.Dropout) for part in layer.block.ff_after.modules())
    assert num_parameters(model) == num_parameters(usual)


def test_expert_dropout_rests_in_evaluation() -> None:
    logits_BT, usual_BT = (a_model(expert_dropout=rate).eval()(**inputs()).start_logits for rate in (0.3, 0.0))
    assert torch.equal(logits_BT, usual_BT)


def test_padding_and_neighbours_do_not_change_a_prediction() -> None:
    model = a_model().eval()
    short = inputs(8)
    alone = model(input_ids=short["input_ids"][:1], attention_mask=short["attention_mask"][:1])
    padded_ids = torch.zeros(2, 20, dtype=torch.long)
    padded_ids[0, :8] = short["input_ids"][0]
    padded_ids[1] = torch.randint(1, 50, (20,))
    mask = torch.ones_like(padded_ids)
    mask[0, 8:] = 0
    together = model(input_ids=padded_ids, attention_mask=mask)
    torch.testing.assert_close(together.start_logits[:1, :8], alone.start_logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("field", "value"),
    [("threshold", 0.5), ("capacity_factor", 2.0), ("balance_loss_coef", 0.5), ("router_z_loss_coef", 0.5), ("num_experts", 8)],
)
def test_swept_settings_reach_the_expert_layer(field: str, value: float) -> None:
    moe = a_model(**{field: value}).expert_layers[0].moe
    threshold = float(moe.gate.threshold_train[1])
    found = {
        "threshold": threshold,
        "capacity_factor": moe.gate.capacity_factor_train,
        "balance_loss_coef": moe.balance_loss_coef,
        "router_z_loss_coef": moe.router_z_loss_coef,
        "num_experts": len(moe.experts.experts),
    }
    assert found[field] == pytest.approx(value)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"num_experts": 1}, "greater than or equal to 2"),
        ({"num_experts": 65}, "less than or equal to 64"),
        ({"n_layers": 7}, "less than or equal to 6"),
        ({"moe_position": "replace_ffn"}, "moe_block must be given"),
        ({"moe_block": 2}, "moe_block must be null"),
        ({"moe_position": "after_block", "moe_block": 4, "n_layers": 3}, r"in \[1, n_layers=3\], got 4"),
        ({"num_expert": 8}, "Extra inputs are not permitted"),
    ],
)
def test_settings_out_of_range_are_refused_with_the_range(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        ModelConfig(**settings)


def test_the_papers_configurations_are_named_variants() -> None:
    tuned = ModelConfig(**VARIANTS["tuned"]["model"])
    assert (tuned.n_layers, tuned.num_experts, tuned.dropout_placement, tuned.moe_dropout) == (4, 8, "before", 0.1)
    assert VARIANTS["tuned"]["training"] == {"learning_rate": 1e-4, "epochs": 2}
    assert ModelConfig(**VARIANTS["untuned"]["model"]) == ModelConfig(n_layers=6)
