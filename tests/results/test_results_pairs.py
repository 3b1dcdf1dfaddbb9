"""Paired comparisons: counts and differences as they are in the answers, families, seeds, what the commands print."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from scipy import stats
from synthetic_answers import answers_ledger
from synthetic_ledger import synthetic_ledger, trial_key
from typer.testing import CliRunner

from results.__main__ import app
from results.examples import load_examples
from results.formats import encode
from results.grid import load_grid
from results.ledger import Ledger
from results.pairs import pairs_table
from results.parts import write_part
from results.statistics import holm
from trainables.data.scores import contains_gold, exact_match


def _em(trainable: str, share: int, order: str, domain: str) -> float:
    own = share if domain == "squad" else 100 - share
    return 20 + 0.5 * own + (15 if trainable == "exbert" and order == "shuffled" else 0)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return answers_ledger(tmp_path_factory.mktemp("answers"), _em)


@pytest.fixture(scope="module")
def rows(answers: Path) -> list[dict[str, Any]]:
    ledger = Ledger(answers)
    return pairs_table(ledger, load_grid(ledger))[0].to_pylist()


def test_row_says_what_the_answers_say(answers: Path, rows: list[dict[str, Any]]) -> None:
    assert len(rows) == 2 * 2 * 6 + 2 * 2 * 6
    row = next(
        r for r in rows if (r["family"], r["order"], r["ratio"], r["tested on"]) == ("models", "shuffled", "40:60", "squad")
    )
    right = {
        name: {
            p["example_id"]: p["em"]
            for p in Ledger(answers).sql("SELECT * FROM predictions WHERE domain = 'squad'").to_pylist()
            if p["trial_key"] == trial_key(name, 40, "shuffled", 0)
        }
        for name in ("distilbert", "exbert")
    }
    base_only = sum(1 for key, em in right["distilbert"].items() if em > right["exbert"][key])
    other_only = sum(1 for key, em in right["distilbert"].items() if em < right["exbert"][key])
    assert (row["base only"], row["other only"]) == (base_only, other_only)
    assert row["difference"] == pytest.approx(100 * (other_only - base_only) / 500)
    assert row["difference"] == pytest.approx(row["other EM"] - row["base EM"])
    assert row["low"] < 15 < row["high"]
    assert (row["examples"], row["groups"]) == (500, 250)
    assert row["mcnemar p"] == pytest.approx(stats.binomtest(base_only, base_only + other_only).pvalue)


def test_real_differences_survive_holm_and_equal_trials_do_not(rows: list[dict[str, Any]]) -> None:
    for family in ("models", "orders"):
        mine = [row for row in rows if row["family"] == family]
        assert [row["holm p"] for row in mine] == pytest.approx(holm([row["p"] for row in mine]))
        for row in mine:
            is_real = (row["trainable"], row["order"]) == ("exbert", "shuffled")
            # One of the 24 equal pairs differs by 2.6 points by chance: Holm's p 0.018, as one family in twenty may.
            assert (row["holm p"] < 0.01) == is_real, row


def test_several_seeds_are_averaged_and_have_students_interval(tmp_path: Path) -> None:
    ledger = Ledger(answers_ledger(tmp_path, _em, orders=("shuffled",), seeds=(0, 1, 2), num_questions=60))
    table, _ = pairs_table(ledger, load_grid(ledger))
    row = table.to_pylist()[0]
    grid = load_grid(ledger)
    before, after = (grid.scores(name, "shuffled", "squad", 0) for name in ("distilbert", "exbert"))
    differences = [after[seed] - before[seed] for seed in (0, 1, 2)]
    assert row["seeds"] == 3
    assert row["difference"] == pytest.approx(sum(differences) / 3)
    interval = stats.t.interval(0.95, 2, sum(differences) / 3, stats.sem(differences))
    assert (row["seed low"], row["seed high"]) == pytest.approx(interval)
    assert (row["mcnemar p"], row["mcnemar chi2"]) == (None, None)


def test_trial_without_predictions_is_left_out_and_partly_answered_examples_too(tmp_path: Path) -> None:
    ledger = Ledger(answers_ledger(tmp_path, _em, orders=("shuffled",), num_questions=20))
    parts = tmp_path / "ledger/predictions"
    next(parts.glob(f"*{trial_key('exbert', 40, 'shuffled', 0)}*")).unlink()
    table, notes = pairs_table(ledger, load_grid(ledger))
    assert {row["ratio"] for row in table.to_pylist()} == {"0:100", "20:80", "60:40", "80:20", "100:0"}
    for part in parts.glob("*.parquet"):
        part.unlink()
    table, notes = pairs_table(Ledger(tmp_path), load_grid(ledger))
    assert table.num_rows == 0
    assert "no trial of the grid left predictions" in notes[0]


def test_same_ledger_gives_the_same_numbers(answers: Path, rows: list[dict[str, Any]]) -> None:
    ledger = Ledger(answers)
    assert pairs_table(ledger, load_grid(ledger))[0].to_pylist() == rows


_TEXT = st.text(alphabet="aAtheN 0-–².,'\"α é()\t", max_size=12)


@settings(max_examples=5, deadline=None, phases=set(Phase) - {Phase.shrink})  # forty answers at once take minutes to shrink
@example([("é", ["Aé"]), ("the–a one", ["the one", "–"]), ("x–y", ["x", "x–y z"]), ("A A the\u00b2", ["a²", "the²"])])
@given(st.lists(st.tuples(_TEXT, st.lists(_TEXT, min_size=1, max_size=3)), min_size=20, max_size=40))
def test_answers_are_counted_as_the_scorer_of_the_trainables_does(answers: list[tuple[str, list[str]]]) -> None:
    """The SQL against `trainables.data.scores`, which a trial's own evaluation uses."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        synthetic_ledger(Path(folder), trainables=("exbert",), orders=("shuffled",), shares=(40,))
        next(Path(folder, "ledger/predictions").glob("*.parquet")).unlink()
        row = {"trial_key": trial_key("exbert", 40, "shuffled", 0), "attempt": 1, "domain": "squad"}
        rows = [
            {
                **row,
                "example_id": f"{n:03}",
                "question": f"{n}",
                "gold": gold,
                "prediction": text,
                "em": exact_match(text, gold),
            }
            for n, (text, gold) in enumerate(answers)
        ]
        write_part(folder, "predictions", "rows", rows)
        ledger = Ledger(folder)
        grid = load_grid(ledger)
        found = load_examples(ledger, grid).domains["squad"]
        wordy = [100 * (contains_gold(text, gold) - exact_match(text, gold)) for text, gold in answers]
        assert found.scores["wordy"][:, 0].tolist() == wordy
        assert found.scores["answer_tokens"][:, 0].tolist() == [len(text.split()) for text, _ in answers]


