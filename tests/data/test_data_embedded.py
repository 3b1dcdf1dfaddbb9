"""The embedded default: reproducible corpora in their formats, and an encoder that loads."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainables.embedded import ENCODER_PATH, corpora_in, write_corpora
from trainables.embedded.corpora import DOMAINS, SPLITS, generate, to_bioasq_csv, to_squad_json
from trainables.embedded.names import numbered_name, text_rng

# sha256 of the first 40 rows of each corpus at seed 0, as written to its file.
# Source: this repository, the commit that introduced the corpora; a change here changes every result on them.
GOLDEN_SHA256 = {
    ("squad", "train"): "4cc10f027afecda6dc267abb15ed17b395853aa6cf7555ef4006ebe06d7d30ea",
    ("squad", "test"): "85909e8747e11d2e74c5f23ccf7dc618e1aa08f178342d108c0f66508dfa376f",
    ("bioasq", "train"): "abd8070afd5d4cc9f088b3bc18a4ef9f5b1ab639a9542160aed3e83cc45ee105",
    ("bioasq", "test"): "53b2f8a3ddf799018fce7584b3e7c8f43c9037df1b8d737274b922b201058306",
}
WRITERS = {"squad": to_squad_json, "bioasq": to_bioasq_csv}
LARGEST_FOLDER_BYTES = 4 * 2**20


@pytest.fixture(scope="module")
def corpus_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_corpora(tmp_path_factory.mktemp("corpora"))


@pytest.fixture(scope="module")
def tokenizer():
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(ENCODER_PATH)


@pytest.mark.parametrize(("domain", "split"), list(GOLDEN_SHA256))
def test_corpus_is_the_same_bit_for_bit(domain: str, split: str) -> None:
    text = WRITERS[domain](generate(domain, split, num_rows=40))
    assert hashlib.sha256(text.encode("utf-8")).hexdigest() == GOLDEN_SHA256[domain, split]


def test_corpora_do_not_depend_on_the_hash_seed() -> None:
    code = "from trainables.embedded.corpora import *; print(to_bioasq_csv(generate('bioasq', 'test', num_rows=40)))"
    root = Path(__file__).resolve().parents[1]
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("0", "1")
    }
    assert texts == {to_bioasq_csv(generate("bioasq", "test", num_rows=40)) + "\n"}


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_shorter_corpus_is_a_prefix_and_another_seed_is_another_corpus(domain: str) -> None:
    rows = generate(domain, "train", num_rows=60)
    assert generate(domain, "train", num_rows=25) == rows[:25]
    assert not {row.group for row in rows} & {row.group for row in generate(domain, "train", num_rows=60, seed=1)}


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("split", SPLITS)
def test_every_answer_is_a_span_of_its_context(domain: str, split: str) -> None:
    for row in generate(domain, split, num_rows=300):
        for answer, start in zip(row.answers, row.answer_starts, strict=True):
            assert row.context[start : start + len(answer)] == answer


@pytest.mark.parametrize("domain", DOMAINS)
def test_train_and_test_share_no_group_question_or_context(domain: str) -> None:
    train, test = (generate(domain, split, num_rows=1500) for split in SPLITS)
    for field in ("group", "question", "context"):
        assert not {getattr(row, field) for row in train} & {getattr(row, field) for row in test}


def test_an_unknown_corpus_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'newsqa'.*squad.*bioasq"):
        generate("newsqa", "train", num_rows=1)


def test_numbered_names_are_all_different() -> None:
    assert len({numbered_name(number) for number in range(100_000)}) == 100_000


def test_squad_files_are_squad_documents_with_several_golds_in_test(corpus_paths: dict[str, Path]) -> None:
    for split, num_rows in zip(SPLITS, (1500, 250), strict=True):
        document = json.loads(corpus_paths[f"squad_{split}"].read_text(encoding="utf-8"))
        paragraphs = [paragraph for article in document["data"] for paragraph in article["paragraphs"]]
        questions = [question for paragraph in paragraphs for question in paragraph["qas"]]
        assert document["version"] == "1.1"
        assert len({question["id"] for question in questions}) == len(questions) == num_rows
        assert any(len(question["answers"]) > 1 for question in questions) == (split == "test")


def test_bioasq_files_repeat_a_question_over_several_contexts(corpus_paths: dict[str, Path]) -> None:
    for split, num_rows in zip(SPLITS, (1500, 250), strict=True):
        with corpus_paths[f"bioasq_{split}"].open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        contexts: dict[str, set[str]] = {}
        for row in rows:
            answer, context = row["text"].removeprefix("<answer> ").split(" <context> ")
            assert answer in context
            contexts.setdefault(row["question"], set()).add(context)
        assert len(rows) == num_rows
        assert {len(each) for each in list(contexts.values())[:-1]} == {2, 3, 4, 5}


def test_written_files_have_unix_line_ends_and_leave_nothing_behind(corpus_paths: dict[str, Path]) -> None:
    folder = corpus_paths["squad_train"].parent
    assert sorted(folder.iterdir()) == sorted(corpus_paths.values())
    assert not any(b"\r" in path.read_bytes() for path in corpus_paths.values())


def test_corpora_are_written_once_and_stay_as_they_are(tmp_path: Path, corpus_paths: dict[str, Path]) -> None:
    first = corpora_in(tmp_path)
    written = {name: path.stat().st_mtime_ns for name, path in first.items()}
    assert corpora_in(tmp_path) == first
    assert {name: path.stat().st_mtime_ns for name, path in first.items()} == written
    assert all(path.read_bytes() == corpus_paths[name].read_bytes() for name, path in first.items())


def test_package_needs_no_torch_to_import() -> None:
    code = "import sys, trainables.embedded; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[1], check=True)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("split", SPLITS)
def test_tokenizer_knows_every_piece_of_the_corpora(tokenizer, domain: str, split: str) -> None:
    rows = generate(domain, split, num_rows=1500)
    encoded = tokenizer([row.question for row in rows], [row.context for row in rows])
    assert not any(tokenizer.unk_token_id in ids for ids in encoded["input_ids"])


@pytest.mark.parametrize("domain", DOMAINS)
def test_most_examples_fit_128_pieces_and_a_few_do_not(tokenizer, domain: str) -> None:
    rows = generate(domain, "train", num_rows=1500)
    lengths = [len(ids) for ids in tokenizer([r.question for r in rows], [r.context for r in rows])["input_ids"]]
    assert 0.005 < sum(length > 128 for length in lengths) / len(lengths) < 0.04


def test_tokenizer_is_fast_lower_cased_and_returns_offsets_of_the_original_text(tokenizer) -> None:
    encoded = tokenizer("Who composed Tamiro?", "Tamiro is by LODAN.", return_offsets_mapping=True)
    assert tokenizer.is_fast
    last_piece = encoded.char_to_token(17, sequence_index=1)
    assert encoded["offset_mapping"][last_piece] == (17, 18)
    assert tokenizer("lodan")["input_ids"] == tokenizer("LODAN")["input_ids"]


def test_shipped_tokenizer_is_the_one_the_code_builds(tokenizer) -> None:
    from trainables.embedded.vocabulary import vocabulary

    assert tokenizer.get_vocab() == {piece: index for index, piece in enumerate(vocabulary())}


def test_encoder_loads_as_distilbert_with_only_the_head_new() -> None:
    transformers = pytest.importorskip("transformers")
    model, report = transformers.DistilBertForQuestionAnswering.from_pretrained(ENCODER_PATH, output_loading_info=True)
    assert set(report["missing_keys"]) == {"qa_outputs.weight", "qa_outputs.bias"}
    assert not report["unexpected_keys"] and not report["mismatched_keys"]
    assert (model.config.n_layers, model.config.dim, model.config.max_position_embeddings) == (3, 96, 512)


def test_encoder_folder_is_at_most_four_mebibytes() -> None:
    assert sum(path.stat().st_size for path in ENCODER_PATH.iterdir()) <= LARGEST_FOLDER_BYTES


def test_pretraining_passages_are_reproducible_and_their_spans_are_right() -> None:
    from trainables.embedded.pretraining import pretraining_example

    first, second = ([pretraining_example(rng) for _ in range(200)] for rng in (text_rng("a"), text_rng("a")))
    assert first == second
    for example in first:
        sentence_start, sentence_end = example.sentence_span
        assert sentence_start <= example.answer_span[0] < example.answer_span[1] < sentence_end
        assert example.context[sentence_end - 1] == "."


def test_pretraining_text_has_no_phrase_of_the_domains() -> None:
    from trainables.embedded.pretraining import pretraining_example
    from trainables.embedded.relations import DOMAIN_KINDS

    rng = text_rng("phrases")
    text = " ".join(pretraining_example(rng).context.lower() for _ in range(500))
    statements = [s for kinds in DOMAIN_KINDS.values() for kind in kinds for r in kind.relations for s in r.statements]
    longest_parts = [max(s.replace("{subject}", "{answer}").split("{answer}"), key=len).strip() for s in statements]
    assert not [part for part in longest_parts if len(part.split()) > 2 and part in text]


def test_pretraining_hints_mark_the_asked_sentence_and_shared_content_words() -> None:
    pytest.importorskip("torch")
    from trainables.embedded.pretrain import encode
    from trainables.embedded.pretraining import PretrainingExample
    from trainables.embedded.vocabulary import build_tokenizer

    context = "the flag is Tamiro. the coin is Lodan."
    example = PretrainingExample(question="What is the coin?", context=context, answer_span=(32, 37), sentence_span=(20, 38))
    tokenizer = build_tokenizer()
    batch = encode(tokenizer, [example])
    tokens = tokenizer.convert_ids_to_tokens(batch["input_ids"][0])
    asked = [token for token, mark in zip(tokens, batch["asked"][0], strict=True) if mark]
    repeated = [token for token, mark in zip(tokens, batch["repeated"][0], strict=True) if mark]
    first, last = batch["start_positions"].item(), batch["end_positions"].item()
    assert asked == ["the", "coin", "is", "lo", "##da", "##n", "."]
    assert repeated == ["coin", "[SEP]", "coin", "[SEP]"]
    assert tokens[first : last + 1] == ["lo", "##da", "##n"]
