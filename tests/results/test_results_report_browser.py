"""The report in a real browser: it loads nothing, its filters act everywhere, it fits a phone, paper and a dark room."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from synthetic_large import large_ledger
from synthetic_ledger import SWEEP_ID, exact_match, synthetic_ledger, trial_key
from synthetic_search import synthetic_search

from results.ledger import Ledger
from results.parts import attempt_part, write_part
from results.report import render_report

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install '.[test]'")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe: pip install '.[test]'")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH: apt-get install chromium")

NOW = datetime(2026, 1, 6, 12, 0, tzinfo=UTC)
PATIENCE_MS = 60_000
"""For pages on a busy machine."""

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1> \"quoted\" 'too' & \u2028 <!--"
TRIAL = ("exbert", 80, "shuffled", 0)

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two models and two seeds, one failed trial, a search, and an answer that tries to be markup."""
    storage = tmp_path_factory.mktemp("browser")
    synthetic_ledger(storage, seeds=(0, 1), failed=[("exbert", 60, "shuffled", 0)])
    synthetic_search(storage)
    key = trial_key(*TRIAL)
    answer = {"domain": "squad", "example_id": "x", "question": HOSTILE, "gold": ["gold"], "prediction": HOSTILE, "em": 1.0}
    answers = [answer, {**answer, "example_id": "squad-1", "question": "plain", "prediction": "answer 1"}]
    for name in ("exbert", "distilbert"):
        key = trial_key(name, *TRIAL[1:])
        rows = [{"trial_key": key, "attempt": 1, **row, "em": float(name == "exbert")} for row in answers]
        write_part(storage, "predictions", attempt_part(key, 1), rows)
    path = storage / "report.html"
    path.write_text(render_report(Ledger(storage), generated_at=NOW), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; root may not use its sandbox."""
    with playwright.sync_playwright() as engine:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        launched = engine.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Opens a file and waits until everything is drawn; fails the test on console messages and on requests."""
    seen: list[str] = []
    with ExitStack() as contexts:

        def open_file(path: Path, hash_: str = "", **options: Any) -> Any:
            context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
            contexts.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(PATIENCE_MS)
            page.on("console", lambda message: seen.append(f"console {message.type}: {message.text}"))
            page.on("pageerror", lambda error: seen.append(f"error: {error}"))
            page.on("request", lambda request: seen.append(request.url) if not request.url.startswith(path.as_uri()) else None)
            page.goto(path.as_uri() + hash_)
            page.wait_for_selector("html[data-ready]")
            return page

        yield open_file
    assert seen == []


def _heat(page: Any, side: str, share: int, domain: str) -> str:
    cell = f'table.heatmap[data-side="{side}"]:not([data-base]) td[data-share="{share}"][data-domain="{domain}"]'
    return str(page.locator(cell).text_content())


def _rows_of(page: Any, figure: str) -> list[dict[str, Any]]:
    """The rows that Vega has of a figure's own data sets, by asking the page's module through its figures' marks."""
    labels = page.locator(f"#figure-{figure} [role=graphics-symbol]").evaluate_all(
        "marks => marks.map(mark => mark.getAttribute('aria-label'))"
    )
    return [dict(part.split(": ", 1) for part in label.split("; ") if ": " in part) for label in labels if label]


def _chip(page: Any, text: str) -> Any:
    return page.locator(".chip", has_text=re.compile(rf"^{re.escape(text)}$")).locator("input")


def test_page_draws_everything_and_loads_nothing(open_page: Open, page_file: Path) -> None:
    page = open_page(page_file)
    for name in ("fig3", "fig6", "losses", "history", "intermediate", "rungs", "importance", "parallel"):
        assert page.locator(f"#figure-{name} svg.marks").count() == 1, name
    assert page.locator("#shown").text_content() == "85 of 85 trials"


def test_markup_in_the_ledger_is_shown_as_text(open_page: Open, page_file: Path) -> None:
    page = open_page(page_file, "#share=80&order=shuffled&seed=0&q=hacked")
    assert page.locator("#answers-table tbody tr").count() == 1
    assert page.locator("#answers-table tbody td").nth(1).text_content() == HOSTILE
    assert page.locator("#answers-table .right").text_content() == HOSTILE
    assert page.evaluate("window.hacked") is None
    assert page.locator("#answers img").count() == 0


def test_one_filter_acts_on_every_section(open_page: Open, page_file: Path) -> None:
    page = open_page(page_file)
    assert {row["Model"] for row in _rows_of(page, "fig6") if "Model" in row} == {"ExBERT", "V-DB (DistilBERT)"}
    _chip(page, "V-DB (DistilBERT)").check()
    _chip(page, "80:20").check()
    page.wait_for_function("document.querySelector('#shown').textContent.startsWith('4 of')")
    assert page.locator('.map[data-model="exbert"]').first.is_hidden()
    assert page.locator('.heatmap[data-side="distilbert|shuffled"] thead th:visible').first.text_content() == "80:20"
    assert page.locator("#trials-table tbody tr").count() == 4
    assert {row["Mixture"] for row in _rows_of(page, "fig3") if "Mixture" in row} == {"80:20"}
    assert {row["Model"] for row in _rows_of(page, "fig6") if "Model" in row} == {"V-DB (DistilBERT)"}
    assert page.locator("#answers-form select[name=at] option").all_text_contents() == [
        f"80:20, {order}, seed {seed}" for order in ("concatenated", "shuffled") for seed in (0, 1)
    ]
    assert page.locator("#answers-form select[name=second] option").all_text_contents() == ["none", "V-DB (DistilBERT)"]
    assert page.locator("#search > .body").is_hidden()  # the search was on ExBERT
    assert page.locator("#search > .none").is_visible()
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function("document.querySelector('#shown').textContent.startsWith('85 of')")
    assert page.locator("#search > .body").is_visible()


def test_choosing_a_seed_reckons_heat_maps_and_figures_anew(open_page: Open, page_file: Path) -> None:
    page = open_page(page_file)
    both = [exact_match("distilbert", 80, "shuffled", seed, "squad") for seed in (0, 1)]
    assert _heat(page, "distilbert|shuffled", 80, "squad").startswith(f"{sum(both) / 2:.1f}±")
    _chip(page, "1").check()
    page.wait_for_function("document.querySelector('#shown').textContent.startsWith('24 of')")
    assert _heat(page, "distilbert|shuffled", 80, "squad") == f"{both[1]:.1f}"
    points = {row.get("EM (%)") for row in _rows_of(page, "fig6") if row.get("Model") == "V-DB (DistilBERT)"}
    assert f"{both[1]:.1f}" in points
    difference = exact_match("exbert", 20, "shuffled", 1, "squad") - exact_match("distilbert", 20, "shuffled", 1, "squad")
    shown = page.locator('table.heatmap[data-side="exbert|shuffled"][data-base^="distilbert"] td[data-share="20"]').first
    assert shown.text_content() == f"{difference:+.1f}".replace("-", "−")
    _chip(page, "1").uncheck()
    page.wait_for_function("document.querySelector('#shown').textContent.startsWith('85 of')")
    assert _heat(page, "distilbert|shuffled", 80, "squad").startswith(f"{sum(both) / 2:.1f}±")


def test_address_keeps_the_filters_and_links_leave_them(open_page: Open, page_file: Path) -> None:
    page = open_page(page_file)
    _chip(page, "80:20").check()
    _chip(page, "shuffled").check()
    page.locator("#answers-form input[name=q]").fill("answer 1")
    page.locator("#answers-form select[name=domain]").select_option("bioasq")
    assert page.evaluate("location.hash") == "#share=80&order=shuffled&q=answer+1&domain=bioasq"
    page.locator("nav a", has_text="Trials").click()
    assert page.evaluate("document.activeElement.id") == "trials"
    again = open_page(page_file, page.evaluate("location.hash"))
    assert _chip(again, "80:20").is_checked()
    assert again.locator("#shown").text_content() == page.locator("#shown").text_content()
    assert again.locator("#answers-form input[name=q]").input_value() == "answer 1"
    assert again.locator("#answers-count").text_content() == page.locator("#answers-count").text_content()
    again.evaluate("location.hash = '#share=0'")
    again.wait_for_function("document.querySelector('#shown').textContent.startsWith('8 of')")
    nonsense = open_page(page_file, "#share=17&model=<b>&seed=")
    assert nonsense.locator("#shown").text_content() == "85 of 85 trials"


def test_answers_are_filtered_by_text_domain_and_outcome(open_page: Open, page_file: Path) -> None:
    page = open_page(page_file, "#at=80/shuffled/0")
    count = page.locator("#answers-count")
    assert count.text_content().startswith("25 of 25 examples; ")  # 12 a domain and the one that only this pair has
    page = open_page(page_file, "#at=20/shuffled/0&first=distilbert&second=exbert")
    count, form = page.locator("#answers-count"), page.locator("#answers-form")
    expected = {"first": [True, False], "second": [False, True], "both": [True, True], "neither": [False, False]}
    outcomes = {}
    for outcome, verdicts in expected.items():
        form.locator("select[name=outcome]").select_option(outcome)
        outcomes[outcome] = int(count.text_content().split()[0])
        for row in page.locator("#answers-table tbody tr").all():
            assert [row.locator("td").nth(i).locator(".right").count() == 1 for i in (3, 4)] == verdicts
    form.locator("select[name=outcome]").select_option("")
    assert sum(outcomes.values()) == int(count.text_content().split()[0])
    form.locator("select[name=domain]").select_option("bioasq")
    assert set(page.locator("#answers-table tbody td:first-child").all_text_contents()) == {"BioASQ"}
    form.locator("input[name=q]").fill("nothing has this")
    assert count.text_content().startswith("0 of ")


def test_columns_sort_and_pages_turn(open_page: Open, page_file: Path) -> None:
    page = open_page(page_file)
    column = page.locator("#trials-table tbody td:nth-child(7)")
    page.locator("#trials-table th button", has_text="EM SQuAD").click()
    ascending = [float(text) for text in column.all_text_contents()]
    assert ascending == sorted(ascending)
    assert page.locator("#trials-table th[aria-sort=ascending]").count() == 1
    page.locator('.pager[data-for="trials-table"] button', has_text="Next").click()
    assert page.locator('.pager[data-for="trials-table"] [role=status]').text_content() == "26–50 of 85"


def test_everything_can_be_reached_by_keyboard(open_page: Open, page_file: Path) -> None:
    page = open_page(page_file)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    _chip(page, "0:100").focus()
    page.keyboard.press("Space")
    page.wait_for_function("location.hash === '#share=0'")
    outline = page.evaluate("getComputedStyle(document.activeElement.nextElementSibling).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.value") == "20"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), pytest.param("dark", 390, marks=pytest.mark.slow)])
