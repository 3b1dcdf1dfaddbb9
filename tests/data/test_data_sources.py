"""Fingerprints follow content and pinned revisions, never paths; what is missing is said together with the ways on."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from trainables.data.errors import DataError
from trainables.data.revisions import resolve_revision
from trainables.data.sources import (
    HubSource,
    LocalSource,
    data_files,
    data_fingerprint,
    encoder_fingerprint,
    parse_encoder,
    parse_source,
    pinned,
    source_fingerprint,
    tokenizer_fingerprint,
)
from trainables.data.spec import DataSpec, DomainSpec

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = COMMIT[::-1]


class _Hub(BaseHTTPRequestHandler):
    """Answers as the hub's API does for one dataset and one model; every other name is unknown."""

    def do_GET(self) -> None:
        commits = {
            "/api/datasets/owner/rows": COMMIT,
            "/api/datasets/owner/rows/revision/v1": OTHER,
            "/api/models/distil": OTHER,
        }
        path = self.path.partition("?")[0]
        found = commits.get(path)
        code = "RevisionNotFound" if "/revision/" in path else "RepoNotFound"
        self.send_response(200 if found else 404)
        if not found:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        name = "/".join(path.split("/")[3:5])
        self.wfile.write(json.dumps({"id": name, "sha": found, "siblings": [], "tags": []} if found else {}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    """A hub of our own on localhost, and an empty hub cache."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    resolve_revision.cache_clear()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
    resolve_revision.cache_clear()


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """No hub listens; yields the (empty) hub cache."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    resolve_revision.cache_clear()
    yield tmp_path / "hub-cache"
    resolve_revision.cache_clear()


@pytest.mark.parametrize(
    ("text", "role", "expected"),
    [
        ("owner/rows", "train", ("owner/rows", None, ("train",), False)),
        ("owner/rows", "test", ("owner/rows", None, ("validation",), False)),
        ("owner/rows@v1:test", "train", ("owner/rows", "v1", ("test",), True)),
        ("owner/rows:train+validation", "train", ("owner/rows", None, ("train", "validation"), True)),
        ("owner/rows@refs/pr/1", "train", ("owner/rows", "refs/pr/1", ("train",), False)),
    ],
)
def test_a_hub_id_is_parsed_into_its_parts(text: str, role: str, expected: tuple[object, ...]) -> None:
    source = parse_source(text, role)  # type: ignore[arg-type]
    assert isinstance(source, HubSource)
    assert (source.repo_id, source.revision, source.splits, source.named) == expected


def test_an_existing_path_comes_before_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "rows").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert parse_source("owner/rows", "test") == LocalSource(path=Path("owner/rows"), splits=("validation",), named=False)
    assert parse_source("owner/rows:dev+test", "test") == LocalSource(
        path=Path("owner/rows"), splits=("dev", "test"), named=True
    )


@pytest.mark.parametrize("text", ["rows.jsonl", "./rows", "/no/such/file", "data/rows.csv", "a/b/c", "", "~no-such-user/x"])
def test_a_missing_path_is_named_with_where_it_was_looked_for(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    where = "" if text.startswith("/") else f" relative to {tmp_path}"
    with pytest.raises(DataError, match=f"no such file or folder: {text!r}{where}; .*--preset embedded"):
        parse_source(text, "train")


def test_a_file_has_no_splits(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("x")
    with pytest.raises(DataError, match="only folders and hub datasets have splits"):
        parse_source(f"{tmp_path}/rows:train", "train")


def test_an_encoder_folder_needs_a_config(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"without config\.json"):
        parse_encoder(str(tmp_path))
    with pytest.raises(DataError, match="no such file or folder"):
        parse_encoder("/no/such/encoder")


def test_a_folder_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing here")
    with pytest.raises(DataError, match="no data files in"):
        data_files(tmp_path)


def _spec(folder: Path, encoder: Path, **more: object) -> DataSpec:
    return DataSpec(encoder=str(encoder), domains={"one": DomainSpec(train=str(folder / "train"), **more)})


def test_the_fingerprint_is_of_content_not_of_paths_or_times(tmp_path: Path, encoder_folder: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train").write_text("rows")
    here, there = tmp_path / "here", tmp_path / "there"
    before = data_fingerprint(_spec(here, encoder_folder))
    os.utime(there / "train", (1, 1))
    assert data_fingerprint(_spec(there, encoder_folder)) == before
    (here / "train").write_text("sows")
    os.utime(here / "train", (2, 2))
    assert data_fingerprint(_spec(here, encoder_folder)) != before


@pytest.mark.parametrize(
    "more", [{"format": "flat"}, {"group_by": "question"}, {"overlap": "drop"}, {"max_dropped_share": 0.5}]
)
def test_every_rule_of_a_domain_enters_the_fingerprint(more: dict[str, object], tmp_path: Path, encoder_folder: Path) -> None:
    (tmp_path / "train").write_text("rows")
    assert data_fingerprint(_spec(tmp_path, encoder_folder, **more)) != data_fingerprint(_spec(tmp_path, encoder_folder))


def test_names_order_and_roles_of_domains_enter_the_fingerprint(tmp_path: Path, encoder_folder: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    a, b = DomainSpec(train=str(tmp_path / "a")), DomainSpec(train=str(tmp_path / "b"))
    both = DomainSpec(train=a.train, test=b.train)
    swapped = DomainSpec(train=b.train, test=a.train)
    variants = [{"x": a, "y": b}, {"y": b, "x": a}, {"x": b, "y": a}, {"x": a, "z": b}, {"x": a}, {"x": both}, {"x": swapped}]
    found = {data_fingerprint(DataSpec(encoder=str(encoder_folder), domains=domains)) for domains in variants}
    assert len(found) == len(variants)


def test_a_folders_fingerprint_knows_names_contents_and_splits(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "train.csv").write_text("1")
    (tmp_path / "test.csv").write_text("2")
    before = source_fingerprint(str(tmp_path), "train")
    (tmp_path / "README.md").write_text("ignored")
    (tmp_path / ".cache").write_text("ignored")
    assert source_fingerprint(str(tmp_path), "train") == before
    assert source_fingerprint(str(tmp_path), "test") != before
    (tmp_path / "test.csv").rename(tmp_path / "dev.csv")
    assert source_fingerprint(str(tmp_path), "train") != before


def test_weights_change_the_encoder_but_not_the_tokenizer_fingerprint(tmp_path: Path, encoder_folder: Path) -> None:
    for path in encoder_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    encoder, tokenizer = encoder_fingerprint(str(tmp_path)), tokenizer_fingerprint(str(tmp_path))
    assert encoder == encoder_fingerprint(str(encoder_folder))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert encoder_fingerprint(str(tmp_path)) != encoder
    assert tokenizer_fingerprint(str(tmp_path)) == tokenizer
    (tmp_path / "tokenizer.json").write_text("{}")
    assert tokenizer_fingerprint(str(tmp_path)) != tokenizer


def test_hub_ids_are_pinned_to_the_commit_the_hub_names(hub: ThreadingHTTPServer) -> None:
    data = DataSpec(encoder="distil", domains={"one": DomainSpec(train="owner/rows@v1:train+test", test="owner/rows")})
    fixed = pinned(data)
    assert fixed.encoder == f"distil@{OTHER}"
    assert fixed.domains["one"].train == f"owner/rows@{OTHER}:train+test"
    assert fixed.domains["one"].test == f"owner/rows@{COMMIT}"
    assert data_fingerprint(fixed) == data_fingerprint(data)
    assert pinned(fixed) == fixed


def test_a_full_commit_needs_no_network(no_hub: Path) -> None:
    data = DataSpec(encoder=f"distil@{COMMIT}", domains={"one": DomainSpec(train=f"owner/rows@{COMMIT}")})
    other = DataSpec(encoder=f"distil@{COMMIT}", domains={"one": DomainSpec(train=f"owner/rows@{OTHER}")})
    assert data_fingerprint(data) != data_fingerprint(other)


@pytest.mark.parametrize("text", ["owner/unknown", "owner/rows@unknown"])
def test_what_the_hub_does_not_know_is_said_with_the_ways_on(text: str, hub: ThreadingHTTPServer) -> None:
    with pytest.raises(DataError, match=f"the hub has no dataset '{text}' .*name local files, or use --preset embedded"):
        source_fingerprint(text, "train")


def test_an_unreachable_hub_is_said_with_the_ways_on(no_hub: Path) -> None:
    with pytest.raises(DataError, match=r"cannot reach the Hugging Face hub for dataset 'owner/rows' .*--preset embedded"):
        source_fingerprint("owner/rows", "train")


def test_a_warm_hub_cache_stands_in_for_an_unreachable_hub(no_hub: Path, write_cache: Callable[[Path, str], None]) -> None:
    write_cache(no_hub / "datasets--owner--rows", COMMIT)
    assert resolve_revision("owner/rows", None, kind="dataset") == COMMIT


@pytest.fixture
def write_cache() -> Callable[[Path, str], None]:
    """Makes a repository folder as the hub's cache has it, one snapshot with `main` pointing to it."""

    def write(repository: Path, commit: str) -> None:
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(commit)
        (repository / "snapshots" / commit).mkdir(parents=True)

    return write
