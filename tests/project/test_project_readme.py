"""The README's commands run as written, and what it names exists."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


SCRIPT = "".join(re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL))
COMMANDS = re.findall(r"python -m (orchestrator\.run|results) (.*)", re.sub(r"\\\n|\n {10,}", " ", SCRIPT))


def _without_callbacks(command: Any) -> Any:
    """The same command line, which parses and then does nothing."""
    command.callback = lambda **_: None
    for each in getattr(command, "commands", {}).values():
        _without_callbacks(each)
    return command


@pytest.mark.parametrize(("module", "arguments"), COMMANDS)
def test_the_everyday_commands_are_understood(module: str, arguments: str) -> None:
    app = importlib.import_module(module.replace("results", "results.__main__")).app
    words = shlex.split(re.sub(r"\)?( \| .*)?$", "", arguments) if arguments.startswith("sql") else arguments, comments=True)
    _without_callbacks(typer.main.get_command(app)).main(words, standalone_mode=False)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.ray
def test_the_everyday_commands_run_as_written(tmp_path: Path) -> None:
    assert len(COMMANDS) >= 30
    bin_folder = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", SCRIPT], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "completed" in done.stdout
    assert "identical to the bit" in done.stdout
    assert (tmp_path / "fig3.svg").read_text(encoding="utf-8").startswith("<svg")
    assert (tmp_path / "sweeps-data" / "report" / "index.html").stat().st_size > 100_000


def test_the_preset_shown_for_ones_own_data_is_valid(tmp_path: Path) -> None:
    from orchestrator.preset import load_preset

    [text] = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    assert load_preset(str(tmp_path / "mine.yaml")).mixture_size == 1000


def test_the_two_commands_stand_at_the_top_and_exist() -> None:
    head = README.partition("## ")[0]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test"):
        assert f"make {target}" in head
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_and_folders_named_in_documents_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    folders = re.findall(r"^(\w+)/ ", text.partition("## The tree")[2], flags=re.MULTILINE)
    for name in [*links, *folders]:
        assert (ROOT / name).exists(), f"{document} names {name}"
