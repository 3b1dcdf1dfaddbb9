"""Loading an encoder: a worker's next model is the one that loading it again would give."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DistilBertForQuestionAnswering, DistilBertModel

from trainables.data.errors import DataError
from trainables.embedded import ENCODER_PATH
from trainables.models import encoder as encoders
from trainables.models.encoder import append_to, draw_again, load_encoder
from trainables.models.encoder_config import encoder_config

EMBEDDED = str(ENCODER_PATH)


def loaded(seed: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A model's weights, and what the generator gives next."""
    torch.manual_seed(seed)
    model = load_encoder(EMBEDDED, 2, DistilBertForQuestionAnswering)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, torch.rand(3)


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_a_kept_encoder_gives_the_model_and_the_random_numbers_of_one_that_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    encoders._kept.cache_clear()
    first, second = loaded(1), loaded(1)
    assert encoders._kept.cache_info().hits == 1
    monkeypatch.setattr(encoders, "_KEPT_BYTES", 0)
    read_again = loaded(1)
    assert encoders._kept.cache_info().hits == 1
    for weights, drawn in (second, read_again):
        assert equal(weights, first[0])
        assert torch.equal(drawn, first[1])
    assert not torch.equal(loaded(2)[0]["qa_outputs.weight"], first[0]["qa_outputs.weight"])


def test_the_head_is_drawn_as_transformers_draws_it() -> None:
    torch.manual_seed(3)
    theirs = DistilBertForQuestionAnswering.from_pretrained(EMBEDDED).qa_outputs
    torch.manual_seed(3)
    ours = load_encoder(EMBEDDED, None, DistilBertForQuestionAnswering).qa_outputs
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)


@pytest.mark.parametrize("kept_bytes", [encoders._KEPT_BYTES, 0])
def test_of_a_layer_that_lacks_its_bias_the_weight_is_the_encoders(
    kept_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoders, "_KEPT_BYTES", kept_bytes)
    folder = Path(shutil.copytree(ENCODER_PATH, tmp_path / "encoder"))
    tensors = load_file(folder / "model.safetensors")
    (name,) = [name for name in tensors if name.endswith("layer.0.ffn.lin1.bias")]
    save_file(
        {each: tensor for each, tensor in tensors.items() if each != name}, folder / "model.safetensors", {"format": "pt"}
    )
    for _ in range(2):
        lin1 = load_encoder(str(folder), None, DistilBertModel).transformer.layer[0].ffn.lin1
        assert torch.equal(lin1.weight, load_encoder(EMBEDDED, None, DistilBertModel).transformer.layer[0].ffn.lin1.weight)
        assert not lin1.bias.any()


def test_what_is_done_to_a_model_does_not_reach_the_next() -> None:
    before = {name: tensor.clone() for name, tensor in load_encoder(EMBEDDED, None, DistilBertModel).state_dict().items()}
    spoilt = load_encoder(EMBEDDED, None, DistilBertModel)
    append_to(spoilt.transformer.layer[-1], torch.nn.Identity())
    draw_again(spoilt, 2)
    spoilt.requires_grad_(False)
    with torch.no_grad():
        spoilt.embeddings.word_embeddings.weight.zero_()
    after = load_encoder(EMBEDDED, None, DistilBertModel)
    assert equal(after.state_dict(), before)
    assert not after.transformer.layer[-1]._forward_hooks
    assert all(parameter.requires_grad for parameter in after.parameters())


def test_other_weights_at_the_same_path_are_loaded(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ENCODER_PATH, tmp_path / "encoder"))
    before = load_encoder(str(folder), None, DistilBertModel).embeddings.word_embeddings.weight
    tensors = load_file(folder / "model.safetensors")
    (name,) = [name for name in tensors if name.endswith("word_embeddings.weight")]
    save_file({**tensors, name: tensors[name] + 1}, folder / "model.safetensors", metadata={"format": "pt"})
    after = load_encoder(str(folder), None, DistilBertModel).embeddings.word_embeddings.weight
    torch.testing.assert_close(after, before + 1)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model_type": "bert"}, r"must be a DistilBERT, got 'bert'"),
        ({"model_type": None}, r"must be a DistilBERT, got None"),
        ({"n_layers": None, "num_hidden_layers": 1}, r"model.n_layers must be in \[1, 1\]"),
        ({"n_layers": 1}, r"model.n_layers must be in \[1, 1\], the blocks of .*, got 2"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(changes: dict[str, object], complaint: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ENCODER_PATH, tmp_path / "encoder"))
    found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**found, **changes}), encoding="utf-8")
    with pytest.raises(DataError, match=complaint):
        encoder_config(str(folder), 2)


@pytest.mark.parametrize("text", ["no JSON", "[]"])
def test_a_configuration_that_cannot_be_read_is_refused(text: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ENCODER_PATH, tmp_path / "encoder"))
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"cannot load the encoder .*; name a local folder"):
        encoder_config(str(folder))


def test_what_a_configuration_leaves_out_is_transformers_default(tmp_path: Path) -> None:
    from transformers import DistilBertConfig

    (tmp_path / "config.json").write_text('{"model_type": "distilbert"}', encoding="utf-8")
    found, theirs = encoder_config(str(tmp_path)), DistilBertConfig()
    assert (found.n_layers, found.max_position_embeddings) == (theirs.n_layers, theirs.max_position_embeddings)
