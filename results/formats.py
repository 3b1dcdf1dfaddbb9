"""A table as text or bytes: aligned text, CSV, JSON, Markdown, LaTeX, Parquet."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from results.naming import one_of

if TYPE_CHECKING:
    from pylatexenc.latexencode import UnicodeToLatexEncoder

__all__ = ["DATA_FORMATS", "FORMATS", "SUFFIXES", "encode", "plain_rows", "to_rich_text"]

FORMATS = ("table", "csv", "json", "markdown", "latex", "parquet")

DATA_FORMATS = ("csv", "json", "parquet")
"""Formats that programs read: tables keep all columns and digits in them."""

SUFFIXES = {".txt": "table", ".csv": "csv", ".json": "json", ".md": "markdown", ".tex": "latex", ".parquet": "parquet"}
"""What a file is written as by its name."""


def encode(table: pa.Table, format_name: str) -> bytes:
    """The table in one of `FORMATS`, ending with a newline where it is text. Raises ValueError for another format."""
    if format_name == "parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        return bytes(sink.getvalue().to_pybytes())
    writers = {"table": _aligned, "csv": _csv, "json": _json, "markdown": _markdown, "latex": _latex}
    if format_name not in writers:
        raise ValueError(one_of("format", format_name, FORMATS))
    return writers[format_name](table).encode()


def plain_rows(table: pa.Table) -> list[list[Any]]:
    """Rows of values that JSON can hold: times in ISO 8601, maps as dicts, NaN and infinities as null."""
    # By position, not by name: a join may give two columns the same name.
    columns = [
        [_plain(value, field.type) for value in column.to_pylist()]
        for column, field in zip(table.columns, table.schema, strict=True)
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def to_rich_text(table: pa.Table, *, width: int) -> str:
    """The table drawn with rich for a terminal of `width` characters."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(header_style="bold", box=None, pad_edge=False)
    for field in table.schema:
        drawn.add_column(Text(field.name), justify="right" if _is_right(field) else "left", overflow="fold")
    for row in plain_rows(table):
        drawn.add_row(*(Text(_cell(value)) for value in row))
    console = Console(width=width, force_terminal=True, file=io.StringIO())
    with console.capture() as captured:
        console.print(drawn)
    return captured.get()


def _aligned(table: pa.Table) -> str:
    """Columns padded to their widest value, two spaces apart, numbers to the right; one line per row."""
    lines = [table.column_names, *([_one_line(_cell(value)) for value in row] for row in plain_rows(table))]
    widths = [max(len(line[i]) for line in lines) for i in range(table.num_columns)]
    right = [_is_right(field) for field in table.schema]
    padded = ("  ".join(v.rjust(w) if r else v.ljust(w) for v, w, r in zip(line, widths, right, strict=True)) for line in lines)
    return "".join(f"{line.rstrip()}\n" for line in padded)


def _csv(table: pa.Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.column_names)
    for row in plain_rows(table):
        writer.writerow(json.dumps(v, ensure_ascii=False) if isinstance(v, (list, dict)) else v for v in row)
    return out.getvalue()


def _json(table: pa.Table) -> str:
    """An array of objects, one per line. A name that occurs twice gets a number, so that no column is lost."""
    names: list[str] = []
    for name in table.column_names:
        names.append(name if name not in names else f"{name}_{len(names)}")
    rows = (dict(zip(names, row, strict=True)) for row in plain_rows(table.rename_columns(names)))
    return "[" + ",\n ".join(json.dumps(row, ensure_ascii=False) for row in rows) + "]\n"


def _markdown(table: pa.Table) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(_one_line(cell).replace("|", "\\|") for cell in cells) + " |\n"

    rule = ["---:" if _is_right(field) else "---" for field in table.schema]
    body = (line([_cell(value) for value in row]) for row in plain_rows(table))
    return line(table.column_names) + "| " + " | ".join(rule) + " |\n" + "".join(body)


_LATEX_SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "[": "{[}", "*": "{*}", "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "⏎": " ",
}  # fmt: skip
"""What TeX would read as a command (a bracket or star after a line's end is one), and signs that fonts for text lack."""

_LATEX_MINUS = re.compile(r"(?<![\w.])-(?=\d)")

_LATEX_SET = re.compile("[\xa0-\u0148\u014a-\u017e\u0391-\u03c9‐‒-‧‰-″€←-↔√∞≈≠≤≥]")
"""Characters beyond ASCII that LaTeX sets without further packages, by pylatexenc's commands (2.11, tried one by one)."""


@cache
def _latex_encoder() -> UnicodeToLatexEncoder:
    from pylatexenc.latexencode import (
        RULE_DICT,
        UnicodeToLatexConversionRule,
        UnicodeToLatexEncoder,
        get_builtin_uni2latex_dict,
    )

    special = {ord(character): command for character, command in _LATEX_SPECIAL.items()}
    letters = {code: command for code, command in get_builtin_uni2latex_dict().items() if _LATEX_SET.match(chr(code))}
    ours = UnicodeToLatexConversionRule(RULE_DICT, special, replacement_latex_protection="none")
    return UnicodeToLatexEncoder(
        conversion_rules=[ours, UnicodeToLatexConversionRule(RULE_DICT, letters)],
        replacement_latex_protection="braces-all",
        unknown_char_policy="unihex",
        unknown_char_warning=False,
    )


def _latex(table: pa.Table) -> str:
    """A tabular for `\\usepackage{booktabs}` and `\\usepackage[T1]{fontenc}`, text escaped, numbers to the right.

    Characters that it would need further packages for are named by their code point, as U+9577.
    """
    encoder = _latex_encoder()

    def line(cells: list[str]) -> str:
        return " & ".join(_LATEX_MINUS.sub("$-$", encoder.unicode_to_latex(_one_line(cell))) for cell in cells) + " \\\\\n"

    columns = "".join("r" if _is_right(field) else "l" for field in table.schema)
    body = "".join(line([_cell(value) for value in row]) for row in plain_rows(table))
    rows = f"\\toprule\n{line(table.column_names)}\\midrule\n{body}\\bottomrule\n"
    return f"\\begin{{tabular}}{{{columns}}}\n{rows}\\end{{tabular}}\n"


def _plain(value: Any, kind: pa.DataType) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if pa.types.is_map(kind) and value is not None:
        return {key: _plain(item, kind.item_type) for key, item in value}
    if pa.types.is_list(kind) and value is not None:
        return [_plain(item, kind.value_type) for item in value]
    return value if isinstance(value, (bool, int, float, str, list, dict, type(None))) else str(value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else str(value)


def _one_line(text: str) -> str:
    return text.replace("\r", "").replace("\n", "⏎")


def _is_right(field: pa.Field) -> bool:
    """Numbers stand to the right, and so does a text column of formatted numbers that says so in its metadata."""
    is_number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type) or pa.types.is_decimal(field.type)
    return bool(is_number or (field.metadata or {}).get(b"align") == b"right")