def test_axe_finds_nothing(open_page: Open, page_file: Path, scheme: str, width: int) -> None:
    page = open_page(page_file, color_scheme=scheme, viewport={"width": width, "height": 844}, reduced_motion="reduce")
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    found = axe.Axe().run(page)
    violations = [
        f"{violation['id']}: {node['html'][:120]}" for violation in found.response["violations"] for node in violation["nodes"]
    ]
    assert violations == []


def test_phone_has_no_page_that_scrolls_sideways(open_page: Open, page_file: Path) -> None:
    page = open_page(page_file, viewport={"width": 390, "height": 844}, has_touch=True)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_dark_figures_have_light_text(open_page: Open, page_file: Path) -> None:
    colour = "getComputedStyle(document.querySelector('#figure-fig6 .role-axis-label text')).fill"
    page = open_page(page_file)
    assert page.evaluate(colour) == "rgb(28, 30, 33)"
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{colour} === 'rgb(230, 231, 233)'")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(colour) == "rgb(28, 30, 33)"  # paper is white


def test_print_hides_controls_and_fits_the_figures(open_page: Open, page_file: Path) -> None:
    page = open_page(page_file)
    page.set_viewport_size({"width": 700, "height": 1000})
    page.emulate_media(media="print")
    for selector in ("#filters", "nav", "#answers-form", ".pager button"):
        assert page.locator(selector).first.is_hidden(), selector
    widths = page.locator(".chart svg.marks").evaluate_all("all => all.map(each => each.getBoundingClientRect().width)")
    assert widths
    assert max(widths) <= 700
    assert page.pdf(format="A4").startswith(b"%PDF-")


