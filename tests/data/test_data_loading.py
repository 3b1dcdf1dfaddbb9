"""Folders in the hub's layouts are read by the same code as the hub; other folders file by file."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from trainables.data.errors import DataError
from trainables.data.loading import load_rows


@pytest.fixture
def squad_folder(tmp_path: Path) -> Path:
    """rajpurkar/squad's layout: plain_text/{train,validation}-00000-of-00001.parquet."""
    folder = tmp_path / "squad" / "plain_text"
    folder.mkdir(parents=True)
    for split, count in (("train", 3), ("validation", 2)):
        rows = [
            {
                "id": f"{split}{i}",
                "title": "T",
                "context": f"alpha {i} beta",
                "question": f"{split}?",
                "answers": _answers(f"{i}", 6),
            }
            for i in range(count)
        ]
        pa.parquet.write_table(pa.Table.from_pylist(rows), folder / f"{split}-00000-of-00001.parquet")
    (tmp_path / "squad" / "README.md").write_text("---\nlicense: cc\n---\n")
    return tmp_path / "squad"


@pytest.fixture
def bioasq_folder(tmp_path: Path) -> Path:
    """kroshan/BioASQ's layout: train.csv and validation.csv with columns question and text."""
    folder = tmp_path / "bioasq"
    folder.mkdir()
    for split in ("train", "validation"):
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            rows = [
                ["question", "text"],
                [f"{split}?", "<answer> NA <context> the NA gene"],
                ["q?", "<answer> null <context> a null"],
            ]
            csv.writer(file).writerows(rows)
    return folder


def _answers(text: str, start: int) -> dict[str, list[Any]]:
    return {"text": [text], "answer_start": [start]}


def test_squads_hub_layout_gives_its_splits(squad_folder: Path) -> None:
    train, test = load_rows(str(squad_folder), "train")[0], load_rows(str(squad_folder), "test")[0]
    assert (train["id"][:], test["id"][:]) == (["train0", "train1", "train2"], ["validation0", "validation1"])
    assert train[1] == {
        "id": "train1",
        "title": "T",
        "context": "alpha 1 beta",
        "question": "train?",
        "answers": _answers("1", 6),
        "gold": ["1"],
        "group": "",
    }
    assert len(load_rows(f"{squad_folder}:train+validation", "train")[0]) == 5


def test_bioasqs_hub_layout_keeps_answers_that_look_missing(bioasq_folder: Path) -> None:
    rows, counts = load_rows(str(bioasq_folder), "train", "answer_context")
    assert [row["answers"] for row in rows] == [_answers("NA", 4), _answers("null", 2)]
    assert rows["question"][:] == ["train?", "q?"]
    assert counts.dropped == 0


def test_a_split_that_is_not_there_is_refused_with_those_that_are(squad_folder: Path) -> None:
    with pytest.raises(DataError, match=r"has the splits train, validation, got dev; write .*:<split>"):
        load_rows(f"{squad_folder}:dev", "test")


def test_a_folder_of_one_unnamed_table_serves_either_role(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    row = {"id": "x", "context": "alpha", "question": "q?", "answers": _answers("alpha", 0)}
    pa.parquet.write_table(pa.Table.from_pylist([row]), folder / "rows.parquet")
    assert load_rows(str(folder), "test")[0]["id"][:] == ["x"]


def test_nothing_is_left_in_the_datasets_cache_or_on_stderr(
    squad_folder: Path, bioasq_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import datasets

    before = sorted(Path(datasets.config.HF_DATASETS_CACHE).glob("*"))
    load_rows(str(squad_folder), "train")
    load_rows(str(bioasq_folder), "train")
    assert sorted(Path(datasets.config.HF_DATASETS_CACHE).glob("*")) == before
    assert capfd.readouterr() == ("", "")
    assert not datasets.utils.are_progress_bars_disabled()


def test_a_folder_of_extensionless_squad_files_is_read_whole(tmp_path: Path) -> None:
    for name in ("duorc", "race"):
        qas = [{"id": name, "question": "q?", "answers": [{"text": "alpha", "answer_start": 0}]}]
        path = tmp_path / "oodomain_train" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"data": [{"title": name, "paragraphs": [{"context": "alpha", "qas": qas}]}]}))
    assert load_rows(str(tmp_path / "oodomain_train"), "train")[0]["id"][:] == ["duorc", "race"]
    assert load_rows(str(tmp_path), "train")[0]["id"][:] == ["duorc", "race"]
    with pytest.raises(DataError, match=r"tells the split validation, got \['train'\]"):
        load_rows(str(tmp_path), "test")


def test_file_names_tell_the_splits_of_a_folder_apart(write_flat: Callable[..., Path]) -> None:
    for split in ("train", "dev"):
        row = {"id": split, "question": "q?", "context": "alpha", "answers": _answers("alpha", 0)}
        path = write_flat(f"rows/{split}-v1.jsonl", [row])
    assert load_rows(str(path.parent), "train")[0]["id"][:] == ["train"]
    assert load_rows(str(path.parent), "test")[0]["id"][:] == ["dev"]


def test_a_folder_that_datasets_cannot_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(DataError, match=r"cannot load .*name local files, or use --preset embedded"):
        load_rows(str(tmp_path), "train")
