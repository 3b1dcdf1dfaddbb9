"""The cluster of clusters/on-prem.yaml on a LAN of this machine, brought up and used as its users would."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lan import SHARED, Host, Lan, lan

from results.ledger import Ledger

__all__ = ["CRAWL", "ROOT", "OnPrem", "attempts", "on_prem", "substituted", "wait_until"]

ROOT = Path(__file__).resolve().parents[2]

CRAWL = SHARED / "crawl"
"""As long as there is this file, trials on nodes that look for it take their time."""

_CHECKOUT = "/root/expert-sweeps"
_FILE = "clusters/on-prem.yaml"
_NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "*_cache", "__pycache__", "sweeps-data", ".hypothesis", "*.egg-info")
_RAY = """\
#!/root/sweeps-venv/bin/python
import sys
from ray.scripts.scripts import main
sys.exit(main())
"""
_PIP_CONFIG = "[global]\nno-index = true\ndisable-pip-version-check = true\n[install]\nno-build-isolation = false\n"
_FEW_BYTES = "--object-store-memory=100000000"


def wait_until(condition: Callable[[], object], seconds: float, what: str, every: float = 1) -> float:
    """Looks `every` so many seconds; how long it took. Raises TimeoutError."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"after {seconds:.0f} s still not: {what}")
        time.sleep(every)
    return time.monotonic() - began


def substituted(text: str, replaced: dict[str, str]) -> str:
    """The text with each key of `replaced`, which it must have exactly once, replaced."""
    for old, new in replaced.items():
        if text.count(old) != 1:
            raise ValueError(f"{old!r} must stand once in the cluster file, found {text.count(old)} times")
        text = text.replace(old, new)
    return text


class OnPrem:
    """A laptop with a checkout, nodes with Python, and what a user types on the laptop."""

    def __init__(self, lan: Lan) -> None:
        self.lan = lan
        self.laptop = lan.laptop
        checkout = self.laptop.root / "expert-sweeps"
        shutil.copytree(ROOT, checkout, ignore=_NOT_COPIED)
        shipped = (checkout / _FILE).read_text(encoding="utf-8")
        (checkout / _FILE).write_text(substituted(shipped, self._addresses()), encoding="utf-8")
        for host in (self.laptop, *lan.nodes):
            _install_python(host)

    def _addresses(self) -> dict[str, str]:
        """What a user changes in the file; and logical GPUs, since these machines have none."""
        workers = ", ".join(worker.address for worker in self.lan.workers)
        return {
            "head_ip: 192.168.1.10 ": f"head_ip: {self.lan.head.address} ",
            "worker_ips: [192.168.1.11, 192.168.1.12]": f"worker_ips: [{workers}]",
            "ssh_user: sweeps": "ssh_user: root",
            "ray start --head ": f"ray start --head {_FEW_BYTES} ",
            "ray start --include-log-monitor=False --address=": f"ray start --num-cpus=1 --num-gpus=1 {_FEW_BYTES} "
            "--include-log-monitor=False --address=",
        }

    def type(self, command: str, seconds: float = 900) -> subprocess.CompletedProcess[str]:
        """Types a command on the laptop, in the checkout; pytest shows the conversation when a test fails."""
        path = {"PATH": "/root/sweeps-venv/bin:/usr/sbin:/usr/bin:/sbin:/bin", "RAY_AUTH_MODE": "token"}
        done = self.laptop.run("bash", "-c", command, environment=path, folder=_CHECKOUT, seconds=seconds)
        done.stdout = re.sub(r"\x1b\[[0-9;]*m|\r", "", done.stdout)  # colours and a terminal's line ends
        print(f"{time.strftime('%X')} $ {command}\n{done.stdout}[{done.returncode}]")
        return done

    def up(self) -> subprocess.CompletedProcess[str]:
        """Brings the cluster up, or what is left of it up again."""
        return self.type(f"ray up -y --no-config-cache {_FILE}")

    def down(self) -> subprocess.CompletedProcess[str]:
        """Ends it."""
        return self.type(f"ray down -y {_FILE}")

    def on_head(self, command: str, seconds: float = 900) -> subprocess.CompletedProcess[str]:
        """Runs a command on the head, from the laptop."""
        assert "'" not in command
        return self.type(f"ray exec --no-config-cache {_FILE} '{command}'", seconds)

    def wait(self, seconds: float = 120, number: int | None = None) -> subprocess.CompletedProcess[str]:
        """Waits for so many workers, or for all."""
        number = number or len(self.lan.workers)
        return self.on_head(f"python -m orchestrator.run cluster wait --gpus {number} --nodes {number} --timeout {seconds:g}")

    def submit(self, command: str, name: str) -> None:
        """Starts a command on the cluster that outlives the laptop's connection."""
        done = self.on_head(f"ray job submit --no-wait --submission-id {name} -- {command}")
        assert done.returncode == 0, done.stdout

    def status(self, name: str) -> str:
        """What `ray job status` says, in capitals: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED, among other words."""
        return self.lan.head.login(f"ray job status {name}").stdout.upper()

    def log(self, name: str) -> str:
        """What a job has said."""
        return self.lan.head.login(f"ray job logs {name}").stdout

    @contextmanager
    def crawling(self) -> Iterator[None]:
        """Trials take their time while the context is open, so that there is one to lose at any moment."""
        crawl = self.lan.shared / CRAWL.name
        crawl.touch()
        try:
            yield
        finally:
            crawl.unlink()

    def driver(self) -> list[int]:
        """Process ids of drivers on the head."""
        command = re.compile(r"\S*python\S* -m orchestrator.run (grid|search|resume)")
        return [pid for pid, line in self.lan.head.processes().items() if command.match(line)]

    def ray_processes(self) -> dict[str, list[str]]:
        """What of Ray runs, by host."""
        found = {}
        for host in self.lan.nodes:
            commands = [command for command in host.processes().values() if "ray" in command.split(" -- ")[0]]
            if commands:
                found[host.name] = commands
        return found


