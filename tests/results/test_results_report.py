"""The report as text: its sections, what it escapes and leaves out, the commands that it gives, and its live mode."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from synthetic_ledger import RUN_ID, START, SWEEP_ID, plan_row, synthetic_ledger, trial_key
from synthetic_search import synthetic_search
from typer.testing import CliRunner

from orchestrator.preset import load_preset
from results.__main__ import app
from results.errors import QueryError
from results.grid import load_grid
from results.ledger import Ledger
from results.parts import attempt_part, write_part
from results.report import MOST_BYTES, render_report
from results.report_answers import MOST_ANSWERS, answers_section
from results.report_frame import load_subject, safe_json
from results.report_search import search_section
from results.report_summary import answer_lines, question, summary_section
from results.report_watch import is_running, watch

NOW = datetime(2026, 1, 6, 12, 0, tzinfo=UTC)


class _Page(HTMLParser):
    """Collects what a page would load, its JSON blocks and its text outside of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.blocks: dict[str, Any] = {}
        self.tags: list[str] = []
        self.sections: list[str] = []
        self.text = ""
        self._block: str | None = None
        self._in_script = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self._in_script = tag in ("script", "style")
        self.references += [f"{name}={value}" for name, value in attrs if name in ("src", "srcset", "data", "action")]
        self.references += [str(value) for name, value in attrs if name == "href" and not str(value).startswith("#")]
        self._block = given.get("id") if given.get("type") == "application/json" else None
        if tag == "section":
            self.sections.append(str(given["id"]))

    def handle_endtag(self, tag: str) -> None:
        self._in_script, self._block = False, None

    def handle_data(self, data: str) -> None:
        if self._block:
            self.blocks[self._block] = json.loads(data)
        elif not self._in_script:
            self.text += data


def _render(storage: Path, sweep_id: str | None = None) -> _Page:
    return _Page(render_report(Ledger(storage, must_exist=False), generated_at=NOW, sweep_id=sweep_id))


@pytest.fixture(scope="module")
def complete_page(complete: Path) -> _Page:
    """The report of the complete grid."""
    return _render(complete)


def test_report_is_one_file_with_the_libraries_once(partial: Path) -> None:
    page = render_report(Ledger(partial), generated_at=NOW)
    assert page.count("window.vegaEmbed=") == 1
    assert len(page.encode()) < MOST_BYTES / 3
    parsed = _Page(page)
    assert parsed.references == []
    assert "@import" not in page.split("</style>")[0]
    assert "default-src 'none'" in page
    for text in ("2 of 24 trials have no test scores", "RuntimeError", "0123abc", "NVIDIA H200", "Noise floor: mean"):
        assert text in parsed.text
    for name in ("fig3", "fig6", "losses"):
        assert parsed.blocks[f"figure-{name}-spec"]["$schema"].startswith("https://vega.github.io/schema/vega-lite/")


def test_sections_are_there_where_they_have_something_to_say(complete_page: _Page, partial: Path, tmp_path: Path) -> None:
    everywhere = ["summary", "grid", "figures", "curves", "claims", "statistics", "answers", "costs", "trials", "provenance"]
    assert complete_page.sections == everywhere
    assert _render(partial).sections == [*everywhere[:-2], "failures", *everywhere[-2:]]
    assert _render(tmp_path).sections == ["summary", "provenance"]


def test_report_of_a_search_alone_has_no_grid(tmp_path: Path) -> None:
    page = _render(synthetic_search(tmp_path))
    assert "search" in page.sections
    assert not {"grid", "figures", "answers"} & set(page.sections)
    assert {"figure-history-spec", "figure-parallel-spec", "figure-intermediate-spec"} <= set(page.blocks)


@pytest.mark.parametrize("sweep_id", [None, "search-1"])
def test_report_is_on_the_newest_or_the_named_search(searched: Path, sweep_id: str | None) -> None:
    assert f"{sweep_id or 'narrowing-1'}: best is trial " in _render(searched, sweep_id).text


