"""The report's limits: time to write the page, its size, and time until a browser has drawn all of it.

    python tests/results/synthetic_large.py /tmp/large 10000
    python benchmarks/report.py /tmp/large

Needs Playwright and Chromium. Goals: the page of 10,000 trials is drawn within 2 s; that of the demo has at most 6 MB.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.table import Table

from results.ledger import Ledger
from results.report import render_report

REPEATS = 5


def drawn_ms(path: Path) -> list[int]:
    """Milliseconds from the start of the navigation until all is drawn, each time in a new context."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    times = []
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        for _ in range(REPEATS):
            page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
            page.goto(path.as_uri())
            page.wait_for_selector("html[data-ready]", timeout=120_000)
            times.append(int(page.evaluate("document.documentElement.dataset.ready")))
        browser.close()
    return times


def main(storages: list[str]) -> None:
    """Prints one row a storage."""
    table = Table("storage", "written, s", "written, CPU s", "MB", f"drawn, ms (median of {REPEATS})", "least", "most")
    for storage in storages:
        began, spent = time.perf_counter(), time.process_time()
        page = render_report(Ledger(storage), generated_at=datetime.now(UTC))
        wall, cpu = time.perf_counter() - began, time.process_time() - spent
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "report.html"
            path.write_text(page, encoding="utf-8")
            times = drawn_ms(path)
        megabytes = len(page.encode()) / 1e6
        table.add_row(
            storage,
            f"{wall:.1f}",
            f"{cpu:.1f}",
            f"{megabytes:.2f}",
            f"{median(times):.0f}",
            *map(str, (min(times), max(times))),
        )
    Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
