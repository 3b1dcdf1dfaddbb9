"""What every kind of storage promises, on a folder and on an object store; and what object stores have of their own."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from s3_server import KEY, SECRET, S3Server

from results import object_storage
from results.errors import LedgerError
from results.ledger import Ledger
from results.parts import attempt_part, list_attempts, read_attempts, write_part
from results.storage import SweepStorage, open_storage, open_sweep_storage


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> SweepStorage:
    """An empty storage."""
    return open_sweep_storage(tmp_path / "storage" if request.param == "folder" else request.getfixturevalue("s3"))


def test_a_file_is_read_as_it_was_written_last(storage: SweepStorage) -> None:
    path = storage.path("sweeps/a/sweep.json")
    assert not storage.is_begun
    with pytest.raises(FileNotFoundError):
        storage.read(path)
    with pytest.raises(FileNotFoundError):
        storage.modified(path)
    for content in (b"long content", b"short"):
        storage.write(path, content)
        assert storage.read(path).to_pybytes() == content
    assert storage.is_begun
    assert storage.is_there


def test_of_many_that_create_a_file_one_does(storage: SweepStorage) -> None:
    path = storage.path("leases/x.lease.1")
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda number: storage.create(path, str(number).encode()), range(24)))
    assert created.count(True) == 1
    assert storage.read(path).to_pybytes() == str(created.index(True)).encode()
    storage.remove(path)
    assert storage.create(path, b"again")


def test_listing_names_what_is_there_and_no_more(storage: SweepStorage) -> None:
    for name in ("a/1", "a/2", "a/deep/3", "ab/4"):
        storage.write(storage.path(name), b"x")
    assert [name for name in storage.names("a") if name != "deep"] == ["1", "2"]
    assert [storage.relative(info.path) for info in storage.files("a")] == ["a/1", "a/2", "a/deep/3"]
    assert [info.size for info in storage.files("a", recursive=False)] == [1, 1]
    storage.remove(storage.path("a/1"))
    storage.remove(storage.path("a/1"))
    storage.remove_folder("a/deep")
    assert [storage.relative(info.path) for info in storage.files("a")] == ["a/2"]
    assert storage.names("nowhere") == []
    assert storage.files("nowhere") == []


def test_a_part_replaced_at_once_by_one_of_the_same_size_is_read_anew(storage: SweepStorage) -> None:
    ledger = Ledger(storage, must_exist=False)
    for step in (1, 2, 3):
        write_part(storage, "reports", "t-1", [{"trial_key": "t", "attempt": 1, "step": step}])
        assert ledger.sql("SELECT step FROM reports").to_pylist() == [{"step": step}]


def test_a_listing_of_more_than_a_page_is_whole(s3: str, s3_server: S3Server) -> None:
    storage = open_storage(s3)
    write_part(storage, "attempts", attempt_part("t", 1), [{"trial_key": "t", "attempt": 1, "status": "lost"}])
    [(name, content)] = s3_server.objects(s3.split("/")[2]).items()
    for number in range(2, 1102):
        s3_server.put(s3.split("/")[2], name.replace("t-1", f"t-{number}"), content)
    assert list_attempts(storage, "t") == list(range(1, 1102))
    assert len(storage.parts("attempts")) == 1101
    assert len(storage.files("ledger")) == 1101


def test_the_endpoint_may_be_in_the_uri(s3: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    named = f"{s3}?endpoint_override={s3_server.url.removeprefix('http://')}&scheme=http&region=us-east-1"
    write_part(named, "attempts", "t-1", [{"trial_key": "t", "attempt": 1}])
    assert [row["attempt"] for row in read_attempts(named, "t")] == [1]
    assert Ledger(named).sql("SELECT count(*) AS n FROM attempts").to_pylist() == [{"n": 1}]


def test_rows_that_a_throttling_store_withholds_are_not_taken_for_damaged(
    s3: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_part(s3, "attempts", "t-1", [{"trial_key": "t", "attempt": 1}])
    monkeypatch.setitem(object_storage._RETRIES, "max_retries", 1)
    object_storage._store.cache_clear()
    ledger = Ledger(s3, must_exist=False)
    s3_server.throttled = "/t-1.parquet"
    try:
        with pytest.raises(OSError, match="503 Service Unavailable, SlowDown"):
            ledger.sql("SELECT * FROM attempts")
    finally:
        s3_server.throttled = None
        object_storage._store.cache_clear()
    assert ledger.skipped == {}
    assert len(ledger.sql("SELECT * FROM attempts").to_pylist()) == 1


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("s3://bucket/x?access_key=abc", r"takes endpoint_override, region, scheme after `\?`, got 'access_key'"),
        ("s3://bucket/x?regio=eu", r"got 'regio', the nearest is 'region'"),
        ("s3://", "is s3://bucket/folder, got 's3://'"),
        ("s3://bucket//x", "is s3://bucket/folder"),
        ("hdfs://nowhere:1/x", "sweeps run on a folder or on gs://, s3://|that pyarrow opens"),
    ],
)
def test_a_uri_that_makes_no_sense_is_told_in_a_line(uri: str, complaint: str, s3: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        open_sweep_storage(uri)


@pytest.mark.parametrize("typo", ["s3:/bucket/x", "s3//bucket/x", "S3:bucket", "gcs:/bucket", "file:/x"])
def test_a_uri_with_a_part_missing_is_no_folder(typo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"as s3://bucket/folder does, got '{typo}'; a folder of that name is ./{typo}"):
        open_storage(typo)
    assert open_storage(f"./{typo}").root == f"{tmp_path}/{typo.replace('//', '/')}"
    assert open_storage("s3-results").root == f"{tmp_path}/s3-results"


def test_without_credentials_it_says_where_they_go(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    object_storage._session.cache_clear()
    try:
        with pytest.raises(ValueError, match="no credentials for S3; set AWS_PROFILE"):
            open_storage(f"{s3}/elsewhere")
        monkeypatch.setenv("AWS_PROFILE", "nobody")
        with pytest.raises(ValueError, match=r"no credentials for S3: The config profile \(nobody\) could not be found"):
            open_storage(f"{s3}/elsewhere")
    finally:
        object_storage._session.cache_clear()


def test_credentials_of_a_profile_are_enough(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credentials").write_text(f"[lab]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    object_storage._session.cache_clear()
    try:
        write_part(f"{s3}/lab", "attempts", "t-1", [{"trial_key": "t", "attempt": 1}])
        assert Ledger(f"{s3}/lab").sql("SELECT count(*) AS n FROM attempts").to_pylist() == [{"n": 1}]
    finally:
        object_storage._session.cache_clear()


@pytest.mark.parametrize("package", ["obstore", "boto3"])
def test_a_package_that_is_not_installed_is_named(package: str, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    object_storage._session.cache_clear()
    with pytest.raises(ValueError, match=rf"needs {package}, which is not installed; pip install 'expert-sweeps\[s3\]'"):
        open_storage(f"{s3}/{package}")


def test_a_bucket_that_is_not_there_is_told(s3: str) -> None:
    storage = open_storage("s3://no-such-bucket/x")
    with pytest.raises(FileNotFoundError, match="404 Not Found, NoSuchBucket"):
        storage.write(storage.path("x"), b"")


def test_compacting_and_repairing_are_refused(s3: str) -> None:
    from results.compact import compact
    from results.quarantine import put_away

    write_part(s3, "attempts", "t-1", [{"trial_key": "t", "attempt": 1}])
    with pytest.raises(ValueError, match=f"compact needs a local or mounted path, got {s3}"):
        compact(s3)
    with pytest.raises((ValueError, LedgerError), match=f"--repair needs a local or mounted path, got {s3}"):
        put_away(Ledger(s3), [], None)