def test_page_names_its_sweep_and_says_what_counts_all_of_them(tmp_path: Path) -> None:
    assert set(_cards(synthetic_ledger(tmp_path))) == {"completed", "GPU hours", "CPU hours", "attempts"}
    later = START + timedelta(days=1)
    write_part(tmp_path, "plans", "grid-2", [plan_row("distilbert", 0, "shuffled", 9, "grid-2", later) | {"mixture_size": 50}])
    newest, named = _render(tmp_path).text, _render(tmp_path, "grid-1").text
    assert "grid-2: 1 trial, 50 training examples; the newest of 2 grids, --sweep grid-1 for another" in newest
    assert "grid-1: 24 trials, 4,000 training examples\n" in named
    cards = _cards(tmp_path)
    assert cards["completed, all sweeps"] == "24"
    assert all(what.endswith(", all sweeps") for what in cards)


def _cards(storage: Path) -> dict[str, str]:
    """The summary's tiles: what each counts to its number."""
    cards = summary_section(load_subject(Ledger(storage))).values["cards"]
    return {what: number for number, what in cards}


def test_unknown_sweep_is_refused(complete: Path) -> None:
    with pytest.raises(QueryError, match=r"no sweep 'grid-9'.*nearest is 'grid-1'"):
        render_report(Ledger(complete), generated_at=NOW, sweep_id="grid-9")


