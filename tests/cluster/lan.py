"""A LAN of hosts on this machine, for a real `ray up`: network namespaces with a cable each to a switch, sshd, private files.

A host has network, processes, mounts, host name and IPC of its own; /tmp, /root and /dev/shm are private, /mnt/shared is the
same everywhere. The switch is the laptop's, in a namespace too, so nothing gets out and the machine's own network is untouched.
All processes are children of one, and its end is theirs. Needs root, and the packages that `lacking` names.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

__all__ = ["SHARED", "Host", "Lan", "Listener", "lacking", "lan"]

SHARED = Path("/mnt/shared")
"""The hosts' network file system."""

_HOST = Path(__file__).with_name("host.sh")
_NETWORK = "10.77.0"
_NEEDED = ("ip", "mount", "nsenter", "ps", "rsync", "setpriv", "ss", "ssh", "ssh-keygen", "/usr/sbin/sshd", "unshare")
_STARTS_WITHIN = 60.0
_ISOLATED = ("--net", "--pid", "--fork", "--mount", "--uts", "--ipc", "--mount-proc", "--kill-child")
_SSHD = """\
ListenAddress {address}
HostKey {folder}/hostkey
PidFile none
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
UseDNS no
StrictModes no
MaxStartups 50
MaxSessions 50
"""