def test_reduced_motion_is_respected(open_page: Open, page_file: Path) -> None:
    page = open_page(page_file, reduced_motion="reduce")
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"


def test_watched_page_says_its_age_and_follows_the_file(open_page: Open, tmp_path: Path) -> None:
    storage, path = synthetic_ledger(tmp_path / "storage", planned=[TRIAL]), tmp_path / "live.html"
    path.write_text(render_report(Ledger(storage), generated_at=datetime.now(UTC), reload_seconds=1), encoding="utf-8")
    page = open_page(path, "#share=80")
    assert re.search(r"written \d+ s ago", page.locator("#age").text_content())
    assert "1 of 24 trials have no test scores" in page.locator("#summary").text_content()
    synthetic_ledger(storage)
    path.write_text(render_report(Ledger(storage), generated_at=datetime.now(UTC)), encoding="utf-8")
    page.wait_for_function("!document.documentElement.dataset.reload && document.documentElement.dataset.ready")
    assert "have no test scores" not in page.locator("#summary").text_content()
    assert page.locator("#age").text_content() == ""
    assert page.evaluate("location.hash") == "#share=80"
    assert page.locator("#shown").text_content() == "4 of 24 trials"


@pytest.mark.slow
@pytest.mark.parametrize("num_trials", [1000, 10_000])
def test_many_trials_are_drawn_in_time(open_page: Open, tmp_path: Path, num_trials: int) -> None:
    storage = large_ledger(tmp_path, num_trials)
    path = tmp_path / "report.html"
    path.write_text(render_report(Ledger(storage), generated_at=NOW, sweep_id=SWEEP_ID), encoding="utf-8")
    assert path.stat().st_size < 6_000_000
    page = open_page(path)
    # The goal is 2 s, which benchmarks/report.py measures; other work on the machine may take its time here.
    assert int(page.evaluate("document.documentElement.dataset.ready")) < 10_000
    assert page.locator("#shown").text_content() == f"{num_trials:,} of {num_trials:,} trials"
    page.locator("select[name=seed]").select_option("7")
    page.wait_for_function("document.querySelector('#shown').textContent.startsWith('24 of')")
    assert _heat(page, "exbert|shuffled", 40, "bioasq") == f"{exact_match('exbert', 40, 'shuffled', 7, 'bioasq'):.1f}"
