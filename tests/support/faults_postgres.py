"""The embedded PostgreSQL of a test's cluster, seen from outside: ended, paused and started again under its URL."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

import psycopg

from storage.unprivileged import find_runner
from tests.support.cluster import RunningCluster, wait_until

GONE_S: Final = 30.0


class Database:
    """The server of one cluster. `stentor dev` started it first; whoever starts it again has to end it, too."""

    def __init__(self, cluster: RunningCluster) -> None:
        self._url: str = cluster.facts["database_url"]
        self._runner = find_runner()
        self._home = self._runner.home(cluster.directory / "postgres")
        self._data = self._home / "data"
        self._command = self._cmdline()
        self._ours: subprocess.Popen[bytes] | None = None

    def _cmdline(self) -> list[str]:
        return Path(f"/proc/{self._postmaster()}/cmdline").read_text().split("\0")[:-1]

    def _postmaster(self) -> int:
        return int((self._data / "postmaster.pid").read_text().split()[0])

    def _processes(self) -> list[int]:
        """Every process of a server works in its data folder."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (entry / "cwd").readlink() == self._data:
                    found.append(int(entry.name))
        return found

    async def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End the server: SIGINT is its fast shutdown, SIGQUIT the immediate one, behind which it has to recover."""
        os.kill(self._postmaster(), number)
        await asyncio.to_thread(
            wait_until, lambda: not self._processes(), GONE_S, f"PostgreSQL has ended after {number.name}"
        )
        if self._ours is not None:
            self._ours.wait()

    async def start(self) -> None:
        """Start it again as it was started, and wait until it answers. Call this in the main thread."""
        self._spawn()
        await asyncio.to_thread(wait_until, self.answers, GONE_S, "PostgreSQL answers")

    def _spawn(self) -> None:
        """The server ends when the thread does that started it."""
        (self._data / "postmaster.pid").unlink(missing_ok=True)  # of one that was killed
        with_parent = ("setpriv", "--pdeathsig", "INT", "--") if shutil.which("setpriv") else ()
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
        with (self._home / "postgres.log").open("ab") as output:
            self._ours = subprocess.Popen(
                [*self._runner.prefix, *with_parent, *self._command],
                env={**environment, "LC_ALL": "C"}, cwd=self._home, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, process_group=0,
            )  # fmt: skip

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            with psycopg.connect(self._url, connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def pause(self) -> None:
        """It takes connections and says nothing."""
        for pid in self._processes():
            os.kill(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """After `pause`."""
        for pid in self._processes():
            os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        """End what we have started."""
        if self._ours is not None and self._ours.poll() is None:
            self._ours.send_signal(signal.SIGINT)
            self._ours.wait(GONE_S)
