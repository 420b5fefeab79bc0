"""Several processes of one cluster on one machine: started, restarted when they die, stopped in order.

Each is `python -m stentor ROLE --config FILE` with its name in the environment. The supervisor asks their admin ports
whether they are ready and touches nothing else of them. `RunFile` tells other programs which processes there are.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import json
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import aiohttp

from cluster import logs

log = logs.get_logger()

FIRST_BACKOFF_S: Final = 0.1
MAX_BACKOFF_S: Final = 5.0
STABLE_S: Final = 10.0  # a process that lived so long starts again with the first backoff
POLL_S: Final = 0.05
TAIL_BYTES: Final = 2_000
PR_SET_PDEATHSIG: Final = 1
SOCKET_PATH_BYTES: Final = 107

_libc = ctypes.CDLL(None, use_errno=True)


class NotReady(Exception):
    """The cluster did not become ready; the text says which process and why."""


class AlreadyRunning(Exception):
    """Another supervisor uses the same directory."""


@dataclass(frozen=True, slots=True)
class Member:
    """One process that shall run."""

    node: str
    role: str
    admin_port: int
    settings: Mapping[str, str] = field(default_factory=dict)  # variables for this one alone


def members(counts: Mapping[str, int], first_admin_port: int) -> list[Member]:
    """The processes for so many of each role: c2s-0, c2s-1, router-0 ... with admin ports in that order."""
    nodes = [(role, f"{role}-{number}") for role, count in counts.items() for number in range(count)]
    return [Member(node, role, first_admin_port + offset) for offset, (role, node) in enumerate(nodes)]


def backoff_s(last_s: float, lived_s: float) -> float:
    """How long to wait before the next start of a process that died after `lived_s`."""
    return FIRST_BACKOFF_S if last_s == 0 or lived_s >= STABLE_S else min(MAX_BACKOFF_S, last_s * 2)


class _Keeper:
    """Keeps one member running."""

    def __init__(
        self,
        member: Member,
        config_file: Path,
        env: Mapping[str, str],
        log_file: Path | None,
        changed: Callable[[], None],
    ) -> None:
        self.member = member
        self.pid: int | None = None
        self.deaths = 0
        self.exit_code: int | None = None
        self._command = (sys.executable, "-m", "stentor", member.role, "--config", str(config_file))
        self._env = {
            **env,
            **member.settings,
            "STENTOR_NODE__NAME": member.node,
            "STENTOR_ADMIN__PORT": str(member.admin_port),
        }
        self._log_file = log_file
        self._changed = changed
        self.stopping = asyncio.Event()

    async def keep(self) -> None:
        """Start the process, and again whenever it ends, until `terminate`."""
        wait_s = 0.0
        while not self.stopping.is_set():
            started_at = time.monotonic()
            await self._run_once()
            if self.stopping.is_set():
                break
            self.deaths += 1
            wait_s = backoff_s(wait_s, time.monotonic() - started_at)
            log.warning("process_died", process=self.member.node, exit_code=self.exit_code, seconds=wait_s)
            self._changed()
            try:
                await asyncio.wait_for(self.stopping.wait(), wait_s)
            except TimeoutError:
                continue

    async def _run_once(self) -> None:
        output = self._log_file.open("ab") if self._log_file is not None else None
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stderr=output,
                env=self._env,
                start_new_session=True,  # Ctrl-C is for the supervisor, which then ends the others in order
                preexec_fn=_die_with(os.getpid()),
            )
        finally:
            if output is not None:
                output.close()
        self.pid = process.pid
        self._changed()
        if self.stopping.is_set():
            self.signal(signal.SIGTERM)
        self.exit_code = await process.wait()
        self.pid = None

    def terminate(self) -> None:
        """Ask the process to drain and end; it is not started again. A second call halves the time it takes."""
        self.stopping.set()
        self.signal(signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it runs."""
        if self.pid is not None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass  # it has just ended; `keep` is about to see that

    def tail(self) -> str:
        """The last lines that the process wrote, if they go to a file."""
        if self._log_file is None or not self._log_file.exists():
            return ""
        return self._log_file.read_bytes()[-TAIL_BYTES:].decode(errors="replace").strip()


def _die_with(supervisor: int) -> Callable[[], None]:
    def prepare() -> None:
        """In the child, before exec: the kernel kills it when the supervisor dies, also when that is killed."""
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:
            os._exit(1)

    return prepare


