"""One driver per sweep, with real processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.errors import SweepLockedError
from orchestrator.lock import sweep_lock

HOLD = """
import sys, time
from pathlib import Path
from orchestrator.lock import sweep_lock
with sweep_lock(Path(sys.argv[1]), "grid-1"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_driver_is_refused_until_the_first_process_is_gone(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(SweepLockedError, match=f"being run by process {holder.pid} on "), sweep_lock(tmp_path, "grid-1"):
            pass
    finally:
        holder.kill()  # SIGKILL: nothing of its own cleans up
        holder.communicate()
    with sweep_lock(tmp_path, "grid-1"):
        pass


def test_the_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), sweep_lock(tmp_path, "grid-1"):
        raise RuntimeError
    with sweep_lock(tmp_path, "grid-1"):
        pass