@pytest.mark.parametrize(
    ("group_ids", "num_groups"), [(("a", "a", "b"), 2), ((None, None, None), 3)], ids=["of the split", "of an older schema"]
)
def test_examples_that_the_split_keeps_together_form_a_group(
    tmp_path: Path, group_ids: tuple[str | None, ...], num_groups: int
) -> None:
    storage = synthetic_ledger(tmp_path, trainables=("exbert",), orders=("shuffled",), shares=(40,))
    next((storage / "ledger/predictions").glob("*.parquet")).unlink()
    row = {"trial_key": trial_key("exbert", 40, "shuffled", 0), "attempt": 1, "domain": "squad", "gold": ["a"], "em": 1.0}
    rows = [
        {**row, "example_id": str(n), "group_id": group, "question": str(n), "prediction": "a"}
        for n, group in enumerate(group_ids)
    ]
    write_part(storage, "predictions", "rows", rows)
    ledger = Ledger(storage)
    assert load_examples(ledger, load_grid(ledger)).domains["squad"].num_groups == num_groups


@pytest.mark.parametrize(
    ("name", "format_name", "beginning"),
    [
        ("effects", "json", '[{"tested on": "squad", "term": "trainable", "effect": "exbert − distilbert"'),
        ("effects", "markdown", "| tested on | term | effect | points |"),
        ("pairs", "csv", "family,comparison,trainable,order,ratio,tested on,seeds,examples,groups,base EM,other EM"),
        ("pairs", "table", "comparison "),
        ("claims", "latex", "\\begin{tabular}{llllllllll}\n\\toprule\nclaim & tested on & verdict & paper & ours"),
    ],
)
def test_statistics_are_printed(complete: Path, name: str, format_name: str, beginning: str) -> None:
    result = CliRunner().invoke(app, ["table", name, "--format", format_name, "--storage", str(complete)])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(beginning)
    assert ("analysis of variance over 24 trials" if name == "effects" else "noise floor: mean") in result.stderr


