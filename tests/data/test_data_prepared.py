"""Prepared data is built once, mapped by all, and opens to parts that never overlap."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainables.config import MixtureConfig
from trainables.data.errors import DataError
from trainables.data.mixture import batches
from trainables.data.prepared import PreparedData, open_prepared, prepare
from trainables.data.spec import DataSpec, DomainSpec

MIXTURE = MixtureConfig(size=20, share=60, order="concatenated", validation_share=0.2, test_share=0.2)
LENGTHS = {"max_length": 24, "stride": 6}


@pytest.fixture
def data(encoder_folder: Path, write_flat: Callable[..., Path], make_rows: Callable[..., list[dict[str, Any]]]) -> DataSpec:
    """Two domains: squad with a test file, bioasq without."""
    paths = [write_flat(f"{name}.jsonl", make_rows(name, size)) for name, size in (("abc", 12), ("abd", 5), ("acd", 15))]
    squad = DomainSpec(train=str(paths[0]), test=str(paths[1]))
    return DataSpec(encoder=str(encoder_folder), domains={"squad": squad, "bioasq": DomainSpec(train=str(paths[2]))})


def _open(data: DataSpec, folder: Path, mixture: MixtureConfig = MIXTURE, **more: int) -> PreparedData:
    return open_prepared(data, mixture, prepared_dir=folder, **{**LENGTHS, **more})


def _prepare(data: DataSpec, folder: Path, **more: int) -> list[str]:
    prepare(data, prepared_dir=folder, **{**LENGTHS, **more})
    return sorted(path.name for path in folder.iterdir())


def test_a_second_preparation_builds_nothing(data: DataSpec, tmp_path: Path) -> None:
    folder = tmp_path / "prepared"
    names = _prepare(data, folder)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert len(names) == 3
    assert _prepare(data, folder) == names
    _open(data, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times


_OPENS = """
import sys
from pathlib import Path
from trainables.config import MixtureConfig
from trainables.data.prepared import open_prepared
from trainables.data.spec import DataSpec
data, mixture = DataSpec.model_validate_json(sys.argv[1]), MixtureConfig.model_validate_json(sys.argv[2])
opened = open_prepared(data, mixture, max_length=24, stride=6, prepared_dir=Path(sys.argv[3]))
print(opened.training_windows(mixture).windows.tolist())
print([name for name in ("pandas", "datasets", "transformers", "torch") if name in sys.modules])
"""


def test_opening_what_is_prepared_imports_nothing_that_takes_longer_than_it(data: DataSpec, tmp_path: Path) -> None:
    windows = _open(data, tmp_path / "prepared").training_windows(MIXTURE).windows.tolist()
    arguments = (data.model_dump_json(), MIXTURE.model_dump_json(), str(tmp_path / "prepared"))
    done = subprocess.run([sys.executable, "-c", _OPENS, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(windows), "[]"]


def test_columns_are_taken_in_any_order_and_across_files(data: DataSpec, tmp_path: Path) -> None:
    pool = _open(data, tmp_path / "prepared").pool
    ids = pool.column("id", np.arange(pool.num_examples))
    chosen = np.random.default_rng(0).integers(pool.num_examples, size=200)
    assert pool.column("id", chosen) == [ids[i] for i in chosen]
    assert pool.column("id", chosen[::-2].astype(np.int32)) == [ids[i] for i in chosen[::-2]]
    assert pool.column("id", []) == []


def test_what_decides_a_prepared_file_is_in_its_name(data: DataSpec, tmp_path: Path, make_rows: Any, write_flat: Any) -> None:
    folder = tmp_path / "prepared"
    assert len(_prepare(data, folder)) == 3
    assert len(_prepare(data, folder, stride=5)) == 6
    assert len(_prepare(data, folder, max_length=30)) == 9
    only = {"x": data.domains["squad"].model_copy(update={"group_by": "context", "overlap": "drop"})}
    assert len(_prepare(data.model_copy(update={"domains": only}), folder)) == 9  # rules that act when opened share files
    write_flat("abd.jsonl", make_rows("abe", 5))
    assert len(_prepare(data, folder)) == 10


def test_parts_share_no_context_and_hold_every_row(data: DataSpec, tmp_path: Path) -> None:
    prepared = _open(data, tmp_path / "prepared")
    for name, sizes in (("squad", (30, 6, 15)), ("bioasq", (27, 9, 9))):
        domain = prepared.domains[name]
        contexts = [set(prepared.pool.column("context", domain.split(part))) for part in ("train", "validation", "test")]
        assert tuple(len(domain.split(part)) for part in ("train", "validation", "test")) == sizes
        assert not (contexts[0] & contexts[1] or contexts[0] & contexts[2] or contexts[1] & contexts[2])
        groups = {part: domain.group_ids(part) for part in ("train", "validation", "test")}
        assert [len(set(each)) for each in groups.values()] == [len(each) for each in contexts]
        assert len(set().union(*groups.values())) == len(set().union(*contexts))
    every = [domain.split(part) for domain in prepared.domains.values() for part in domain.parts]
    assert sorted(np.concatenate(every).tolist()) == list(range(prepared.pool.num_examples))


def test_mixtures_that_split_alike_share_what_is_opened_and_others_do_not(data: DataSpec, tmp_path: Path) -> None:
    first = _open(data, tmp_path / "prepared")
    again = _open(data, tmp_path / "prepared", MIXTURE.model_copy(update={"share": 20, "order": "shuffled"}))
    assert again is first
    others = [
        _open(data, tmp_path / "prepared", MIXTURE.model_copy(update={"seed": 1})),
        _open(data, tmp_path / "prepared", MIXTURE.model_copy(update={"validation_share": 0.4})),
        _open(data, tmp_path / "prepared", validation_examples=2),
        _open(data, tmp_path / "prepared", test_examples=2),
        _open(data, tmp_path / "prepared", stride=5),
    ]
    for other in others:
        parts = zip(first.domains.values(), other.domains.values(), strict=True)
        same = all(np.array_equal(one.split(name), two.split(name)) for one, two in parts for name in one.parts)
        assert not same or other.pool.num_windows != first.pool.num_windows


def test_arrays_are_mapped_not_read(data: DataSpec, tmp_path: Path) -> None:
    prepared = _open(data, tmp_path / "prepared")
    array: Any = prepared.pool.input_ids(0)
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    assert type(array).__module__ == "mmap"
    maps = Path("/proc/self/maps")
    if maps.exists():
        mapped = maps.read_text()
        assert all(f"{path}" in mapped for path in (tmp_path / "prepared").glob("*/input_ids.npy"))
        assert all(f"{path}" in mapped for path in (tmp_path / "prepared").glob("*/examples.arrow"))


def test_arrays_that_would_have_to_be_unpickled_are_refused(data: DataSpec, tmp_path: Path) -> None:
    _prepare(data, tmp_path / "prepared")
    changed = tmp_path / "changed"  # not opened by this process yet
    (tmp_path / "prepared").rename(changed)
    for array in changed.glob("*/*.npy"):
        np.save(array, np.array([tmp_path], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"Python objects|allow_pickle=False"):
        _open(data, changed)


def test_a_batch_is_padded_to_its_longest_window_and_decodes_to_its_answers(data: DataSpec, tmp_path: Path) -> None:
    prepared = _open(data, tmp_path / "prepared")
    pool, train = prepared.pool, prepared.training_windows(MIXTURE)
    windows = train.windows[np.argsort(train.lengths)[::9]]
    batch = pool.collate(windows, pad_id=prepared.pad_id)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (len(windows), pool.lengths[windows].max())
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}
    assert (batch["attention_mask"].sum(axis=1) == pool.lengths[windows]).all()
    assert (batch["input_ids"][batch["attention_mask"] == 0] == prepared.pad_id).all()
    chars = pool.span_chars(windows, batch["start_positions"], batch["end_positions"])
    for window, (start, end), last in zip(windows.tolist(), chars.tolist(), batch["end_positions"].tolist(), strict=True):
        example = pool.example(pool.example_index[window])
        assert example.context[start:end] == (example.answer if last else "")
        assert example.gold == (example.answer,)


def test_the_mixture_names_windows_of_the_training_parts_in_its_order(data: DataSpec, tmp_path: Path) -> None:
    prepared = _open(data, tmp_path / "prepared")
    train = prepared.training_windows(MIXTURE)
    examples = prepared.pool.example_index[train.windows]
    by_domain = [set(examples[train.domains == i].tolist()) for i in (0, 1)]
    assert [len(found) for found in by_domain] == [12, 8]
    for found, domain in zip(by_domain, prepared.domains.values(), strict=True):
        assert found <= set(domain.split("train").tolist())
    assert (np.diff(train.domains) >= 0).all()
    assert set(train.windows.tolist()) == set(prepared.pool.windows_of(np.array(sorted(by_domain[0] | by_domain[1]))).tolist())
    shuffled = prepared.training_windows(MIXTURE.model_copy(update={"order": "shuffled"}))
    assert sorted(shuffled.windows.tolist()) == sorted(train.windows.tolist())
    assert (np.diff(shuffled.domains) < 0).any()


def test_too_large_a_mixture_is_refused_with_the_largest(data: DataSpec, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="'squad' has 30 training examples, the mixture needs 60; set mixture_size to at most 50"
    ):
        _open(data, tmp_path / "prepared").training_windows(MixtureConfig(size=100, share=60))


def test_evaluation_limits_take_nested_prefixes(data: DataSpec, tmp_path: Path) -> None:
    parts = [
        _open(data, tmp_path / "prepared", validation_examples=n, test_examples=n).domains["bioasq"].parts for n in (2, 4, 999)
    ]
    for part in ("validation", "test"):
        few, more, every = (set(found[part].tolist()) for found in parts)
        assert (len(few), len(more), len(every)) == (2, 4, 9)
        assert few < more < every
    assert all(np.array_equal(found["train"], parts[0]["train"]) for found in parts)


def test_the_split_follows_the_mixtures_seed(data: DataSpec, tmp_path: Path) -> None:
    tests = [
        tuple(_open(data, tmp_path / "prepared", MIXTURE.model_copy(update={"seed": seed})).domains["bioasq"].split("test"))
        for seed in (0, 0, 1)
    ]
    assert tests[0] == tests[1] != tests[2]


def test_counts_say_what_became_of_the_rows(data: DataSpec, tmp_path: Path, write_flat: Any, make_rows: Any) -> None:
    rows = make_rows("aed", 10)
    rows[0]["answers"]["answer_start"] = [0]
    rows[1]["answers"] = {"text": ["nowhere"], "answer_start": [0]}
    path = write_flat("aed.jsonl", rows)
    spec = DataSpec(encoder=data.encoder, domains={"one": DomainSpec(train=str(path))})
    counts = _open(spec, tmp_path / "prepared").domains["one"].counts
    assert (counts.train_rows.read, counts.train_rows.no_span, counts.train_rows.repaired) == (30, 1, 1)
    assert (counts.group_by, counts.test_rows, counts.dropped_overlap) == ("context", None, 0)
    assert sum(part.examples for part in counts.parts.values()) == 29
    assert {name: part.groups for name, part in counts.parts.items()} == {"train": 6, "validation": 2, "test": 2}
    assert all(part.windows >= part.examples and part.unlabelled == 0 for part in counts.parts.values())
    assert json.loads(json.dumps(counts.to_json()))["parts"]["test"]["groups"] == 2
    (saved,) = (tmp_path / "prepared").glob("*/counts.json")
    assert json.loads(saved.read_text())["rows"]["repaired"] == 1


def test_a_stricter_share_is_enforced_on_what_is_already_prepared(
    data: DataSpec, tmp_path: Path, write_flat: Any, make_rows: Any
) -> None:
    rows = make_rows("aed", 10)
    rows[4]["answers"] = {"text": ["nowhere"], "answer_start": [0]}
    lenient = DomainSpec(train=str(write_flat("aed.jsonl", rows)), max_dropped_share=0.1)
    strict = lenient.model_copy(update={"max_dropped_share": 0.01})
    for _ in range(2):
        with pytest.raises(DataError, match=r"1 of 30 rows of .* row 4 .*nowhere"):
            _prepare(DataSpec(encoder=data.encoder, domains={"one": strict}), tmp_path / "prepared")
        _prepare(DataSpec(encoder=data.encoder, domains={"one": lenient}), tmp_path / "prepared")


def test_overlap_is_found_before_any_training(data: DataSpec, tmp_path: Path) -> None:
    train = data.domains["squad"].train
    same = DataSpec(encoder=data.encoder, domains={"one": DomainSpec(train=train, test=train)})
    with pytest.raises(DataError, match="36 of 36 training rows of domain 'one' share a context"):
        _prepare(same, tmp_path / "prepared")


def test_dropped_overlap_is_in_neither_training_nor_validation(
    data: DataSpec, tmp_path: Path, write_flat: Any, make_rows: Any
) -> None:
    test = write_flat("some.jsonl", make_rows("abc", 4))
    spec = data.domains["squad"].model_copy(update={"test": str(test), "overlap": "drop"})
    prepared = _open(DataSpec(encoder=data.encoder, domains={"one": spec}), tmp_path / "prepared")
    domain = prepared.domains["one"]
    contexts = [set(prepared.pool.column("context", domain.split(part))) for part in ("train", "validation", "test")]
    assert not ((contexts[0] | contexts[1]) & contexts[2])
    assert domain.counts.dropped_overlap == 12
    assert len(domain.split("train")) + len(domain.split("validation")) == 24


def _build_in_process(data: DataSpec, folder: Path, barrier: Any, results: Any) -> None:
    import trainables.data.build  # noqa: F401  (imported before the barrier: both start to build at the same time)

    barrier.wait()
    prepared = _open(data, folder)
    results.put((os.getpid(), prepared.pool.num_windows, int(prepared.pool.input_ids(0).sum())))


def test_processes_that_build_at_once_both_end_well(data: DataSpec, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=_build_in_process, args=(data, tmp_path / "prepared", barrier, results)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    assert found[0][1:] == found[1][1:]
    assert len({pid for pid, *_ in found}) == 2
    assert len(list((tmp_path / "prepared").iterdir())) == 3  # no temporary folder is left


def test_a_build_that_fails_leaves_nothing_behind(data: DataSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(folder: Path, *_: object) -> None:
        (folder / "input_ids.npy").write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("trainables.data.build.write_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        _prepare(data, tmp_path / "prepared")
    assert list((tmp_path / "prepared").iterdir()) == []
    monkeypatch.undo()
    assert len(_prepare(data, tmp_path / "prepared")) == 3


def test_an_encoder_without_a_tokenizer_is_refused(data: DataSpec, tmp_path: Path) -> None:
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "config.json").write_text('{"model_type": "distilbert"}')
    with pytest.raises(DataError, match="whose tokenizer has a vocabulary, got only"):
        _prepare(data.model_copy(update={"encoder": str(tmp_path / "encoder")}), tmp_path / "prepared")


def test_no_domain_at_all_is_refused(data: DataSpec, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one domain is needed"):
        _open(DataSpec(encoder=data.encoder, domains={}), tmp_path)


def test_a_batch_of_sixteen_windows_takes_a_fraction_of_a_millisecond(data: DataSpec, tmp_path: Path) -> None:
    prepared = _open(data, tmp_path / "prepared")
    train = prepared.training_windows(MIXTURE)
    asked = {"order": "shuffled", "sampler": "as_ordered", "epoch": 0, "seed": 0}
    plan = batches(train.lengths, train.domains, batch_size=16, **asked)  # type: ignore[arg-type]
    seconds = []
    for _ in range(50):
        for batch in plan:
            begin = time.perf_counter()
            prepared.pool.collate(train.windows[batch], pad_id=prepared.pad_id)
            seconds.append(time.perf_counter() - begin)
    assert np.median(seconds) < 0.5e-3  # 0.03 ms alone on this machine; room for a busy one
