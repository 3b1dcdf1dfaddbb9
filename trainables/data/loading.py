"""A domain's train or test rows from wherever they are: one file, a folder of files, or the hub."""

from __future__ import annotations

import tempfile
from pathlib import Path

import datasets

from trainables.data.align import align
from trainables.data.columns import rows_from_columns
from trainables.data.counts import RowCounts
from trainables.data.errors import DataError
from trainables.data.formats import detect_format, read_file
from trainables.data.revisions import cached_snapshot, resolve_revision
from trainables.data.rows import quiet_progress
from trainables.data.sources import HubSource, LocalSource, Role, data_files, parse_source

__all__ = ["load_rows"]

_TABLE_SUFFIXES = {".csv", ".parquet"}
_TABLE_FORMATS = {"auto", "answer_context", "csv", "parquet"}
# As `datasets` infers splits from names (https://huggingface.co/docs/datasets/repository_structure).
_SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing"),
}


def load_rows(text: str, role: Role, file_format: str = "auto") -> tuple[datasets.Dataset, RowCounts]:
    """The aligned rows that `text` (`DomainSpec.train` or `.test`) names, and what became of the rows read.

    A folder of Parquet or CSV files is read as the hub would be, split by split; in any other folder all files are read,
    or, where names tell splits apart, those of the split. Raises: DataError saying what is missing or unreadable.
    """
    source = parse_source(text, role)
    if isinstance(source, HubSource):
        return align(_load_hub(source))
    if source.path.is_file():
        return align(read_file(source.path, file_format))
    files = data_files(source.path)
    if {path.suffix.lower() for path in files} <= _TABLE_SUFFIXES and file_format in _TABLE_FORMATS:
        return align(_load_table(str(source.path), None, source))
    chosen = _of_splits(files, source)
    raw = [read_file(path, detect_format(path) if file_format == "auto" else file_format) for path in chosen]
    return align(datasets.concatenate_datasets(raw))


def _load_hub(source: HubSource) -> datasets.Dataset:
    revision = resolve_revision(source.repo_id, source.revision, kind="dataset")
    try:
        return _load_table(source.repo_id, revision, source)
    except DataError:
        snapshot = cached_snapshot(source.repo_id, revision, kind="dataset")
        if snapshot is None:
            raise
        return _load_table(str(snapshot), None, source)  # no network, but the files were downloaded before


def _load_table(path: str, revision: str | None, source: LocalSource | HubSource) -> datasets.Dataset:
    """Raw rows of a dataset in hub layout, read into memory; only the hub's own downloads stay on disk."""
    where = f"{path}@{revision}" if revision else path
    with tempfile.TemporaryDirectory(prefix="rows-") as cache_dir, quiet_progress():
        try:
            builder = datasets.load_dataset_builder(path, revision=revision, cache_dir=cache_dir)
            if hasattr(builder.config, "keep_default_na"):  # pandas would read the answers "NA" and "null" as missing
                builder = datasets.load_dataset_builder(path, revision=revision, cache_dir=cache_dir, keep_default_na=False)
            builder.download_and_prepare()
            names = _available_splits(list(builder.info.splits or {}), source, where)
            parts = [builder.as_dataset(split=name, in_memory=True) for name in names]
        except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"cannot load {where}: {type(error).__name__}: {error}; "
                "check the name and the network, name local files, or use --preset embedded"
            ) from error
    return datasets.concatenate_datasets([rows_from_columns(part, where) for part in parts])


def _available_splits(there: list[str], source: LocalSource | HubSource, where: str) -> list[str]:
    if not source.named and isinstance(source, LocalSource) and len(there) == 1:
        return there  # a folder without splits is all train to `datasets`, whatever it is meant for
    missing = [name for name in source.splits if name not in there]
    if missing:
        wanted = "+".join(source.splits)
        raise DataError(f"{where} has the splits {', '.join(there)}, got {wanted}; write {where}:<split>[+<split>]")
    return list(source.splits)


def _of_splits(files: list[Path], source: LocalSource) -> list[Path]:
    splits = {path: _split_of(path.relative_to(source.path)) for path in files}
    if not any(splits.values()) and not source.named:
        return files
    chosen = [path for path in files if splits[path] in source.splits]
    if not chosen:
        there = sorted({name for name in splits.values() if name})
        raise DataError(
            f"no file name in {source.path} tells the split {'+'.join(source.splits)}, got {there or 'no splits'}; "
            f"name a file, or write {source.path}:<split>"
        )
    return chosen


def _split_of(path: Path) -> str | None:
    words = set("".join(char if char.isalnum() else " " for char in path.as_posix().lower()).split())
    return next((split for split, names in _SPLIT_WORDS.items() if words & set(names)), None)
