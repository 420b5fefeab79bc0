"""The cluster under measurement: finds a running `stentor dev` by its run.json, or starts one of its own."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

START_S: Final = 120.0
STOP_S: Final = 60.0
# No limits, no archive, accounts by XEP-0077, PLAIN and SCRAM without TLS: what the generator needs.
SETTINGS: Final = (
    "limits.enabled=false", "archive.default=never", "registration.mode=open", "registration.per_address=0",
)  # fmt: skip


class TargetError(Exception):
    """No cluster to measure; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the cluster."""

    node: str
    role: str
    pid: int
    admin: str


@dataclass(frozen=True, slots=True)
class Target:
    """A running server: a cluster, as its run.json tells, or another program, which is its own supervisor."""

    domain: str
    port: int
    supervisor: int
    processes: tuple[Process, ...]
    postmaster: int | None  # None: PostgreSQL is not ours, its cost is not counted
    host: str = "127.0.0.1"

    def pid_options(self) -> list[str]:
        """Options for the generator: all processes of the cluster, PostgreSQL apart from them."""
        roots = ",".join(str(process.pid) for process in self.processes)
        options = ["--server-pids", str(self.supervisor), "--server-pgrep-root", roots]
        if self.postmaster is not None:
            options += ["--aux-pgrep-root", str(self.postmaster)]
        return options

    def cpu_s(self) -> float:
        """CPU seconds that the supervisor and the processes have used since they started."""
        return sum(_cpu_s(pid) for pid in (self.supervisor, *(process.pid for process in self.processes)))


def read(run_file: Path) -> Target:
    """The cluster described by a run.json."""
    try:
        facts = json.loads(run_file.read_text())
    except FileNotFoundError:
        raise TargetError(f"{run_file}: no such file; is the cluster running?") from None
    processes = tuple(Process(p["node"], p["role"], p["pid"], p["admin"]) for p in facts["processes"])
    if not processes:
        raise TargetError(f"{run_file}: no process runs")
    return Target(
        domain=facts["domains"][0],
        port=facts["ports"]["c2s"],
        supervisor=int(_stat(processes[0].pid)[1]),
        processes=processes,
        postmaster=facts.get("database_pid") or _postmaster(run_file.parent),
    )


def metrics_of(process: Process) -> str:
    """What a process tells Prometheus."""
    with urllib.request.urlopen(f"{process.admin}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def rows_per_commit(found: Target) -> float:
    """Rows of the log in one transaction, over all routers; 0 where nothing was logged."""
    rows = commits = 0.0
    for process in found.processes:
        if process.role == "router":
            for line in metrics_of(process).splitlines():
                name, _, value = line.rpartition(" ")
                rows += float(value) if name == "stentor_log_batch_messages_sum" else 0
                commits += float(value) if name == "stentor_log_batch_messages_count" else 0
    return round(rows / commits, 1) if commits else 0.0


@contextmanager
def started(
    data: Path,
    *,
    c2s: int,
    router: int,
    port_offset: int,
    settings: Sequence[str] = (),
    domain: str = "localhost",
) -> Iterator[Target]:
    """Run `stentor dev` in `data` until the block ends. The folder is kept: a second start finds the accounts."""
    raise_file_limit()
    data.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "stentor", "dev", "--data", str(data), "--port-offset", str(port_offset)]
    command += ["--domain", domain, "--tls", "optional", "--c2s", str(c2s), "--router", str(router)]
    for setting in (*SETTINGS, *settings):
        command += ["--set", setting]
    log = data / "dev.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        _wait_ready(process, log)
        yield read(data / "run.json")
    finally:
        _stop(process)


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one, for this process and its children; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def wait_quiet(target: Target, at_most_s: float = 20.0) -> None:
    """Wait until the cluster does nothing (under 2 % of a core for a second), so that its start is not measured."""
    give_up_at = time.monotonic() + at_most_s
    while time.monotonic() < give_up_at:
        before = target.cpu_s()
        time.sleep(1.0)
        if target.cpu_s() - before < 0.02:
            return


def wait_busy(*targets: Target, at_most_s: float = 60.0) -> None:
    """Wait until the clusters work hard (over a third of a core for a second); raises TargetError if they never do."""
    give_up_at = time.monotonic() + at_most_s
    while time.monotonic() < give_up_at:
        before = sum(target.cpu_s() for target in targets)
        time.sleep(1.0)
        if sum(target.cpu_s() for target in targets) - before > 0.33:
            return
    raise TargetError("the load does not reach the cluster")


def _wait_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    give_up_at = time.monotonic() + START_S
    while True:
        text = log.read_text(errors="replace")
        if any(line.startswith("READY") for line in text.splitlines()):
            return
        if process.poll() is not None:
            raise TargetError(f"stentor dev ended with {process.returncode}:\n{text[-2000:]}")
        if time.monotonic() > give_up_at:
            raise TargetError(f"stentor dev was not ready after {START_S:.0f} s:\n{text[-2000:]}")
        time.sleep(0.1)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _postmaster(data: Path) -> int | None:
    """The pid of the embedded PostgreSQL below a cluster's folder."""
    for pattern in ("postgres/postmaster.pid", "postgres/*/postmaster.pid"):
        for file in data.glob(pattern):
            return int(file.read_text().split()[0])
    return None


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command's name: state, ppid, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / 100  # utime and stime; the kernel's unit is 10 ms everywhere
