"""A real cluster for tests: `stentor dev` on free ports with a folder of its own. A pytest plugin."""

from __future__ import annotations

import itertools
import json
import os
import queue
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from stentor.client import Api

START_S: Final = 90.0
STOP_S: Final = 30.0
PORTS: Final = (5222, 5223, 5269, 5270, 5280, 5281, 5347, 5443, *range(7400, 7409), *range(9100, 9116))
FACTOR: Final = float(os.environ.get("TIMEOUT_FACTOR", "1"))

_names = itertools.count(1)


def deadline(seconds: float) -> float:
    """When to give up, on the monotonic clock; slow machines set TIMEOUT_FACTOR."""
    return time.monotonic() + seconds * FACTOR


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll until `condition`; fails the test after `seconds`."""
    give_up_at = deadline(seconds)
    while not condition():
        if time.monotonic() > give_up_at:
            pytest.fail(f"after {seconds * FACTOR:.0f} s still not so: {what}")
        time.sleep(0.02)


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """One process of the cluster, as run.json tells."""

    node: str
    role: str
    pid: int
    admin: str


@dataclass(frozen=True, slots=True)
class Account:
    """An account that a test made for itself."""

    jid: str
    password: str


class RunningCluster:
    """A running `stentor dev`. Everything told about it is read anew from its run.json."""

    def __init__(self, process: subprocess.Popen[str], directory: Path, lines: list[str]) -> None:
        self.directory = directory
        self.lines = lines  # what it printed, READY last
        self._process = process

    @property
    def facts(self) -> dict[str, Any]:
        """run.json."""
        found: dict[str, Any] = json.loads((self.directory / "run.json").read_text())
        return found

    @property
    def host(self) -> str:
        """Where clients connect."""
        return "127.0.0.1"

    @property
    def domain(self) -> str:
        """The first domain served."""
        return str(self.facts["domains"][0])

    @property
    def port(self) -> int:
        """The port for STARTTLS."""
        return int(self.facts["ports"]["c2s"])

    @property
    def tls_port(self) -> int:
        """The port for direct TLS."""
        return int(self.facts["ports"]["c2s_tls"])

    @property
    def api(self) -> Api:
        """The administration API."""
        facts = self.facts
        return Api(f"http://127.0.0.1:{facts['ports']['admin']}", facts["admin_token"])

    @property
    def pid(self) -> int:
        """The supervisor."""
        return self._process.pid

    @property
    def certificate(self) -> Path:
        """The self-signed certificate, for clients to trust."""
        return self.directory / "tls" / "self-signed.crt"

    def tls(self) -> ssl.SSLContext:
        """A client's TLS settings that trust nothing but let everything pass: the certificate is self-signed."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    def processes(self, role: str | None = None) -> list[RunningProcess]:
        """What runs now, by node name."""
        found = [RunningProcess(**process) for process in self.facts["processes"]]
        return sorted((p for p in found if role in (None, p.role)), key=lambda process: process.node)

    def process(self, node: str) -> RunningProcess | None:
        """The process called `node`, None while it is dead."""
        return next((process for process in self.processes() if process.node == node), None)

    def account(self, name: str = "user", password: str = "secret", domain: str = "") -> Account:
        """A new account with a name of its own, of the first domain or this one."""
        jid = f"{name}-{next(_names)}@{domain or self.domain}"
        self.api.call("POST", "/users", {"jid": jid, "password": password})
        return Account(jid, password)

    def kill(self, node: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a process; returns its pid."""
        process = self.process(node)
        assert process is not None, f"{node} does not run"
        os.kill(process.pid, number)
        return process.pid

    def wait_restarted(self, node: str, old_pid: int, seconds: float = 15) -> RunningProcess:
        """Wait until `node` runs as another process and is ready."""

        def is_new() -> bool:
            process = self.process(node)
            return process is not None and process.pid != old_pid and self.is_ready(node)

        wait_until(is_new, seconds, f"{node} is ready again")
        found = self.process(node)
        assert found is not None
        return found

    def is_ready(self, node: str) -> bool:
        """Whether /readyz of `node` answers 200."""
        return self.get(node, "/readyz")[0] == 200

    def wait_ready(self, seconds: float = 15) -> None:
        """Wait until every process runs and is ready."""
        nodes = [process.node for process in self.processes()]
        wait_until(lambda: all(self.is_ready(node) for node in nodes), seconds, "every process is ready")

    def get(self, node: str, path: str) -> tuple[int, str]:
        """Status and text from a process's admin port; status 0 where nobody answers."""
        import http.client
        from urllib.parse import urlsplit

        process = self.process(node)
        if process is None:
            return 0, ""
        connection = http.client.HTTPConnection(urlsplit(process.admin).netloc, timeout=5 * FACTOR)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def command(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run `stentor ARGUMENTS --data DIR`."""
        command = [sys.executable, "-m", "stentor", *arguments, "--data", str(self.directory)]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60 * FACTOR, check=False)

    def log(self, node: str) -> str:
        """What a process has logged so far."""
        return (self.directory / "logs" / f"{node}.log").read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the cluster; returns the exit code of `stentor dev`."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            return self._process.wait(STOP_S * FACTOR)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            pytest.fail(f"stentor dev was still there {STOP_S * FACTOR:.0f} s after {number.name}")


def free_offset() -> int:
    """A port offset at which nothing listens."""
    for _ in range(100):
        offset = random.randrange(50, 230) * 100  # below the ports that the kernel gives to clients
        if all(_is_free(port + offset) for port in PORTS):
            return offset
    raise RuntimeError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def start_cluster(directory: Path, *options: str) -> RunningCluster:
    """Start `stentor dev OPTIONS` with its data in `directory` and wait for READY."""
    command = [sys.executable, "-m", "stentor", "dev", "--data", str(directory), *options]
    if "--port-offset" not in options:
        command += ["--port-offset", str(free_offset())]
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "supervisor.log").open("ab") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True)
    lines: list[str] = []
    for line in _lines(process, deadline(START_S)):
        lines.append(line)
        if line.startswith("READY"):
            return RunningCluster(process, directory, lines)
    process.kill()
    process.wait()
    logs = [(directory / "supervisor.log"), *sorted((directory / "logs").glob("*.log"))]
    tails = "\n".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in logs)
    raise RuntimeError(f"stentor dev did not become ready (exit code {process.returncode})\n{tails}")


def _lines(process: subprocess.Popen[str], give_up_at: float) -> Iterator[str]:
    """What the process prints, until it ends or the time is over. Reading goes on, so that it never blocks."""
    arrived: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        with process.stdout as output:
            for line in output:
                arrived.put(line.rstrip("\n"))
        arrived.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = arrived.get(timeout=max(0.0, give_up_at - time.monotonic()))
        except queue.Empty:
            return
        if line is None:
            return
        yield line


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """One cluster of 2 c2s and 2 routers for the whole run; tests make accounts of their own and kill nothing."""
    running = start_cluster(tmp_path_factory.mktemp("cluster"), "--tls", "optional", "--set", "limits.enabled=false")
    yield running
    assert running.stop() == 0


@pytest.fixture
def new_cluster(tmp_path: Path) -> Iterator[Callable[..., RunningCluster]]:
    """Start clusters for one test alone: `new_cluster("--router", "3")`. They are all ended after it."""
    started: list[RunningCluster] = []

    def start(*options: str, directory: Path | None = None) -> RunningCluster:
        running = start_cluster(directory or tmp_path / f"cluster-{len(started)}", *options)
        started.append(running)
        return running

    yield start
    for running in started:
        running.stop()
