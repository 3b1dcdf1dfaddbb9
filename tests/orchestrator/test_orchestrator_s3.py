"""Sweeps on an object store: the same ledger as in a folder, whatever is killed, throttled or missing."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from s3_server import KEY, SECRET, S3Server

from orchestrator.errors import StorageError
from orchestrator.node_cache import add_bundle, fetch_bundle, fetch_file, publish_bundle
from orchestrator.node_files import node_files
from orchestrator.record import LedgerWriter
from orchestrator.sweep import check_writable
from results import object_storage
from results.ledger import Ledger
from results.parts import read_attempts
from results.storage import open_storage, open_sweep_storage
from trainables.data.spec import DataSpec, DomainSpec
from trainables.embedded.corpora import write_corpora

ROOT = Path(__file__).resolve().parents[2]
TWO_TRIALS = {
    "trainables": ["distilbert"],
    "shares": [0, 60],
    "orders": ["shuffled"],
    "model": {"n_layers": 1},
    "mixture_size": 20,
    "training": {"epochs": 2, "batch_size": 8, "max_length": 64, "stride": 16},
    "evaluation": {"validation_examples": 4, "test_examples": 4},
    "recovery": {"checkpoint_seconds": 0},
}
MEASURED = ("reports", "evaluations", "predictions", "routing")


def measured(storage: str | Path) -> dict[str, list[dict[str, Any]]]:
    """All that a ledger says was measured, but for which attempt did and how long it took."""
    ledger = Ledger(storage, must_exist=False)
    left_out = {"reports": "EXCLUDE (attempt, wall_seconds)"}
    return {
        table: ledger.sql(f"SELECT * {left_out.get(table, 'EXCLUDE (attempt)')} FROM {table} ORDER BY ALL").to_pylist()
        for table in MEASURED
    }


@contextmanager
def driver(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A driver in a process of its own."""
    command = [sys.executable, "-m", "orchestrator.run", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def everything_in(storage: str) -> str:
    """All rows of all tables of a ledger, as text."""
    ledger = Ledger(storage, must_exist=False)
    return "".join(str(ledger.sql(f"SELECT * FROM {table}").to_pylist()) for table in ("plans", "attempts", "events", "runs"))


@pytest.mark.timeout(600)
def test_a_killed_sweep_goes_on_at_another_node_and_its_ledger_is_that_of_a_folder(
    s3: str,
    s3_server: S3Server,
    cli: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    preset_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = s3.split("/")[2]
    files = write_corpora(tmp_path / "corpora", train_rows=150, test_rows=20)
    domains = {name: {part: str(files[f"{name}_{part}"]) for part in ("train", "test")} for name in ("squad", "bioasq")}
    grid = ["grid", "--preset", str(preset_file(domains=domains, **TWO_TRIALS)), "--backend", "inline", "--yes", "--storage"]

    def objects(part: str) -> list[str]:
        return [name for name in list(s3_server.objects(bucket)) if part in name]

    def is_in_second_trial() -> bool:
        return len(objects("/final.safetensors")) == 1 and len(objects("/step-")) > 0 and len(objects("/ledger/reports/")) == 2

    with driver(*grid, s3) as first:
        wait_for(is_in_second_trial, first)
        first.send_signal(signal.SIGSTOP)
        code, _, refusal = cli(*grid, s3)
        assert code == 2
        assert f"is being run by process {first.pid} on " in refusal.splitlines()[-1]
        first.send_signal(signal.SIGKILL)
        assert first.stdout is not None
        said = first.stdout.read()
    monkeypatch.setenv("SWEEPS_CACHE", str(tmp_path / "another node"))
    code, _, resumed = cli("resume", "--backend", "inline", "--storage", s3)
    assert code == 0, resumed
    code, table, status = cli("status", "--storage", s3, "--json")
    assert list(json.loads(table).values()) == [{"completed": 2}]

    assert cli(*grid, str(tmp_path / "folder"))[0] == 0
    assert measured(s3) == measured(tmp_path / "folder")
    attempts = Ledger(s3).sql("SELECT trial_key, status, resumed_step FROM attempts ORDER BY started_at").to_pylist()
    assert [row["status"] for row in attempts] == ["completed", "lost", "completed"]  # the finished trial was not run again
    assert attempts[2]["resumed_step"] > 0
    assert len(objects("/final.safetensors")) == 2
    assert objects("/step-") == objects(".lease.") == []

    shown = said + refusal + resumed + table + status + everything_in(s3)
    stored = b"".join(s3_server.objects(bucket).values())
    for secret in (KEY, SECRET):
        assert secret not in shown
        assert secret.encode() not in stored


def test_the_newest_checkpoint_that_is_whole_is_fetched(s3: str, s3_server: S3Server) -> None:
    from trainables.training import checkpoints

    there = node_files(s3).checkpoints("t")
    for step in (1, 2, 3):
        there.publish(checkpoints.save(there.folder, step, {"step": step}))
    there.close()
    assert open_sweep_storage(s3).names("checkpoints/t") == ["step-00000002.safetensors", "step-00000003.safetensors"]
    s3_server.put(s3.split("/")[2], "of/ours/checkpoints/t/step-00000003.safetensors", b"torn")
    here = node_files(s3).checkpoints("t")
    here.fetch(lambda: checkpoints.newest_step(here.folder) > 0)
    assert checkpoints.load_newest(here.folder, "cpu", lambda _: None) == {"step": 2}
    here.publish(checkpoints.save(here.folder, 4, {"step": 4}))
    here.forget_steps()
    here.close()
    assert open_sweep_storage(s3).names("checkpoints/t") == []


def test_a_throttling_store_is_waited_for_and_told_of(s3: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(object_storage._RETRIES, "max_retries", 1)
    object_storage._store.cache_clear()
    said: list[str] = []
    writer = LedgerWriter(open_storage(s3), 60, said.append)
    s3_server.throttled = ""
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(writer.write, "attempts", "t-1", [{"trial_key": "t", "attempt": 1}])
        while not said:
            time.sleep(0.02)
        s3_server.throttled = None
        written.result()
    assert said[0] == (
        f"storage {s3} cannot be written (503 Service Unavailable, SlowDown); "
        "free space or bring it back, and everything goes on by itself"
    )
    assert said[1:] == [""]
    assert len(read_attempts(s3, "t")) == 1

    s3_server.throttled = ""
    writer.give_up()
    with pytest.raises(StorageError, match=f"SlowDown.*the rows are safe in .*: copy its ledger/ to {s3}"):
        writer.write("attempts", "t-2", [{"trial_key": "t", "attempt": 2}])
    s3_server.throttled = None
    object_storage._store.cache_clear()


def test_a_server_that_lets_a_lease_be_taken_twice_is_refused(s3: str, s3_server: S3Server) -> None:
    check_writable(s3)
    s3_server.is_ignoring_conditions.set()
    try:
        with pytest.raises(StorageError, match=r"lets a file be created twice, .* has to obey If-None-Match"):
            check_writable(s3)
    finally:
        s3_server.is_ignoring_conditions.clear()
    assert open_sweep_storage(s3).names("sweeps") == []


def test_a_bucket_that_is_not_there_is_one_line(s3: str, cli: Callable[..., tuple[int, str, str]]) -> None:
    for command in ("grid", "search"):
        code, _, err = cli(command, "--backend", "inline", "--storage", "s3://no-such-bucket/x")
        assert code == 2
        what = "storage s3://no-such-bucket/x cannot be written (404 Not Found, NoSuchBucket)"
        assert err.strip().splitlines() == [f"error: {what}; name another with --storage"]


def bundle(s3: str, name: str, content: bytes, tmp_path: Path) -> None:
    """Publishes a bundle of one file, as another node did."""
    (tmp_path / "file").write_bytes(content)
    add_bundle(name, {"deep/file": tmp_path / "file"})
    publish_bundle(open_storage(s3), name)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Goes to a node that has nothing yet."""
    return lambda: monkeypatch.setenv("SWEEPS_CACHE", str(tmp_path / "elsewhere"))


def test_of_many_trials_on_a_node_one_fetches(
    s3: str, s3_server: S3Server, tmp_path: Path, elsewhere: Callable[[], None]
) -> None:
    bundle(s3, "prepared/abc", b"features" * 1000, tmp_path)
    elsewhere()
    s3_server.requests.clear()
    with ThreadPoolExecutor(8) as pool:
        [folder] = set(pool.map(lambda _: fetch_bundle(open_storage(s3), "prepared/abc"), range(8)))
    assert (folder / "deep" / "file").read_bytes() == b"features" * 1000
    assert sum(request.endswith("prepared/abc/deep/file") for request in s3_server.requests) == 1


def test_a_file_is_fetched_once_and_again_when_it_is_another(s3: str, s3_server: S3Server) -> None:
    storage, other = open_sweep_storage(s3), open_sweep_storage(f"s3://{s3_server.new_bucket()}/of/ours")
    name = "checkpoints/t/final.safetensors"
    for each, content in ((storage, b"weights"), (other, b"others'")):
        each.write(each.path(name), content)
    s3_server.requests.clear()
    with ThreadPoolExecutor(8) as pool:
        [file] = set(pool.map(lambda _: fetch_file(storage, name), range(8)))
    assert file.read_bytes() == b"weights"
    assert sum(request.startswith("GET") and request.endswith(name) for request in s3_server.requests) == 1
    assert fetch_file(other, name).read_bytes() == b"others'"
    storage.write(storage.path(name), b"trained again")
    assert fetch_file(storage, name).read_bytes() == b"trained again"
    storage.remove(storage.path(name))
    with pytest.raises(FileNotFoundError, match=r"final\.safetensors"):
        fetch_file(storage, name)


@pytest.mark.timeout(600)
def test_a_node_fetches_the_weights_that_its_trials_begin_from_once(
    s3: str,
    s3_server: S3Server,
    cli: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    preset_file: Callable[..., Path],
    elsewhere: Callable[[], None],
) -> None:
    """Two ensembles on one node over two experts that another node has trained."""
    ensembles = {"trainables": ["gated_ensemble:logits", "gated_ensemble:probabilities"], "shares": [60]}
    grid = ["grid", "--preset", str(preset_file(**{**TWO_TRIALS, **ensembles})), "--backend", "inline", "--yes", "--storage"]
    code, _, said = cli(*grid, s3, "--max-trials", "2")
    assert code == 0, said
    experts = {
        row["trial_key"] for row in Ledger(s3).sql("SELECT trial_key FROM trials WHERE status = 'completed'").to_pylist()
    }
    elsewhere()
    s3_server.requests.clear()
    code, _, said = cli(*grid, s3)
    assert code == 0, said
    fetched = [
        path.split("/")[-2] for path in s3_server.requests if path.startswith("GET") and path.endswith("final.safetensors")
    ]
    assert sorted(fetched) == sorted(experts)
    assert cli(*grid, str(tmp_path / "folder"))[0] == 0
    assert measured(s3) == measured(tmp_path / "folder")


def test_a_bundle_that_is_not_whole_or_not_as_published_is_not_used(
    s3: str, tmp_path: Path, elsewhere: Callable[[], None]
) -> None:
    storage = open_sweep_storage(s3)
    bundle(s3, "prepared/abc", b"features", tmp_path)
    elsewhere()
    storage.write(storage.path("prepared/abc/deep/file"), b"changed!")
    with pytest.raises(OSError, match=r"its checksum is not the one in prepared/abc\.json"):
        fetch_bundle(storage, "prepared/abc")
    storage.write(storage.path("prepared/abc.json"), json.dumps({"../../escaped": "0" * 64}).encode())
    with pytest.raises(OSError, match="names a file outside of its folder"):
        fetch_bundle(storage, "prepared/abc")
    storage.remove(storage.path("prepared/abc.json"))
    with pytest.raises(FileNotFoundError):
        fetch_bundle(storage, "prepared/abc")
    assert [path.name for path in (tmp_path / "elsewhere" / "prepared").iterdir()] == [".abc.lock"]


def test_local_data_can_be_read_on_any_node(s3: str, tmp_path: Path, elsewhere: Callable[[], None]) -> None:
    (tmp_path / "rows.csv").write_text("question,text\nwho?,<answer> x <context> x y\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "train.csv").write_text("question,text\nwhat?,<answer> y <context> x y\n")
    encoder = ROOT / "trainables" / "embedded" / "encoder"
    domain = DomainSpec(train=str(tmp_path / "rows.csv"), test=f"{tmp_path / 'parts'}:train")
    data = DataSpec(encoder=str(encoder), domains={"squad": domain})
    adopted = node_files(s3).adopt(data)
    assert str(tmp_path) not in adopted.model_dump_json()
    assert node_files(s3).adopt(adopted) == adopted
    node_files(s3).publish(adopted)
    elsewhere()
    local = node_files(s3).local(adopted)
    assert local.domains["squad"].test.endswith(":train")
    assert Path(local.domains["squad"].train).read_bytes() == (tmp_path / "rows.csv").read_bytes()
    assert {path.name for path in Path(local.encoder).iterdir()} == {path.name for path in encoder.iterdir()}


def test_looking_at_a_sweep_from_anywhere_takes_no_ray(s3: str) -> None:
    storage = open_sweep_storage(s3)
    storage.write(storage.path("sweeps/grid-1/notes"), b"")
    code = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_module("orchestrator.run", run_name="imported").get("app")(standalone_mode=False)
print(sorted({"ray", "torch", "transformers", "datasets"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", code, "orchestrator.run", "status", "--storage", s3]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert f"no sweeps in {s3} yet" in done.stderr
