"""The README's commands run as written, and what it names exists."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.ray
def test_the_everyday_commands_run_as_written(tmp_path: Path) -> None:
    script = "".join(re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL))
    assert script.count("python -m") >= 16
    bin_folder = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
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