def lacking() -> str:
    """Why this machine cannot have such a LAN; empty when it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux, for network namespaces"
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if missing:
        return f"needs {', '.join(missing)}: apt-get install openssh-server openssh-client rsync iproute2 iputils-ping procps"
    tried = subprocess.run(
        ["unshare", *_ISOLATED, "ip", "link", "add", "switch0", "type", "bridge"], capture_output=True, text=True
    )
    return f"namespaces are not permitted: {tried.stderr.strip()}" if tried.returncode else ""


@dataclass(frozen=True, order=True)
class Listener:
    """A TCP port that a process accepts connections on, and at which address."""

    address: str
    port: int
    process: str


@dataclass(frozen=True)
class Host:
    """A machine of the LAN."""

    name: str
    address: str
    pid: int  # of its first process, as this machine counts
    lan_folder: Path = field(repr=False)

    @property
    def root(self) -> Path:
        """Its /root, as seen from here."""
        return self.lan_folder / self.name / "root"

    @property
    def tmp(self) -> Path:
        """Its /tmp, as seen from here."""
        return self.lan_folder / self.name / "tmp"

    def command(self, *command: str, environment: Mapping[str, str] | None = None, folder: str = "/root") -> list[str]:
        """What runs `command` on it, in a login of root."""
        variables = {
            "HOME": "/root",
            "TERM": "dumb",
            "LANG": "C.UTF-8",
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            **(environment or {}),
        }
        inside = ["nsenter", "--target", str(self.pid), "--net", "--mount", "--pid", "--uts", "--ipc", f"--wdns={folder}"]
        return [*inside, "env", "-i", *(f"{name}={value}" for name, value in variables.items()), *command]

    def run(
        self, *command: str, environment: Mapping[str, str] | None = None, folder: str = "/root", seconds: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Runs `command` on it to its end; stdout and stderr together in `stdout`."""
        return subprocess.run(
            self.command(*command, environment=environment, folder=folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )

    def login(self, script: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        """Runs a script as SSH would: in an interactive login shell, with what ~/.bashrc sets."""
        return self.run("bash", "--login", "-c", f"source ~/.bashrc; {script}", seconds=seconds)

    def add_to_bashrc(self, line: str) -> None:
        """What every login of root, also by SSH, runs from now on."""
        with (self.root / ".bashrc").open("a", encoding="utf-8") as bashrc:
            bashrc.write(f"{line}\n")

    def processes(self) -> dict[int, str]:
        """Its processes, but for the first one and sshd: command line by process id, as the host counts."""
        lines = self.run("ps", "-eo", "pid=,args=", "--cols", "400").stdout.splitlines()
        found = {int(pid): command for pid, command in (line.split(maxsplit=1) for line in lines)}
        own = ("/bin/bash " + str(_HOST), "sshd", "ps -eo", "sleep 0.2")
        return {pid: command for pid, command in found.items() if pid != 1 and not any(each in command[:120] for each in own)}

    def kill(self, *pids: int) -> None:
        """SIGKILL for those of its processes, at once."""
        self.run("bash", "-c", f"kill -{signal.SIGKILL.value} {' '.join(map(str, pids))}")

    def listeners(self) -> list[Listener]:
        """TCP ports on which it accepts connections, but for sshd's."""
        lines = self.run("ss", "--listening", "--tcp", "--numeric", "--processes", "--no-header").stdout.splitlines()
        found = set()
        for line in lines:
            address, _, port = line.split()[3].rpartition(":")
            process = line.partition('users:(("')[2].partition('"')[0]
            if process != "sshd":
                found.add(Listener(address.strip("[]"), int(port), process))
        return sorted(found)


@dataclass(frozen=True)
class Lan:
    """A laptop, a head and workers."""

    folder: Path
    laptop: Host
    head: Host
    workers: Sequence[Host]

    @property
    def nodes(self) -> list[Host]:
        """Head and workers."""
        return [self.head, *self.workers]

    @property
    def shared(self) -> Path:
        """/mnt/shared, as seen from here."""
        return self.folder / "shared"

    def cut(self, host: Host) -> None:
        """Takes its cable out; what it writes to /mnt/shared fails, as that would be out of reach too."""
        self._cable(host, "down", "ro")

    def mend(self, host: Host) -> None:
        """Puts it back."""
        self._cable(host, "up", "rw")

    def _cable(self, host: Host, link: str, share: str) -> None:
        for where, command in (
            (self.laptop, ["ip", "link", "set", f"port-{host.name}", link]),
            (host, ["mount", "-o", f"remount,bind,{share}", str(SHARED)]),
        ):
            _wait_until(lambda where=where, command=command: not where.run(*command).returncode, f"{command} has failed")


@contextmanager
def lan(num_workers: int, kept: Sequence[Path]) -> Iterator[Lan]:
    """A LAN for as long as the context lasts; `kept` are folders that all hosts see although they lie below /tmp or /root."""
    folder = Path(tempfile.mkdtemp(prefix="lan-", dir="/var/tmp"))  # stays visible when /tmp becomes private
    starters: list[subprocess.Popen[bytes]] = []
    try:
        names = ["laptop", "head", *(f"worker{number}" for number in range(1, num_workers + 1))]
        addresses = {name: f"{_NETWORK}.{1 if name == 'laptop' else 9 + number}" for number, name in enumerate(names)}
        _write_files(folder, addresses)
        hidden = [str(path) for path in kept if path.is_relative_to("/tmp") or path.is_relative_to("/root")]
        hosts: list[Host] = []
        for name in names:
            laptop = hosts[0] if hosts else None
            starters.append(_start(folder, name, addresses[name], hidden, within=laptop))
            hosts.append(Host(name, addresses[name], _first_process(starters[-1].pid), folder))
            if laptop is not None:
                _plug_in(laptop, hosts[-1])
            _wait_until((folder / name / "ready").exists, f"{name} did not start", folder / f"{name}.log")
        yield Lan(folder, hosts[0], hosts[1], hosts[2:])
    finally:
        if starters:
            os.kill(_first_process(starters[0].pid), signal.SIGKILL)  # the laptop's: all other namespaces are below it
        for starter in starters:
            starter.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def _write_files(folder: Path, addresses: Mapping[str, str]) -> None:
    (folder / "shared").mkdir()
    hosts = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in addresses.items())]
    (folder / "hosts").write_text("\n".join(hosts) + "\n", encoding="utf-8")
    for key in ("login", "hostkey"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    for name, address in addresses.items():
        home = folder / name / "root"
        (home / ".ssh").mkdir(parents=True)
        (home / ".profile").write_text("[ -f ~/.bashrc ] && . ~/.bashrc\n", encoding="utf-8")
        (home / ".bashrc").write_text("", encoding="utf-8")
        if name == "laptop":
            shutil.copy(folder / "login", home / ".ssh" / "id_ed25519")
        else:
            shutil.copy(folder / "login.pub", home / ".ssh" / "authorized_keys")
            (folder / name / "sshd_config").write_text(_SSHD.format(address=address, folder=folder), encoding="utf-8")


def _start(folder: Path, name: str, address: str, kept: Sequence[str], within: Host | None) -> subprocess.Popen[bytes]:
    """Starts a host's first process; those of nodes are children of the laptop's, whose switch they share."""
    # With this process, should it be killed, the laptop ends, and everything with it.
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", *_ISOLATED, str(_HOST), name, address, str(folder), *kept]
    if within is not None:
        command = ["nsenter", "--target", str(within.pid), "--net", "--pid", *command[3:]]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _plug_in(laptop: Host, host: Host) -> None:
    """Lays a cable from the laptop's switch to the host, which is waiting for it."""
    for command in (
        ["ip", "link", "add", f"port-{host.name}", "type", "veth", "peer", "name", f"to-{host.name}"],
        ["ip", "link", "set", f"port-{host.name}", "master", "switch0"],
        ["ip", "link", "set", f"port-{host.name}", "up"],
    ):
        done = laptop.run(*command)
        assert done.returncode == 0, done.stdout
    # With the laptop's network but this machine's process ids, in which `host.pid` is.
    inside = ["nsenter", "--target", str(laptop.pid), "--net"]
    subprocess.run([*inside, "ip", "link", "set", f"to-{host.name}", "netns", str(host.pid)], check=True)


def _first_process(starter_pid: int) -> int:
    """The process that `unshare` has started as the first of its namespaces, by this machine's process ids."""
    found: list[int] = []

    def look() -> bool:
        for process in psutil.Process(starter_pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.cmdline()[1:2] == [str(_HOST)] and process.parent().name() == "unshare":
                    found.append(process.pid)
        return bool(found)

    _wait_until(look, "unshare did not start a host")
    return found[0]


def _wait_until(condition: Callable[[], bool], complaint: str, log: Path | None = None) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{complaint} within {_STARTS_WITHIN:.0f} s: {log.read_text(encoding='utf-8') if log else ''}")
        time.sleep(0.05)
