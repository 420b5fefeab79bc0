"""The one door through which a router's shell reaches PostgreSQL: reads, fenced commits, notifications."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import psycopg
from psycopg import AsyncConnection

from cluster import logs, metrics
from cluster.config import Database
from storage import accounts, writer
from storage.pool import Connection, Pool, connection_options, is_away, open_pool

log = logs.get_logger()

T = TypeVar("T")
Statement = Callable[..., Awaitable[Any]]
ECHO_S: Final = 10.0  # the listening connection notifies itself so often, and is replaced if it does not hear it

_OPERATIONS: Final = ("read", "commit", "load")
_seconds = metrics.histogram(
    "stentor_db_query_seconds", "Time of one use of the database", {"operation": list(_OPERATIONS)}
)
_wait_seconds = metrics.histogram("stentor_db_pool_wait_seconds", "Time to get a connection from the pool")
_errors = metrics.counter(
    "stentor_db_errors_total", "Uses of the database that failed", {"class": ["away", "refused", "fenced"]}
)


class Store:
    """A pool of connections and what is done with it."""

    Committed = writer.Committed
    Fenced = writer.Fenced
    Refused = writer.Refused

    def __init__(self, pool: Pool, url: str, options: Mapping[str, Any]) -> None:
        self._pool = pool
        self._url = url
        self._options = dict(options)
        self._listener: asyncio.Task[None] | None = None
        self.is_up = True

    @classmethod
    async def open(cls, config: Database, name: str) -> Store:
        """Connect; raises what connecting raises (`is_away` tells), or StorageError."""
        pool = await open_pool(
            config.url,
            name=name,
            least=config.pool_min,
            most=config.pool_max,
            statement_s=config.statement_timeout_s,
            lock_s=config.lock_timeout_s,
            connect_s=config.connect_timeout_s,
        )
        options = connection_options(
            name,
            statement_s=config.statement_timeout_s,
            lock_s=config.lock_timeout_s,
            connect_s=config.connect_timeout_s,
        )
        store = cls(pool, config.url, options)
        store._export()
        return store

    async def close(self) -> None:
        """Give all connections back."""
        if self._listener is not None:
            self._listener.cancel()
        await self._pool.close(timeout=2.0)

    def _export(self) -> None:
        stats = self._pool.get_stats
        metrics.sampled_gauge("stentor_db_up", "1 while the database answers", (), {(): lambda: float(self.is_up)})
        metrics.sampled_gauge(
            "stentor_db_pool_connections",
            "Connections of the pool",
            ("state",),
            {
                ("open",): lambda: stats().get("pool_size", 0),
                ("idle",): lambda: stats().get("pool_available", 0),
                ("wanted",): lambda: stats().get("requests_waiting", 0),
            },
        )

    # --- using it

    async def run(self, statement: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Run a repository function in a transaction of its own."""

        async def work(conn: Connection) -> T:
            async with conn.transaction():
                return await statement(conn, *arguments)

        return await self._use("read", work)

    async def load(
        self, bare: str, loaders: Sequence[Callable[[Connection, int], Awaitable[Any]]]
    ) -> tuple[accounts.Account | None, tuple[Any, ...]]:
        """An account and what the features' loaders bring for it, in one consistent look."""

        async def work(conn: Connection) -> tuple[accounts.Account | None, tuple[Any, ...]]:
            async with conn.transaction():
                account = await accounts.find(conn, bare)
                if account is None:
                    return None, ()
                return account, tuple([await loader(conn, account.key) for loader in loaders])

        return await self._use("load", work)

    async def commit(
        self, owner: str, fence: Mapping[int, int], writes: Sequence[tuple[Statement, tuple[Any, ...]]]
    ) -> writer.Outcome:
        """One fenced transaction (storage/writer.py)."""
        outcome = await self._use("commit", lambda conn: writer.commit(conn, owner, fence, writes))
        if isinstance(outcome, writer.Fenced):
            _errors.labels("fenced").inc()
        elif isinstance(outcome, writer.Refused):
            _errors.labels("refused").inc()
        return outcome

    async def _use(self, operation: str, work: Callable[[Connection], Awaitable[T]]) -> T:
        started = time.monotonic()
        try:
            async with self._pool.connection() as conn:
                got = time.monotonic()
                _wait_seconds.observe(got - started)
                value = await work(conn)
                _seconds.labels(operation).observe(time.monotonic() - got)
        except (psycopg.Error, OSError) as problem:
            self.is_up = not is_away(problem)
            _errors.labels("away" if is_away(problem) else "refused").inc()
            raise
        self.is_up = True
        return value

    # --- notifications

    async def listen(self, channel: str, heard: Callable[[str], None]) -> None:
        """Call `heard(payload)` for each notification; after a lost connection, once with "" because some were missed."""
        self._listener = asyncio.create_task(self._listen(channel, heard))

    async def _listen(self, channel: str, heard: Callable[[str], None]) -> None:
        while True:
            try:
                async with await AsyncConnection.connect(self._url, **self._options) as conn:
                    await conn.execute(f"LISTEN {channel}".encode())
                    heard("")
                    await self._hear(conn, channel, heard)
            except (psycopg.Error, OSError) as problem:
                log.warning("listener_reconnects", problem=str(problem).splitlines()[0] if str(problem) else "")
            await asyncio.sleep(random.uniform(0.2, 1.0))

    @staticmethod
    async def _hear(conn: Connection, channel: str, heard: Callable[[str], None]) -> None:
        """Until the connection no longer proves itself: it notifies itself and must hear that."""
        while True:
            await conn.execute("SELECT pg_notify(%s, 'echo')", (channel,))
            has_echo = False
            async for notify in conn.notifies(timeout=ECHO_S):
                if notify.payload == "echo":
                    has_echo = True
                else:
                    heard(notify.payload)
            if not has_echo:
                raise TimeoutError("the listening connection does not hear itself")
