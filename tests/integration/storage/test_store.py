"""The door to the database: what is refused at the start, what comes back after a cut, what is measured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client import REGISTRY

from cluster.config import Database
from cluster.shards import shard_of
from cluster.wire import Epoch, Shard
from router.feature import by_key
from storage import accounts, blocks, listen, nodes, private, push, sessions, shards
from storage.embedded import EmbeddedPostgres
from storage.pool import StorageError, clock_ms, is_away, open_pool
from storage.rows import Connection, fetch_value
from storage.sessions import SessionRow
from storage.store import Store
from storage.writer import Write
from tests.support.database import asynchronous, connected, eventually, with_database

ME = "router-0#a"


@asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[Store]:
    store = await Store.open(Database(url=url, **settings), "router-0")
    try:
        yield store
    finally:
        await store.close()


def sample(name: str, **labels: str) -> float:
    value = REGISTRY.get_sample_value(name, labels)
    assert value is not None
    return value


# --- at the start


@asynchronous
async def test_a_database_that_forgets_commits_is_refused(database: str, postgres: str) -> None:
    name = database.rpartition("/")[2]
    async with connected(postgres) as conn:
        await conn.execute(f"alter database {name} set synchronous_commit = off")
    with pytest.raises(StorageError, match=r"has synchronous_commit off.*Set synchronous_commit = on"):
        await open_pool(database, size=2, name="test")
    async with connected(postgres) as conn:
        await conn.execute(f"alter database {name} set synchronous_commit = local")
    await (await open_pool(database, size=2, name="test")).close()


@asynchronous
async def test_a_server_without_fsync_is_refused(database: str, postgres: str) -> None:
    async with connected(postgres) as conn:

        async def is_set(value: str) -> bool:
            async with connected(postgres) as other:
                return bool(await fetch_value(other, "select current_setting('fsync') = %s", value))

        async def fsync(value: str) -> None:
            await conn.execute(f"alter system set fsync = {value}")
            await conn.execute("select pg_reload_conf()")
            await eventually(lambda: is_set(value), 5, f"fsync is {value}")

        await fsync("off")
        try:
            with pytest.raises(StorageError, match=r"has fsync off.*Set fsync = on"):
                await open_pool(database, size=2, name="test")
        finally:
            await fsync("on")


@asynchronous
async def test_a_database_of_another_encoding_is_refused(postgres: str) -> None:
    async with connected(postgres) as conn:
        await conn.execute("create database latin encoding 'LATIN1' template template0")
        with pytest.raises(StorageError, match=r"encoding is LATIN1.*Create it with"):
            await open_pool(with_database(postgres, "latin"), size=2, name="test")
        await conn.execute("drop database latin with (force)")


@asynchronous
async def test_a_database_that_is_not_there_is_away(postgres: str) -> None:
    for url in (with_database(postgres, "nowhere"), "postgresql://u:p@127.0.0.1:1/x"):
        with pytest.raises(psycopg.OperationalError) as caught:
            await open_pool(url, size=2, name="test")
        assert is_away(caught.value)


# --- in use


@asynchronous
async def test_connections_have_bounds_and_a_name(database: str) -> None:
    async def settings(conn: Connection) -> list[str]:
        names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "application_name")
        return [await fetch_value(conn, "select current_setting(%s)", name) for name in names]

    async with opened(database, statement_timeout_s=7, lock_timeout_s=0.25) as store:
        assert await store.run(settings) == ["7s", "250ms", "7s", "stentor router-0"]


@asynchronous
async def test_reads_loads_and_commits(database: str) -> None:
    bare = "a@x.lit"
    async with opened(database) as store:
        load_blocks, load_push = by_key(blocks.load), by_key(push.load)
        assert await store.load([bare], [load_blocks]) == {}
        fence = await store.run(shards.take, ME, {shard_of(bare): (None, Epoch(0))})
        create: list[Write] = [(accounts.create, (bare, shard_of(bare), ()))]
        assert await store.commit(ME, fence, create) == Store.Committed()
        ((account, nothing),) = (await store.load([bare], [])).values()
        assert nothing == ()
        writes: list[Write] = [(blocks.add, (account.key, ["b@x"])), (private.put, (account.key, "ns a", b"<a/>"))]
        assert await store.commit(ME, fence, writes) == Store.Committed()
        found = await store.load([bare, "nobody@x.lit"], [load_blocks, load_push])
        assert found == {bare: (account, ({"b@x"}, []))}
        stale = {shard: Epoch(epoch - 1) for shard, epoch in fence.items()}
        assert await store.commit(ME, stale, writes) == Store.Fenced(frozenset(fence))
        match await store.commit(ME, fence, [*writes, (blocks.add, (2**70, ["c@x"]))]):
            case Store.Refused(index, error):
                assert (index, type(error)) == (2, psycopg.errors.NumericValueOutOfRange)
            case other:
                pytest.fail(f"{other}")


@asynchronous
async def test_every_connection_survives_a_cut(database: str) -> None:
    async with opened(database, pool_min=4, pool_max=4) as store, connected(database) as conn:
        await asyncio.gather(*(store.run(clock_ms) for _ in range(4)))
        await conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'stentor router-0'"
        )
        with pytest.raises(psycopg.OperationalError) as caught:
            await store.run(clock_ms)
        assert is_away(caught.value)
        assert sample("stentor_db_up") == 0

        async def is_back() -> bool:
            try:
                await asyncio.gather(*(store.run(clock_ms) for _ in range(4)))
            except psycopg.OperationalError:
                return False
            return True

        await eventually(is_back, 5, "all connections are new")
        assert sample("stentor_db_up") == 1


@asynchronous
async def test_a_restart_of_the_server_is_survived(tmp_path: Path) -> None:
    first = EmbeddedPostgres(tmp_path)
    url = await first.start()
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with opened(url) as store:
        await store.listen("stentor", heard.put_nowait)
        assert await heard.get() == ""
        await first.stop()
        with pytest.raises(psycopg.OperationalError):
            await store.run(clock_ms)
        assert not store.up
        port = int(url.rpartition(":")[2].partition("/")[0])
        second = EmbeddedPostgres(tmp_path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("storage.embedded._free_port", lambda: port)
            await second.start()

        async def is_back() -> bool:
            try:
                return await store.run(clock_ms) > 0
            except psycopg.OperationalError:
                return False

        await eventually(is_back, 5, "the store works again")
        assert await heard.get() == ""
        async with connected(url) as conn:
            await listen.notify(conn, "stentor", "news")
        assert await heard.get() == "news"
    await second.stop()


@asynchronous
async def test_a_full_pool_is_away_and_counted(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.pool.WAIT_S", 0.1)
    async with opened(database, pool_min=1, pool_max=1) as store:
        held = asyncio.Event()

        async def hold(conn: Connection) -> None:
            held.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(store.run(hold))
        await held.wait()
        assert sample("stentor_db_pool_connections", state="used") == 1
        failures = sample("stentor_db_errors_total", **{"class": "connection"})
        with pytest.raises(psycopg.OperationalError) as caught:
            await store.run(clock_ms)
        assert is_away(caught.value)
        assert sample("stentor_db_errors_total", **{"class": "connection"}) == failures + 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynchronous
async def test_what_takes_how_long_is_measured(database: str) -> None:
    def count(operation: str) -> float:
        return sample("stentor_db_query_seconds_count", operation=operation)

    before = {name: count(name) for name in ("commit", "load", "nodes", "shards", "sessions", "other")}
    row = SessionRow(1, 1, 1, "a@x", "r", "c2s-0#a", 1, "", 0.0)
    async with opened(database) as store:
        await store.run(nodes.list_)
        await store.run(clock_ms)
        fence = await store.run(shards.take, ME, {Shard(1): (None, Epoch(0))})
        await store.commit(ME, fence, [(sessions.save, (row,))])
        assert await store.run(sessions.load_shards, [1]) == [row]
        await store.load(["a@x"], [])
        waits = sample("stentor_db_pool_wait_seconds_count")
        assert waits >= 6
    assert {name: count(name) - number for name, number in before.items()} == dict.fromkeys(before, 1)
