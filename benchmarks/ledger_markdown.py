"""What was found, as tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ledger_goals import goals
from ledger_questions import QUESTIONS

__all__ = ["to_markdown"]

_MB = 1_000_000


def to_markdown(found: dict[str, Any]) -> str:
    """All tables that there are measurements for, then the goals."""
    lines = [
        "# The ledger against its peers",
        "",
        ", ".join(f"{name} {value}" for name, value in found["machine"].items()),
        "",
        "Seconds, warm, and in brackets cold; CPU seconds of the ledger beside. n/a: the peer cannot express it.",
    ]
    for rows in sorted({size["rows"] for size in found["sizes"]}):
        sizes = [size for size in found["sizes"] if size["rows"] == rows]
        lines += ["", f"## {rows:,} report rows", "", *_answers(sizes), "", *_sizes(sizes)]
    if found["appends"]:
        lines += ["", "## One more report", "", *_appends(found["appends"])]
    for parts in found["parts"]:
        lines += ["", f"## {parts['compacted']['parts_before']:,} small parts", "", *_parts(parts)]
    lines += ["", "## Goals", "", *(f"- {line}" for line in goals(found))]
    lines += [f"- {note}" for note in found["notes"]]
    return "\n".join(lines) + "\n"


def _answers(sizes: Sequence[dict[str, Any]]) -> Iterator[str]:
    ours = next(size for size in sizes if size["contender"] == "ledger")
    names = [size["contender"] for size in sizes]
    yield from _head("question", *names, "ledger CPU", "MB read", "peak MB")
    for question in QUESTIONS:
        mine = ours["questions"][question.name]
        cells = [_cell(size["questions"].get(question.name)) for size in sizes]
        known = (
            [] if "failed" in mine else [mine["warm_cpu_seconds"], mine["bytes_read"] / _MB, mine["peak_memory_bytes"] / _MB]
        )
        yield _row(question.words, *cells, *(_short(value) for value in known))


def _cell(told: dict[str, Any] | None) -> str:
    if told is None:
        return "n/a"
    return told["failed"] if "failed" in told else f"{_short(told['warm_seconds'])} ({_short(told['cold_seconds'])})"


def _sizes(sizes: Sequence[dict[str, Any]]) -> Iterator[str]:
    ours = next(size for size in sizes if size["contender"] == "ledger")
    yield from _head("", "MB on disk", "times the ledger", "seconds to load", "bytes per report", "peak MB of a question")
    for size in sizes:
        peaks = [told["peak_memory_bytes"] for told in size["questions"].values() if "failed" not in told]
        loading = f"{size['loaded']['seconds']:.0f}"
        if "compacted" in size:
            shrunk = size["compacted"]
            loading += f" + {shrunk['seconds']:.0f} to compact ({shrunk['cpu_seconds']:.0f} CPU)"
        yield _row(
            size["contender"],
            f"{size['bytes'] / _MB:.1f}",
            f"{size['bytes'] / ours['bytes']:.1f}",
            loading,
            f"{size['bytes'] / size['loaded']['report_rows']:.0f}",
            f"{max(peaks, default=0) / _MB:.0f}",
        )


def _appends(appends: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield from _head("", "store", "writers", "each aims at", "median ms", "p99 ms", "CPU ms", "reports a second", "failed")
    for told in appends:
        yield _row(
            told["contender"],
            told["store"] if told["store"] != "loaded" else told["place"].rpartition("-")[2] + " report rows",
            str(told["writers"]),
            f"{told['per_second']:g}/s" if told["per_second"] else "as many as it can",
            f"{told['median_ms']:.2f}",
            f"{told['p99_ms']:.1f}",
            f"{told['cpu_ms']:.2f}",
            f"{told['reports_per_second']:.0f}",
            "; ".join(told["failures"]),
        )


def _parts(parts: dict[str, Any]) -> Iterator[str]:
    shrunk, before, after = parts["compacted"], parts["before"], parts["after"]
    yield (
        f"{parts['rows']:,} report rows. Compaction: {shrunk['seconds']:.1f} s ({shrunk['cpu_seconds']:.1f} CPU seconds), "
        f"{shrunk['parts_before']:,} parts to {shrunk['parts_after']:,}, "
        f"{before['bytes'] / _MB:.1f} MB to {after['bytes'] / _MB:.1f} MB, peak {shrunk['peak_memory_bytes'] / _MB:.0f} MB."
    )
    yield ""
    yield from _head("question", "before: seconds", "peak MB", "says", "after: seconds", "peak MB")
    for question in QUESTIONS:
        first, then = before["questions"][question.name], after["questions"][question.name]
        peaks = ["" if "failed" in told else f"{told['peak_memory_bytes'] / _MB:.0f}" for told in (first, then)]
        yield _row(question.words, _cell(first), peaks[0], " ".join(first.get("warnings", ())), _cell(then), peaks[1])


def _short(seconds: float) -> str:
    return f"{seconds:.4f}" if seconds < 0.01 else f"{seconds:.2f}" if seconds < 10 else f"{seconds:.0f}"


def _head(*names: str) -> Iterator[str]:
    yield _row(*names)
    yield _row(*(["---"] * len(names)))


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