_UNESCAPED = {
    r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\textless{}": "<",
    r"\textgreater{}": ">", r"\textbar{}": "|", r"\textquotedbl{}": '"', "{[}": "[", "{*}": "*", "$-$": "-",
    **{f"\\{character}": character for character in "&%$#_{}"},
}  # fmt: skip


def _parsed(tabular: str) -> list[list[str]]:
    """The cells of a tabular, unescaped: what TeX would set."""
    body = re.search(r"\\toprule\n(.*)\\bottomrule", tabular, re.DOTALL)
    assert body is not None
    tokens = re.compile("|".join(re.escape(key) for key in _UNESCAPED))
    lines = [line.removesuffix(r" \\") for line in body.group(1).split("\n") if line and line != r"\midrule"]
    return [[tokens.sub(lambda m: _UNESCAPED[m.group()], cell) for cell in re.split(r"(?<!\\) & ", line)] for line in lines]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.text(alphabet='ab1 &%$#_{}~^\\<>|"[]*-.', max_size=8)] * 2), min_size=1, max_size=4))
def test_latex_says_what_the_table_says(cells: list[tuple[str, str]]) -> None:
    table = pa.table({"name & unit": [row[0] for row in cells], "100_%": [row[1] for row in cells]})
    text = encode(table, "latex").decode()
    assert text.startswith("\\begin{tabular}{ll}\n\\toprule\n")
    assert text.endswith("\\bottomrule\n\\end{tabular}\n")
    assert _parsed(text) == [["name & unit", "100_%"], *(list(row) for row in cells)]


_TEXTS = ["TNF-α", "β-catenin ≥ 5 µm", "naïve “x” – 3′ → 37 °C", "[x]*", "ˈtɛks 長江"]


def test_letters_beyond_ascii_are_commands_in_latex() -> None:
    lines = encode(pa.table({"gold": [*_TEXTS, "長"]}), "latex").decode().splitlines()[4:-2]
    assert lines[0] == r"TNF-{\ensuremath{\alpha}} \\"
    assert all(line.isascii() for line in lines)
    assert r"\texttt{U+9577}" in lines[-1]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(answers: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["table", "claims", "--format", "latex", "--storage", str(answers)])
    all_of_some_scripts = [chr(code) for code in (*range(0xA0, 0x530), *range(0x2000, 0x2300))]
    texts = encode(pa.table({"gold": [*_TEXTS, *all_of_some_scripts]}), "latex").decode()
    page = (
        "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{booktabs}\\begin{document}\\tiny\n"
        f"{result.stdout}{texts}\\end{{document}}"
    )
    (tmp_path / "page.tex").write_text(page, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)


def test_numbers_stand_to_the_right_in_latex() -> None:
    table = pa.table({"a": ["x"], "b": [-0.5]})
    assert encode(table, "latex").decode().splitlines()[0] == r"\begin{tabular}{lr}"
    assert "x & $-$0.5 \\\\" in encode(table, "latex").decode()
