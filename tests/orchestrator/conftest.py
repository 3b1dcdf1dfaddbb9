"""The command line, for the tests of this folder."""

from collections.abc import Callable

import pytest

from orchestrator import run


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["orchestrator.run", *arguments])
        with pytest.raises(SystemExit) as exit_:
            run.main()
        out = capfd.readouterr()
        return int(exit_.value.code or 0), out.out, out.err

    return call