def test_report_without_optuna_leaves_the_importances_out(searched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    section = search_section(load_subject(Ledger(searched)))
    assert section is not None
    assert list(section.figures) == ["history", "intermediate", "rungs", "parallel"]
    assert section.values["notes"] == [
        "Figure importance left out: this needs Optuna, which is not installed here: pip install 'expert-sweeps[export]'."
    ]


def test_large_search_is_drawn_from_its_best_trials_and_every_nth_of_the_others(searched: Path) -> None:
    subject = load_subject(Ledger(searched), "search-1")
    assert subject.search is not None
    few = subject.search.trials
    many = tuple(dataclasses.replace(few[i % len(few)], number=i, trial_key=f"{i:016x}") for i in range(1000))
    section = search_section(dataclasses.replace(subject, search=dataclasses.replace(subject.search, trials=many)))
    assert section is not None
    assert "The figures have the best 200 of 1,000 trials, and every 4th of the others." in section.values["notes"]
    drawn = {row["number"] for rows in section.figures["parallel"].spec["datasets"].values() for row in rows if "number" in row}
    assert 200 <= len(drawn) <= 400


HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=alert(1)> \"quoted\" 'too' & \u2028 <!-- {{ 7*7 }}"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid in which a question, an answer, an error and a device try to be markup."""
    trial = ("exbert", 80, "shuffled", 0)
    failed = ("exbert", 60, "shuffled", 0)
    storage = synthetic_ledger(tmp_path_factory.mktemp("hostile"), failed=[failed])
    answer = {"domain": "squad", "example_id": "x", "question": HOSTILE, "gold": [HOSTILE], "prediction": HOSTILE, "em": 1.0}
    key = trial_key(*trial)
    write_part(storage, "predictions", attempt_part(key, 1), [{"trial_key": key, "attempt": 1, **answer}])
    key = trial_key(*failed)
    attempt = {"status": "failed", "started_at": START, "finished_at": START, "host": HOSTILE, "device": HOSTILE}
    error = {"error_type": HOSTILE, "error_signature": HOSTILE, "error": HOSTILE, "failure_class": "code"}
    write_part(storage, "attempts", attempt_part(key, 1), [{"trial_key": key, "attempt": 1, **attempt, **error}])
    return storage


def test_text_from_the_ledger_stays_text(hostile: Path, complete_page: _Page) -> None:
    page = _render(hostile)
    assert {"img", "b"}.isdisjoint(page.tags)
    assert page.tags.count("script") == complete_page.tags.count("script")
    assert page.text.count(HOSTILE) >= 4  # host, device, error's class, signature and text
    assert HOSTILE in page.blocks["answers-data"]["texts"]
    assert {"domain": "squad", "question": HOSTILE, "gold": HOSTILE} in page.blocks["answers-data"]["examples"]


def test_json_for_a_script_element_has_nothing_that_html_or_javascript_would_read() -> None:
    text = safe_json({"question": HOSTILE})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"question": HOSTILE}
    with pytest.raises(ValueError, match="JSON compliant"):
        safe_json(float("nan"))


def test_answers_are_capped_and_the_rest_is_said(seeded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = answers_section(load_subject(Ledger(seeded)))
    assert whole is not None
    assert whole.values["left_out"] is not None  # 72 models are more than the page takes
    shown = whole.data["answers-data"]
    assert len(shown["trials"]) == 60
    assert {trial["seed"] for trial in shown["trials"]} == {0, 1}
    assert sum(trial["seed"] == 0 for trial in shown["trials"]) == 36
    monkeypatch.setattr("results.report_answers.MOST_ANSWERS", 600)
    few = answers_section(load_subject(Ledger(seeded)))
    assert few is not None
    assert len(few.data["answers-data"]["examples"]) == 10
    assert (
        few.values["left_out"]
        == "The page has 600 of 1,728 answers: 60 of 72 models, 10 examples chosen by a hash of their ids."
    )
    assert MOST_ANSWERS >= 24 * 500  # the demo's, whole


def test_answers_on_the_page_are_those_of_the_ledger(complete: Path, complete_page: _Page) -> None:
    block = complete_page.blocks["answers-data"]
    for trial in block["trials"][:3]:
        found = [
            (example["domain"], example["question"], block["texts"][text], right == "1")
            for example, text, right in zip(block["examples"], trial["texts"], trial["right"], strict=True)
        ]
        query = "SELECT domain, question, prediction, em = 1 AS is_right FROM predictions WHERE trial_key = $key"
        rows = Ledger(complete).sql(query, {"key": trial["key"]}).to_pylist()
        assert sorted(found) == sorted(tuple(row.values()) for row in rows)


def test_answer_in_three_lines_is_that_of_the_grid(complete: Path) -> None:
    grid = load_grid(Ledger(complete))
    assert question(grid).startswith("Does ExBERT answer better than V-DB (DistilBERT) across SQuAD and BioASQ")
    models, mixture, order = answer_lines(grid)
    gains = [
        grid.scores("exbert", o, d, s)[0] - grid.scores("distilbert", o, d, s)[0]
        for o in grid.orders
        for d in grid.domains
        for s in grid.shares
    ]
    assert f"{sum(gains) / 24:+.1f} EM points on average" in models
    assert "over 24 pairs" in models
    assert mixture.startswith("From 0:100 to 100:0 the mixture takes SQuAD from ")
    assert order.startswith("Shuffled minus concatenated: ")


@pytest.mark.parametrize("state", ["empty", "one order", "one trainable", "nothing completed", "just begun"])
def test_any_ledger_can_be_reported(tmp_path: Path, state: str) -> None:
    trials = [("distilbert", share, "shuffled", 0) for share in (0, 20, 40, 60, 80, 100)]
    if state == "one order":
        synthetic_ledger(tmp_path, orders=("concatenated",))
    elif state == "one trainable":
        synthetic_ledger(tmp_path, trainables=("exbert",))
    elif state == "nothing completed":
        synthetic_ledger(tmp_path, trainables=("distilbert",), orders=("shuffled",), failed=trials[:3], planned=trials[3:])
    elif state == "just begun":  # no share has all of its models and orders
        done = {("distilbert", 0, "shuffled", 0), ("exbert", 20, "concatenated", 0), ("exbert", 40, "shuffled", 0)}
        everything = product(("distilbert", "exbert"), (0, 20, 40, 60, 80, 100), ("concatenated", "shuffled"), (0,))
        synthetic_ledger(tmp_path, planned=[trial for trial in everything if trial not in done])
    page = _render(tmp_path)
    assert "Sweep report" in page.text
    assert "nan" not in page.text.lower().split()


def test_preset_of_the_report_is_the_one_that_the_sweep_was_planned_with(tmp_path: Path) -> None:
    preset = load_preset("embedded", ["mixture_size=50", "training.epochs=1", "shares=[0, 100]"])
    synthetic_ledger(tmp_path)
    plan = tmp_path / "sweeps" / SWEEP_ID / "sweep.json"
    plan.parent.mkdir(parents=True)
    plan.write_text(json.dumps({"kind": "grid", "preset": preset.model_dump(mode="json")}))
    page = render_report(Ledger(tmp_path), generated_at=NOW)
    command = "python -m orchestrator.run grid --preset preset.yaml --set training.epochs=1"
    assert f"git checkout 0123abc\n{command}" in _Page(page).text
    text = re.search(r"preset\.yaml, the settings.*?<pre[^>]*>(.*?)</pre>", page, re.DOTALL)
    assert text
    (tmp_path / "preset.yaml").write_text(html.unescape(text.group(1)))
    again = load_preset(str(tmp_path / "preset.yaml"), ["training.epochs=1"])
    assert again.model_copy(update={"name": "embedded"}) == preset
    assert yaml.safe_load((tmp_path / "preset.yaml").read_text())["mixture_size"] == 50


def test_failures_are_grouped_by_signature(tmp_path: Path) -> None:
    failed = [("exbert", 60, "shuffled", 0), ("exbert", 80, "shuffled", 0)]
    page = _render(synthetic_ledger(tmp_path, failed=failed))
    assert "oom · RuntimeError · 0a1b2c3d: 2 attempts at 2 trials of exbert, 0 of which completed later." in " ".join(
        page.text.split()
    )


def _say_that_a_driver_runs(storage: Path, updated_at: datetime) -> None:
    run = {"run_id": RUN_ID, "sweep_id": SWEEP_ID, "started_at": START, "updated_at": updated_at, "finished_at": None}
    write_part(storage, "runs", RUN_ID, [run])


def test_a_sweep_runs_while_its_driver_is_heard_of(tmp_path: Path) -> None:
    ledger = Ledger(synthetic_ledger(tmp_path))
    assert not is_running(ledger, NOW)
    _say_that_a_driver_runs(tmp_path, NOW - timedelta(seconds=30))
    assert is_running(ledger, NOW)
    assert not is_running(ledger, NOW + timedelta(minutes=5))


def test_watch_writes_until_no_driver_runs_the_sweep(tmp_path: Path) -> None:
    _say_that_a_driver_runs(synthetic_ledger(tmp_path), datetime.now(UTC))
    written: list[float | None] = []

    def sleep(seconds: float) -> None:
        if len(written) == 2:
            synthetic_ledger(tmp_path)  # its run has ended

    watch(Ledger(tmp_path), written.append, 5, sleep)
    assert written == [5, 5, None]


def test_ctrl_c_ends_a_watch_with_a_last_page(tmp_path: Path) -> None:
    _say_that_a_driver_runs(synthetic_ledger(tmp_path), datetime.now(UTC))
    written: list[float | None] = []

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    watch(Ledger(tmp_path), written.append, 5, interrupt)
    assert written == [5, None]


def test_only_a_watched_page_loads_itself_anew(tmp_path: Path) -> None:
    live = render_report(Ledger(tmp_path, must_exist=False), generated_at=NOW, reload_seconds=7.4)
    assert 'data-reload="7.4"' in live
    assert '<noscript><meta http-equiv="refresh" content="7"></noscript>' in live
    assert 'http-equiv="refresh"' not in render_report(Ledger(tmp_path, must_exist=False), generated_at=NOW)


@pytest.mark.parametrize("name", ["page.html", "folder"])
def test_command_writes_a_file_or_into_a_folder(complete: Path, tmp_path: Path, name: str) -> None:
    result = CliRunner().invoke(app, ["report", "--watch", "--storage", str(complete), "--output", str(tmp_path / name)])
    written = tmp_path / name if name.endswith("html") else tmp_path / name / "index.html"
    assert (result.exit_code, result.stdout.strip()) == (0, str(written))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [written]
    assert written.read_text(encoding="utf-8").endswith("</html>")
