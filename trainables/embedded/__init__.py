"""What runs without a download: two generated corpora and a tiny pre-trained DistilBERT encoder.

`ENCODER_PATH` is a folder that transformers' `from_pretrained` loads, model and tokenizer alike;
`write_corpora` writes the training and test files of the domains `squad` and `bioasq`, `corpora_in`
does so where they are missing. Importing this package brings in the standard library alone;
`pretrain` made the encoder and needs torch.
"""

from __future__ import annotations

from pathlib import Path

from trainables.embedded.corpora import corpora_in, write_corpora

__all__ = ["ENCODER_PATH", "corpora_in", "write_corpora"]

ENCODER_PATH = Path(__file__).resolve().parent / "encoder"
