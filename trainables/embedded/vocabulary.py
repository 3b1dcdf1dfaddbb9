"""The WordPiece tokenizer of the embedded encoder: one piece per ordinary word and per syllable.

The vocabulary is written down rather than trained, because every text it must cover is generated:
ordinary words stay whole, coined names split into their syllables, and single characters catch the
rest. That keeps it small (every piece is met in pre-training) and the same on every machine.
"""

from __future__ import annotations

import string
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from trainables.embedded.names import CODAS, MEDICAL_SUFFIXES, SYLLABLES
from trainables.embedded.pretraining import FUNCTION_WORDS, ordinary_words

__all__ = ["build_tokenizer", "vocabulary", "write_tokenizer"]

_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_NAME_WORDS_TEXT = "count doctor lady sir bay falls hill port valley april june october alpha beta gamma answer context"
_NAME_WORDS = tuple(_NAME_WORDS_TEXT.split())


def vocabulary() -> tuple[str, ...]:
    """Every piece in the order of its id; `[PAD]` is 0, and no piece occurs twice."""
    characters = string.ascii_lowercase + string.digits
    pairs = [tens + units for tens in string.digits for units in string.digits]
    whole = [*characters, *string.punctuation, *SYLLABLES, *pairs, *_NAME_WORDS, *FUNCTION_WORDS, *ordinary_words()]
    continued = [f"##{piece}" for piece in (*characters, *SYLLABLES, *CODAS, *pairs, *MEDICAL_SUFFIXES)]
    return tuple(dict.fromkeys((*_SPECIALS, *whole, *continued)))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A fast, lower-casing BERT-style tokenizer that returns offsets."""
    ids = {piece: index for index, piece in enumerate(vocabulary())}
    backend = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=512,
        model_input_names=["input_ids", "attention_mask"],
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def write_tokenizer(folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` for `AutoTokenizer.from_pretrained`."""
    build_tokenizer().save_pretrained(folder)
