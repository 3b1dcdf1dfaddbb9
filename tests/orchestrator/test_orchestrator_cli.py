"""The command line: one clear line and exit code 2 for every bad input, before anything runs."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.console import conclude
from orchestrator.recorder import INTERRUPTED, Outcome
from results.ledger import Ledger


def squad_file(folder: Path, rows: int, *, answer: str = "alpha") -> Path:
    """A SQuAD file whose contexts differ."""
    paragraphs = [
        {
            "context": f"The {i}th river is called alpha {i} by all.",
            "qas": [{"id": str(i), "question": f"What is the {i}th river?", "answers": [{"text": answer, "answer_start": 25}]}],
        }
        for i in range(rows)
    ]
    path = folder / f"rows{rows}{answer}.json"
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}), encoding="utf-8")
    return path


def test_plan_is_json_for_programs_and_touches_no_ledger(cli: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, _ = cli("plan", "grid", "--storage", str(tmp_path), "--json")
    planned = json.loads(out)
    assert code == 0
    assert planned["to_run"] == len(planned["trials"]) == 24
    assert planned["estimated_seconds"] is None
    assert {path.name for path in tmp_path.iterdir()} == {"corpora"}


def test_dry_run_is_plan(cli: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, err = cli("grid", "--dry-run", "--storage", str(tmp_path))
    assert code == 0
    assert out.count("planned") == 24
    assert "time unknown" in err


def test_after_a_run_plan_knows_what_is_done_and_what_more_would_cost(
    cli: Callable[..., tuple[int, str, str]], tmp_path: Path, preset_file: Callable[..., Path]
) -> None:
    preset, storage = str(preset_file(trainables=["distilbert"])), str(tmp_path / "storage")
    assert cli("grid", "--preset", preset, "--storage", storage, "--backend", "inline")[0] == 0
    assert json.loads(cli("plan", "grid", "--preset", preset, "--storage", storage, "--json")[1])["to_run"] == 0
    more = json.loads(cli("plan", "grid", "--preset", preset, "--storage", storage, "--seeds", "2", "--json")[1])
    assert more["to_run"] == 4
    assert more["estimated_seconds"] > 0
    assert json.loads(cli("status", "--storage", storage, "--json")[1]) == {"grid-" + _only_sweep(storage): {"completed": 4}}
    assert "nothing to resume" in cli("resume", "--storage", storage)[2]


def _only_sweep(storage: str) -> str:
    [folder] = (Path(storage) / "sweeps").iterdir()
    return folder.name.removeprefix("grid-")


BOTH = {"squad": "embedded", "bioasq": "embedded"}
BAD = {
    "missing file": ({"squad": {"train": "absent.json"}, "bioasq": "embedded"}, [], "absent.json'; a hub dataset is written"),
    "unknown format": ({"squad": {"train": "{tmp}/notes.txt"}, "bioasq": "embedded"}, [], "format"),
    "missing field": ({"squad": {"train": "{tmp}/nofield.jsonl"}, "bioasq": "embedded"}, [], "context"),
    "answers that are no spans": ({"squad": {"train": "{tmp}/rows60omega.json"}, "bioasq": "embedded"}, [], "60 of 60 rows"),
    "too few rows": (
        {"squad": {"train": "{tmp}/rows60alpha.json"}, "bioasq": "embedded"},
        ["mixture_size=500"],
        "set mixture_size",
    ),
    "overlapping splits": (
        {"squad": {"train": "{tmp}/rows60alpha.json", "test": "{tmp}/rows60alpha.json"}, "bioasq": "embedded"},
        [],
        "overlap",
    ),
    "hub out of reach": ({"squad": {"train": "rajpurkar/squad"}, "bioasq": "embedded"}, [], "--preset embedded"),
    "too many blocks": ({"squad": "embedded", "bioasq": "embedded"}, ["model.n_layers=6"], "model.n_layers must be in [1, 3]"),
    "too long windows": (
        {"squad": "embedded", "bioasq": "embedded"},
        ["training.max_length=512", "encoder={tmp}/short"],
        "training.max_length must be at most 64",
    ),
    "a seed out of range": (BOTH, ["seeds=[-1]"], "seeds.0: Input should be greater than or equal to 0, got -1"),
    "a rate that is no number": (BOTH, ["training.learning_rate=.nan"], "training.learning_rate"),
    "a key inside a value": (BOTH, ["training=3", "training.epochs=1"], "training was set to 3 before"),
    "an encoder without weights": (BOTH, ["encoder={tmp}/weightless"], "holds weights"),
    "a storage that is a file": (BOTH, ["--storage", "{tmp}/notes.txt"], "notes.txt"),
    "a password in the storage": (
        {"squad": "embedded", "bioasq": "embedded"},
        ["--storage", "s3://key:secret@bucket/folder"],
        "must not have credentials before the bucket, where other processes and logs show them; write s3://bucket/folder,",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line_before_any_trial(
    case: str,
    cli: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    preset_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    domains, changes, complaint = BAD[case]
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    prepare_bad_files(tmp_path)
    text = json.dumps(domains).replace("{tmp}", str(tmp_path))
    preset = preset_file(domains=json.loads(text))
    arguments = ["grid", "--preset", str(preset), "--backend", "inline", "--storage", str(tmp_path / "storage")]
    for change in changes:
        filled = change.replace("{tmp}", str(tmp_path))
        arguments += ["--set", filled] if "=" in filled else [filled]
    code, _, err = cli(*arguments)
    last = err.strip().splitlines()[-1]
    assert code == 2
    assert last.startswith("error: ")
    assert complaint in last
    assert "Traceback" not in err
    assert Ledger(tmp_path / "storage", must_exist=False).sql("SELECT count(*) AS n FROM attempts").to_pylist() == [{"n": 0}]


def prepare_bad_files(folder: Path) -> None:
    """Everything that the cases above name."""
    import shutil

    from trainables.embedded import ENCODER_PATH

    (folder / "notes.txt").write_text("neither rows nor questions\n", encoding="utf-8")
    (folder / "nofield.jsonl").write_text('{"id": "1", "question": "What?", "answers": {"text": [], "answer_start": []}}\n')
    squad_file(folder, 60)
    squad_file(folder, 60, answer="omega")
    shutil.copytree(ENCODER_PATH, folder / "short")
    config = json.loads((folder / "short" / "config.json").read_text(encoding="utf-8"))
    shutil.copytree(ENCODER_PATH, folder / "weightless", ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "short" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}), encoding="utf-8")


def planned(cli: Callable[..., tuple[int, str, str]], preset: Path, storage: Path) -> str:
    """A sweep that was frozen and never run."""
    code, _, err = cli("grid", "--preset", str(preset), "--storage", str(storage), "--backend", "inline", "--max-trials", "0")
    assert code == 0, err
    return next(path.name for path in (storage / "sweeps").iterdir() if path.is_dir())


def test_a_sweep_id_that_does_not_exist_is_answered_with_the_nearest(
    cli: Callable[..., tuple[int, str, str]], tmp_path: Path, preset_file: Callable[..., Path]
) -> None:
    storage = tmp_path / "storage"
    sweep_id = planned(cli, preset_file(), storage)
    for command in ("resume", "status"):
        code, _, err = cli(command, sweep_id[:-1] + "x", "--storage", str(storage))
        assert code == 2
        assert f"did you mean {sweep_id}?" in err
    (tmp_path / "empty").mkdir()
    code, _, err = cli("retry", "--failed", "grid-0", "--storage", str(tmp_path / "empty"))
    assert (code, err) == (2, f"error: no sweep 'grid-0' in {tmp_path / 'empty'}; there are: none\n")


def test_a_storage_that_is_not_there_is_no_finished_one(cli: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    for command in (["resume"], ["status"], ["retry", "--failed"], ["replay", "0123"]):
        code, _, err = cli(*command, "--storage", str(tmp_path / "nothere"))
        assert code == 2
        assert f"there is no storage {tmp_path / 'nothere'}" in err


def test_a_storage_that_cannot_be_written_is_told_alike_by_every_command(
    cli: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for command in (["grid"], ["search"], ["plan", "grid"], ["plan", "search"], ["grid", "--dry-run"]):
        for storage, why in (("/proc/nowhere", "No such file or directory"), (tmp_path / "file", "Not a directory")):
            code, _, err = cli(*command, "--storage", str(storage))
            assert code == 2
            assert err == f"error: storage {storage} cannot be written ({why}); name another with --storage\n"


def test_retry_says_what_it_takes_and_when_there_is_nothing_to_do(
    cli: Callable[..., tuple[int, str, str]], tmp_path: Path, preset_file: Callable[..., Path]
) -> None:
    storage = tmp_path / "storage"
    planned(cli, preset_file(), storage)
    code, _, err = cli("retry", "--storage", str(storage))
    assert code == 2
    assert "retry takes --failed" in err
    code, _, err = cli("retry", "--failed", "--storage", str(storage))
    assert code == 0
    assert "nothing to retry" in err


def test_a_sweep_that_cannot_be_read_is_not_called_finished(
    cli: Callable[..., tuple[int, str, str]], tmp_path: Path, preset_file: Callable[..., Path]
) -> None:
    storage = tmp_path / "storage"
    sweep_id = planned(cli, preset_file(), storage)
    (storage / "sweeps" / sweep_id / "sweep.json").write_text("{}")
    code, _, err = cli("resume", "--storage", str(storage))
    assert code == 0
    passed_over, last = err.splitlines()
    assert passed_over.startswith(f"passed over: sweep {sweep_id} cannot be read")
    assert last == f"nothing to resume: every sweep in {storage} that can be read is finished"


@pytest.mark.parametrize(("shares", "is_more_left"), [([0], False), ([0, 60], True)])
def test_resume_is_offered_where_it_would_run_anything(
    shares: list[int],
    is_more_left: bool,
    cli: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    preset_file: Callable[..., Path],
) -> None:
    storage = tmp_path / "storage"
    recovery = {"max_same_failures": 1, "max_retries": 0}
    preset = preset_file(trainables=["distilbert"], shares=shares, orders=["shuffled"], recovery=recovery)
    arguments = ("grid", "--preset", str(preset), "--storage", str(storage))
    for trial in json.loads(cli("plan", *arguments, "--json")[1])["trials"]:
        (storage / "checkpoints").mkdir(parents=True, exist_ok=True)
        (storage / "checkpoints" / trial["key"]).write_text("a file where the trial wants its folder")
    code, _, err = cli(*arguments, "--backend", "inline")
    assert code == 1
    assert "stopped: same error" in err
    assert ("run resume" in err) == is_more_left
    assert "retry --failed" in err.splitlines()[-1]


@pytest.mark.parametrize("search", [None, object()])
def test_a_search_that_stops_while_all_its_trials_are_paused_is_offered_to_be_resumed(
    search: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan: Any = SimpleNamespace(search=search, sweep_id="one", trials=())
    conclude(plan, tmp_path, Outcome(planned=2, done=2, stop_reason=INTERRUPTED))
    assert ("run resume one" in capsys.readouterr().err) == (search is not None)


def test_an_upgraded_trainable_says_that_what_was_done_has_other_keys(
    cli: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    preset_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage = tmp_path / "storage"
    preset = preset_file(trainables=["distilbert"], shares=[60], orders=["shuffled"])
    arguments = ("grid", "--preset", str(preset), "--storage", str(storage), "--backend", "inline")
    code, _, err = cli(*arguments)
    assert code == 0, err
    monkeypatch.setattr("trainables.distilbert.config.VERSION", 3)
    code, _, err = cli(*arguments, "--max-trials", "0")
    assert "0 already done, 1 to run" in err
    assert "distilbert is a newer version now: the 1 trials that version 2 completed stay in the ledger" in err


def test_status_tells_how_sweeps_stand_and_what_the_storage_holds(
    cli: Callable[..., tuple[int, str, str]], tmp_path: Path, preset_file: Callable[..., Path]
) -> None:
    storage = tmp_path / "storage"
    sweep_id = planned(cli, preset_file(), storage)
    code, out, _ = cli("status", "--storage", str(storage))
    assert code == 0
    assert out.splitlines()[0] == f"{sweep_id}: 8 planned"
    assert out.splitlines()[1].startswith("checkpoints 0.0 MB, free ")
    code, out, _ = cli("status", "--storage", str(storage), "--json")
    assert json.loads(out) == {sweep_id: {"planned": 8}}


def test_ctrl_c_while_data_is_prepared_names_no_sweep_that_is_not_there(
    cli: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    preset_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trainables.training.preparation.prepare_all", interrupted)
    storage = tmp_path / "storage"
    code, _, err = cli("grid", "--preset", str(preset_file()), "--storage", str(storage), "--backend", "inline")
    assert code == 130
    assert err.splitlines()[-1] == "interrupted before anything was run; the same command begins again"
    assert list((storage / "sweeps").glob("*/sweep.json")) == []
