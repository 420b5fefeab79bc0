"""A foreign server as a child process: an address of its own, ready by events, ended by its pid.

Peers are told apart by address, not by port: each gets a random one of 127.64.0.0/10, so runs beside each other do not
meet. Connections that a peer opens come from 127.0.0.1 all the same, whatever it listens on.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.support.cluster import FACTOR, deadline

START_S: Final = 20.0
STOP_S: Final = 5.0
TAIL_BYTES: Final = 4_000
DEBIAN_PACKAGES: Final = {
    "prosody": "prosody prosody-modules lua-unbound",
    "prosody-migrator": "prosody lua-dbi-sqlite3",
    "erl": "ejabberd",
    "ejabberd": "ejabberd",
    "ngircd": "ngircd",
    "biboumi": "biboumi",
    "slapadd": "slapd",
    "slapd": "slapd",
    "turnserver": "coturn",
    "turnutils_uclient": "coturn",
}
# What the peers listen on, at addresses of their own.
C2S: Final = 15222
C2S_DIRECT_TLS: Final = 15223
S2S: Final = 15269
S2S_DIRECT_TLS: Final = 15270
COMPONENT: Final = 15347
API: Final = 15280
DNS: Final = 15353
IRC: Final = 6667  # where biboumi looks for it
LDAP: Final = 15389
LDAPS: Final = 15636
PORTS: Final = (C2S, C2S_DIRECT_TLS, S2S, S2S_DIRECT_TLS, COMPONENT, API, DNS, IRC, LDAP, LDAPS)

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def free_address() -> str:
    """An address of this machine at which nothing listens on any of PORTS."""
    for _ in range(100):
        host = f"127.{random.randrange(64, 128)}.{random.randrange(256)}.{random.randrange(1, 255)}"
        if all(_is_free(host, port) for port in PORTS):
            return host
    raise RuntimeError(f"on some of the ports {PORTS} something listens at every address: end it")


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def answers(host: str, port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def program(name: str) -> str:
    """The path of a program. Raises RuntimeError, which says how to install it."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        raise missing(name)
    return found


def missing(name: str) -> RuntimeError:
    """The error that says how to install this program."""
    packages = DEBIAN_PACKAGES[name]
    return RuntimeError(f"{name} is missing: make peers, or apt-get install --no-install-recommends {packages}")


class Process:
    """A program that runs in `directory`, where its output and its logs are (*.log), from `start` to `stop` or `kill`.

    It may be started again. `ready` tells whether it does its work; until then `start` does not return.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        command: Sequence[object],
        ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.directory = directory
        self._command = [str(word) for word in command]
        self._ready = ready
        self._environment = {**os.environ, "HOME": str(directory), **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._logged_before: dict[Path, int] = {}

    def start(self) -> None:
        """Start it and wait until it is ready. Raises RuntimeError with what it has logged."""
        assert self._process is None, f"{self.name} runs already"
        self._logged_before = {file: file.stat().st_size for file in self.directory.glob("*.log")}
        with (self.directory / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                self._command, cwd=self.directory, env=self._environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        give_up_at = deadline(START_S)
        while not self._ready():
            code = self._process.poll()
            if code is not None or time.monotonic() > give_up_at:
                self.kill()
                what = f"is not ready after {START_S * FACTOR:.0f} s" if code is None else f"has ended with {code}"
                raise RuntimeError(f"{self.name} {what}\n{self.logs(TAIL_BYTES)}")
            time.sleep(0.01)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for what does not end by it. What does not run is left so."""
        self.terminate()
        self.wait_ended()

    def terminate(self) -> None:
        """SIGTERM; `wait_ended` has to follow. Once only, for some take a second one for impatience, and some hang."""
        if self._process is not None:
            self._process.terminate()

    def wait_ended(self) -> None:
        """Wait until it has ended, and kill it if that takes longer than STOP_S."""
        if self._process is not None:
            try:
                self._process.wait(STOP_S * FACTOR)
            except subprocess.TimeoutExpired:
                pass
            self.kill()

    def kill(self) -> None:
        """SIGKILL: no goodbye to anybody."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Stop it and start it again, with its data."""
        self.stop()
        self.start()

    @property
    def pid(self) -> int:
        """The process that was started."""
        assert self._process is not None, f"{self.name} does not run"
        return self._process.pid

    def cpu_seconds(self) -> float:
        """CPU time that it has used since its start: user and system, with all its descendants."""
        stats = _stats()
        tree = {self.pid}
        while found := {pid for pid, fields in stats if int(fields[1]) in tree} - tree:  # by their parents
            tree |= found
        # proc_pid_stat(5): utime, stime, and both for children that have ended
        ticks = sum(int(field) for pid, fields in stats if pid in tree for field in fields[11:15])
        return ticks / _TICKS_PER_S

    def logs(self, tail_bytes: int) -> str:
        """The end of each of its logs, output included."""
        return "\n".join(f"--- {file}\n{_text(file)[-tail_bytes:]}" for file in sorted(self.directory.glob("*.log")))

    def has_logged(self, text: str) -> bool:
        """Whether this is in a log, since its last start."""
        return any(text in _text(file, self._logged_before.get(file, 0)) for file in self.directory.glob("*.log"))


def _text(file: Path, start: int = 0) -> str:
    with file.open("rb") as log:
        log.seek(start)
        return log.read().decode(errors="replace")


def _stats() -> list[tuple[int, list[str]]]:
    """Pid and the fields of /proc/PID/stat behind the command's name, of every process."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                found.append((int(directory.name), (directory / "stat").read_text().rpartition(")")[2].split()))
            except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                pass
    return found
