"""What operators ask of one process, by ORDER (cluster/wire.py): its configuration, what it logs, its certificates.

Every process answers these; what only some can (`offer`) is their owner's. Configuration is read in a thread, so that
streams do not wait for a slow disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from cluster import logs
from cluster.config import Config, ConfigError, again, changed, shown, with_keys
from cluster.process import CannotStart, Process
from cluster.wire import REPORT, Envelope, Incarnation

log = logs.get_logger()

#: Which roles read a section; what is not here, all read.
READERS: Final[dict[str, frozenset[str]]] = {
    "c2s": frozenset({"c2s"}),
    "tls": frozenset({"c2s", "s2s"}),
    "s2s": frozenset({"s2s", "router"}),
    "components": frozenset({"s2s", "router"}),
    "authentication": frozenset({"c2s", "router"}),
    "limits": frozenset({"c2s", "router"}),
    "registration": frozenset({"c2s", "router"}),
    "resume": frozenset({"c2s", "router"}),
    "proxy": frozenset({"c2s", "router"}),
    "http": frozenset({"c2s", "router"}),
    **dict.fromkeys(
        (
            "abuse", "accounts", "archive", "calls", "contacts", "database", "pubsub", "push", "rooms", "strangers",
            "tokens",
        ),
        frozenset({"router"}),
    ),
    "run": frozenset(),
}  # fmt: skip


class OrderError(Exception):
    """What was asked cannot be done; the text says why, and what to do."""


Adopt = Callable[[Config, list[str]], list[str]]  # the new configuration, changed keys -> those that count from now on


def _nothing(config: Config, keys: list[str]) -> list[str]:
    return []


class Orders:
    """Of one process. `adopt` has a new configuration count, as far as that can be."""

    def __init__(self, process: Process, config: Config, role: str, adopt: Adopt = _nothing) -> None:
        self._process = process
        self._config = config  # what runs
        self._role = role
        self._adopt = adopt
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._before: dict[str, str | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading = asyncio.Lock()
        self._methods: dict[str, Callable[..., Any]] = {
            "config.show": self._show,
            "config.diff": self._diff,
            "config.reload": self._reload,
            "log.level": self._level,
            "tls.list": list,
        }

    def offer(self, name: str, method: Callable[..., Any]) -> None:
        """Answer this, too; a method that returns at once, or is a coroutine function."""
        self._methods[name] = method

    def receive(
        self, send: Callable[[Incarnation, Envelope], bool], sender: Incarnation, request: str, name: str,
        arguments: tuple[Any, ...],
    ) -> None:  # fmt: skip
        """An ORDER of a router."""

        async def answer() -> None:
            ok, value = await self.obey(name, arguments)
            send(sender, (REPORT, request, ok, value))

        task = asyncio.get_running_loop().create_task(answer())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def obey(self, name: str, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
        """Do it; returns whether it was done, and the answer or what is wrong."""
        method = self._methods.get(name)
        if method is None:
            return False, f"this process does not know {name}: it runs another release"
        try:
            value = method(*arguments)
            return True, await value if asyncio.iscoroutine(value) else value
        except OrderError as problem:
            return False, str(problem)
        except Exception as problem:
            log.error("call_failed", method=name, exc_info=problem)
            return False, "internal error; the log of the process says more"

    # --- configuration

    def _show(self) -> list[tuple[str, Any, str]]:
        """Key, value, and where it came from."""
        return [(key, value, self._config.source_of(key)) for key, value in shown(self._config).items()]

    async def _read(self) -> Config:
        try:
            return await asyncio.to_thread(again, self._config)
        except ConfigError as problem:
            raise OrderError(f"the configuration is wrong, and nothing was changed: {problem}") from problem

    def _concerns(self, keys: Iterable[str]) -> list[str]:
        """Those of these keys that this process reads."""
        return [key for key in keys if self._role in READERS.get(key.partition(".")[0], frozenset({self._role}))]

    async def _diff(self) -> list[tuple[str, Any, Any]]:
        """Key, what runs, what the file says."""
        new = await self._read()
        old_values, new_values = shown(self._config), shown(new)
        return [(key, old_values[key], new_values[key]) for key in self._concerns(changed(self._config, new))]

    async def _reload(self) -> list[tuple[str, str]]:
        """Have the files' content count: certificates, and what of the configuration can; each key that differs, and
        "applied" or "restart"."""
        async with self._reading:
            new = await self._read()
            differ = self._concerns(changed(self._config, new))
            try:
                applied = self._adopt(new, differ)
            except CannotStart as problem:
                raise OrderError(f"the configuration is wrong, and nothing was changed: {problem}") from problem
            if "log.level" in differ:
                logs.set_level(new.log.level)
                applied = [*applied, "log.level"]
            self._process.hang_up()
            self._config = with_keys(self._config, new, applied)
            log.info("configuration_reloaded", count=len(applied))
            return [(key, "applied" if key in applied else "restart") for key in differ]

    # --- what is logged

    def _level(self, level: str, module: str, for_s: float | None) -> str:
        """Write that from now on, or for so long; returns what it was before."""
        before = logs.level_of(module)
        if (timer := self._timers.pop(module, None)) is not None:
            timer.cancel()
            before = self._before.pop(module)
        logs.set_level(level, module)
        if for_s is not None:
            self._before[module] = before
            self._timers[module] = asyncio.get_running_loop().call_later(for_s, partial(self._restore, module))
        log.warning("log_level_changed", reason=f"{level} {module or 'everywhere'}", seconds=for_s)
        return before or "as everywhere"

    def _restore(self, module: str) -> None:
        self._timers.pop(module, None)
        logs.set_level(self._before.pop(module), module)
        log.warning("log_level_changed", reason=f"as before {module or 'everywhere'}")