@contextmanager
def on_prem(num_workers: int) -> Iterator[OnPrem]:
    """The machines, ready for `ray up`; nothing of them is left afterwards."""
    kept = sorted({Path(sys.prefix), Path(sys.base_prefix), *_site_packages()})
    with lan(num_workers, kept) as made:
        yield OnPrem(made)


def attempts(storage: Path) -> list[dict[str, Any]]:
    """The ledger's attempts so far, in order."""
    if not (storage / "ledger" / "attempts").is_dir():
        return []
    query = "SELECT trial_key, attempt, status, host, failure_class FROM attempts ORDER BY started_at"
    rows: list[dict[str, Any]] = Ledger(storage).sql(query).to_pylist()
    return rows


def _site_packages() -> list[Path]:
    return [Path(path) for path in sys.path if path.endswith("site-packages") and Path(path).is_dir()]


def _install_python(host: Host) -> None:
    """What a real machine gets from its network: a Python environment with all packages but the project's, and Ray's command.

    There is no network behind this one, so the environment takes the packages from the one that runs the tests, and the cluster
    file's own `pip install` finds there whatever it asks for, or fails.
    """
    done = host.run(sys.executable, "-m", "venv", "--without-pip", "/root/sweeps-venv")
    assert done.returncode == 0, done.stdout
    [packages] = (host.root / "sweeps-venv" / "lib").glob("python*/site-packages")
    (packages / "packages.pth").write_text("\n".join(map(str, _site_packages())) + "\n", encoding="utf-8")
    ray = host.root / "sweeps-venv" / "bin" / "ray"
    ray.write_text(_RAY, encoding="utf-8")
    ray.chmod(0o755)
    # A busy machine is no failure; and Ray's workers, by themselves at 15, would wait for what else it does.
    host.add_to_bashrc("export RAY_raylet_start_wait_time_s=180 RAY_worker_niceness=0")
    config = host.root / ".config" / "pip" / "pip.conf"
    config.parent.mkdir(parents=True)
    config.write_text(_PIP_CONFIG, encoding="utf-8")