class Supervisor:
    """Keeps `members` running. `changed` is called whenever a process has started or died."""

    def __init__(
        self,
        members: Sequence[Member],
        config_file: Path,
        env: Mapping[str, str],
        host: str = "127.0.0.1",
        log_directory: Path | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._host = host
        self._keepers = [
            _Keeper(
                m, config_file, env, log_directory / f"{m.node}.log" if log_directory is not None else None, changed
            )
            for m in members
        ]
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Start every process; does not wait for them."""
        self._tasks = {k.member.node: asyncio.create_task(k.keep(), name=k.member.node) for k in self._keepers}

    def processes(self) -> list[dict[str, Any]]:
        """The processes that run now: `{"node", "role", "pid", "admin"}`."""
        return [
            {"node": k.member.node, "role": k.member.role, "pid": k.pid, "admin": self._admin_url(k.member)}
            for k in self._keepers
            if k.pid is not None
        ]

    async def wait_ready(self, timeout_s: float | None) -> None:
        """Wait until every /readyz answers 200; raises NotReady after `timeout_s`, or when a process dies first.

        Without a timeout it waits as long as it takes, also through deaths.
        """
        give_up_at = None if timeout_s is None else time.monotonic() + timeout_s
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as session:
            waiting = list(self._keepers)
            while waiting:
                keeper = waiting[0]
                reason = await _why_not_ready(session, self._admin_url(keeper.member))
                if not reason:
                    waiting.pop(0)
                    continue
                dead = next((k for k in self._keepers if k.deaths), None)
                if give_up_at is not None and dead is not None:
                    raise NotReady(f"{dead.member.node} died with exit code {dead.exit_code}. {dead.tail()}".strip())
                if give_up_at is not None and time.monotonic() > give_up_at:
                    raise NotReady(f"{keeper.member.node} is not ready after {timeout_s:.0f} s: {reason}")
                await asyncio.sleep(POLL_S)

    async def stop(self, grace_s: float) -> None:
        """End every process, those that face clients first, routers last; what is left after `grace_s` is killed."""
        for is_router in (False, True):
            group = [k for k in self._keepers if (k.member.role == "router") == is_router]
            for keeper in group:
                keeper.terminate()
            tasks = [self._tasks[k.member.node] for k in group if k.member.node in self._tasks]
            _, late = await asyncio.wait(tasks, timeout=grace_s) if tasks else (set(), set())
            for keeper in group:
                if keeper.pid is not None:
                    log.warning(
                        "process_killed", process=keeper.member.node, reason=f"still there after {grace_s:.0f} s"
                    )
                    keeper.signal(signal.SIGKILL)
            if late:
                await asyncio.wait(late)

    def hurry(self) -> None:
        """Halve what is left of the drains that run."""
        for keeper in self._keepers:
            if keeper.stopping.is_set():
                keeper.signal(signal.SIGTERM)

    def hang_up(self) -> None:
        """Let every process read its files again."""
        for keeper in self._keepers:
            keeper.signal(signal.SIGHUP)

    def _admin_url(self, member: Member) -> str:
        return f"http://{self._host}:{member.admin_port}"


async def _why_not_ready(session: aiohttp.ClientSession, admin_url: str) -> str:
    """Empty when the process is ready."""
    try:
        async with session.get(f"{admin_url}/readyz") as response:
            checks = await response.json()
            return "; ".join(f"{check['check']}: {check['reason']}" for check in checks if not check["ok"])
    except (aiohttp.ClientError, TimeoutError):
        return "its admin port does not answer"


class RunFile:
    """DIR/run.json: what runs, for commands and tests. Mode 0600, replaced as a whole, gone after `remove`."""

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self._path = path
        self._facts = dict(facts)

    def write(self, processes: Sequence[Mapping[str, Any]]) -> None:
        """Tell which processes run now."""
        write_private(self._path, json.dumps({**self._facts, "processes": list(processes)}, indent=2) + "\n")

    def remove(self) -> None:
        """Nothing runs any more."""
        self._path.unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Replace a file at once, readable by its owner only."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)


def lock(directory: Path) -> IO[str]:
    """Hold `directory` until the returned file is closed; raises AlreadyRunning where another supervisor holds it."""
    file = (directory / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise AlreadyRunning(f"{directory} is in use by the cluster of process {holder}") from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def make_runtime_dir(path: Path, names: Iterable[str]) -> None:
    """A folder of mode 0700 for sockets called `names`; raises OSError with the reason where it cannot serve.

    A folder that is there already is never changed: it may be one that others use too, such as /tmp.
    """
    longest = max((len(os.fsencode(path / name)) for name in names), default=0)
    if longest > SOCKET_PATH_BYTES:
        limit = f"{SOCKET_PATH_BYTES} is the limit; choose a shorter runtime_dir"
        raise OSError(f"socket paths in {path} would have {longest} bytes, {limit}")
    try:
        path.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise OSError(f"{path} is not a folder of mode 0700 of this user; choose another runtime_dir") from None
