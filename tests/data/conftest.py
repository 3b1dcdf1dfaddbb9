"""Small files and a tiny tokenizer that the data tests share; nothing is read from outside the test's own folders."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import DistilBertConfig, PreTrainedTokenizerFast

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXT = """the a of in is was what who where which when did does river city king queen built by year protein gene binds
activates inhibits receptor cell tumour drug treats disease kinase north south old new great lake stands near and on for
alpha beta gamma delta epsilon caf ##e ##s ##ed ##ing ##1 ##2 1 2 3 4 5 6 7 8 9 0 . , ? ( ) - ' torn acl ab ##c ##d"""


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in Hugging Face layout with a DistilBERT config and a fast WordPiece tokenizer (no weights)."""
    folder = tmp_path_factory.mktemp("encoder")
    letters = [f"{prefix}{letter}" for letter in "abcdefghijklmnopqrstuvwxyz" for prefix in ("", "##")]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*SPECIAL, *TEXT.split(), *letters]))}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.decoder = WordPieceDecoder()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=["input_ids", "attention_mask"], **names
    ).save_pretrained(folder)
    DistilBertConfig(vocab_size=len(vocabulary), dim=32, n_heads=2, n_layers=1, hidden_dim=64).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(encoder_folder: Path) -> Any:
    """The tokenizer of `encoder_folder`, loaded as the package loads it."""
    from trainables.data.build import load_tokenizer

    return load_tokenizer(str(encoder_folder))


def flat_row(row_id: str, question: str, context: str, answer: str, **more: Any) -> dict[str, Any]:
    """One row of the flat format whose answer is its first occurrence in the context."""
    return {
        "id": row_id,
        "question": question,
        "context": context,
        "answers": {"text": [answer], "answer_start": [context.index(answer)]},
        **more,
    }


@pytest.fixture
def write_flat(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows as flat JSONL below `tmp_path` and returns the path."""

    def write(name: str, rows: list[dict[str, Any]]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def make_rows() -> Callable[..., list[dict[str, Any]]]:
    """Rows in groups of three that share a context; `prefix` keeps two calls apart."""

    def make(prefix: str, num_groups: int, *, sentences: int = 3) -> list[dict[str, Any]]:
        rows = []
        for group in range(num_groups):
            facts = [f"the {prefix} king {group} {i} built the old city {prefix}{group}{i}." for i in range(max(3, sentences))]
            context = " ".join(facts)
            for i in range(3):
                question = f"what did the {prefix} king {group} {i} built?"
                rows.append(flat_row(f"{prefix}-{group}-{i}", question, context, f"{prefix}{group}{i}"))
        return rows

    return make
