"""The one door through which a router's shell reaches PostgreSQL: reads, fenced commits, notifications."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar, get_args

from cluster import logs, metrics
from cluster.config import Database
from cluster.wire import Epoch, Shard
from storage import accounts, writer
from storage import log as rows_log
from storage.listen import Listener
from storage.pool import ErrorClass, Pool, Timeouts, classify, open_pool
from storage.rows import Connection

log = logs.get_logger()

T = TypeVar("T")

# Brings something for each of these accounts, by their keys.
Loader = Callable[[Connection, Sequence[accounts.Account]], Awaitable[Mapping[int, Any]]]
Whole = tuple[accounts.Account, tuple[Any, ...]]  # an account, and what each loader brought for it

CLOSE_S: Final = 2.0
OPERATIONS: Final = (
    "commit", "load", "accounts", "archive", "log", "nodes", "peers", "private", "rooms", "sessions", "shards",
    "vcards", "other",
)  # fmt: skip

_DOWN: Final = frozenset({"connection", "resources", "read_only"})

_up = metrics.gauge("stentor_db_up", "Whether the last use of the database succeeded")
_connections = metrics.gauge("stentor_db_pool_connections", "Connections of the pool", {"state": ["idle", "used"]})
_wait_seconds = metrics.histogram("stentor_db_pool_wait_seconds", "Time to get a connection from the pool")
_seconds = metrics.histogram(
    "stentor_db_query_seconds", "Time of one use of the database, the wait for a connection apart",
    {"operation": OPERATIONS},
)  # fmt: skip
_errors = metrics.counter(
    "stentor_db_errors_total", "Uses of the database that failed", {"class": get_args(ErrorClass)}
)
_seconds_of = {operation: _seconds.labels(operation) for operation in OPERATIONS}


class Store:
    """A pool of connections and what is done with it."""

    Committed = writer.Committed
    Fenced = writer.Fenced
    Refused = writer.Refused

    def __init__(self, pool: Pool, url: str, name: str) -> None:
        self._pool = pool
        self._url = url
        self._name = name
        self._listeners: list[asyncio.Task[None]] = []
        self._renewal: asyncio.Task[None] | None = None
        self._is_up = True
        _up.set_function(lambda: float(self._is_up))
        _connections.labels("idle").set_function(lambda: pool.get_stats().get("pool_available", 0))
        _connections.labels("used").set_function(self._used)

    @classmethod
    async def open(cls, config: Database, name: str) -> Store:
        """Connect as the process called `name`. Raises StorageError where the database may not be used as it is, and
        what `is_away` recognises: then try again."""
        pool = await open_pool(
            config.url,
            name=name,
            size=config.pool_max,
            min_size=config.pool_min,
            timeouts=Timeouts(config.connect_timeout_s, config.statement_timeout_s, config.lock_timeout_s),
        )
        return cls(pool, config.url, name)

    async def close(self) -> None:
        """Give all connections back."""
        tasks = [*self._listeners, *([self._renewal] if self._renewal is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._pool.close(timeout=CLOSE_S)

    @property
    def up(self) -> bool:
        """Whether the last use of the database succeeded."""
        return self._is_up

    def _used(self) -> float:
        stats = self._pool.get_stats()
        return stats.get("pool_size", 0) - stats.get("pool_available", 0)

    # --- using it; each raises what `is_away` recognises where the database is away

    async def run(self, statement: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Run a repository function, outside any transaction: it is one statement."""
        operation = statement.__module__.rpartition(".")[2]
        return await self._use(operation, lambda conn: statement(conn, *arguments))

    async def load(self, bares: Sequence[str], loaders: Sequence[Loader]) -> dict[str, Whole]:
        """Accounts, as far as there are such, and what each loader brings for them. Nobody else changes them meanwhile:
        their owner asks."""

        async def work(conn: Connection) -> dict[str, Whole]:
            found = await accounts.find_all(conn, bares)
            brought = [await loader(conn, found) for loader in loaders] if found else []
            return {one.jid: (one, tuple([values[one.key] for values in brought])) for one in found}

        return await self._use("load", work)

    async def commit(
        self,
        owner: str,
        fence: Mapping[Shard, Epoch],
        writes: Sequence[writer.Write],
        rows: Sequence[rows_log.Row] = (),
    ) -> writer.Outcome:
        """One fenced transaction (`storage/writer.py`)."""
        return await self._use("commit", lambda conn: writer.commit(conn, owner, fence, writes, rows))

    async def _use(self, operation: str, work: Callable[[Connection], Awaitable[T]]) -> T:
        started = time.monotonic()
        try:
            async with self._pool.connection() as conn:
                got = time.monotonic()
                _wait_seconds.observe(got - started)
                value = await work(conn)
        except Exception as problem:
            kind = classify(problem)
            _errors.labels(kind).inc()
            if kind in _DOWN:
                self._is_up = False
            if kind == "connection":
                self._renew()
            raise
        self._is_up = True
        _seconds_of.get(operation, _seconds_of["other"]).observe(time.monotonic() - got)
        return value

    def _renew(self) -> None:
        """After a restart of the database every idle connection is dead: replace them all, not one for each error."""
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.get_running_loop().create_task(self._pool.check())

    # --- notifications

    async def listen(self, channel: str, heard: Callable[[str], None]) -> None:
        """Call `heard(payload)` for each notification from now on; `heard("")` where some may have been missed."""
        listener = Listener(self._url, channel, heard, name=self._name)
        self._listeners.append(asyncio.get_running_loop().create_task(listener.run()))
