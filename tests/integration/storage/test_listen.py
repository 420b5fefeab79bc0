"""Notifications: heard, heard of again after a lost connection, and sent by those who change something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cluster.wire import Epoch, Shard
from storage import listen, nodes, shards
from storage.listen import CHANNEL, Listener
from storage.nodes import NodeRow
from storage.rows import Connection, fetch_values
from tests.support.database import asynchronous, connected


@asynccontextmanager
async def listening(url: str, echo_s: float = listen.ECHO_S) -> AsyncIterator[asyncio.Queue[str]]:
    """What is heard, from the first connect on, whose empty word is taken out already."""
    heard: asyncio.Queue[str] = asyncio.Queue()
    task = asyncio.create_task(Listener(url, CHANNEL, heard.put_nowait, name="test", echo_s=echo_s).run())
    try:
        assert await heard.get() == ""
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def listeners(conn: Connection) -> list[int]:
    return await fetch_values(
        conn,
        """
        select pid from pg_stat_activity
        where application_name = 'stentor test listener' and datname = current_database()
        """,
    )


@asynchronous
async def test_what_is_notified_is_heard_once_and_the_echo_is_not(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = listen.notify
    echoes = asyncio.Semaphore(0)

    async def count(conn: Connection, channel: str, payload: str) -> None:
        await send(conn, channel, payload)
        echoes.release()

    monkeypatch.setattr(listen, "notify", count)
    async with listening(database, echo_s=0.05) as heard, connected(database) as conn:
        for payload in ("one", "two", ""):
            await send(conn, CHANNEL, payload)
            assert await heard.get() == payload
        async with conn.transaction(force_rollback=True):
            await send(conn, CHANNEL, "never")
        for _ in range(5):
            await echoes.acquire()
        assert heard.empty()


@asynchronous
async def test_a_terminated_connection_is_replaced(database: str) -> None:
    async with listening(database) as heard, connected(database) as conn:
        (old,) = await listeners(conn)
        await conn.execute("select pg_terminate_backend(%s)", (old,))
        assert await heard.get() == ""  # look: something may have been missed
        await listen.notify(conn, CHANNEL, "news")
        assert await heard.get() == "news"
        (new,) = await listeners(conn)
        assert new != old


@asynchronous
async def test_a_connection_that_hears_nothing_is_replaced(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    send = listen.notify
    is_cut = True

    async def lose(conn: Connection, channel: str, payload: str) -> None:
        if not is_cut:
            await send(conn, channel, payload)

    monkeypatch.setattr(listen, "notify", lose)
    async with listening(database, echo_s=0.05) as heard, connected(database) as conn:
        (old,) = await listeners(conn)
        assert await heard.get() == ""
        is_cut = False
        while heard.qsize():
            heard.get_nowait()
        await send(conn, CHANNEL, "news")
        while await heard.get() != "news":
            pass
        assert old not in await listeners(conn)


@asynchronous
async def test_shards_and_nodes_tell_of_their_changes(database: str) -> None:
    me = NodeRow.of(name="router-0", incarnation="router-0#a", role="router", address="ipc://x", wire=1)
    async with listening(database) as heard, connected(database) as conn:
        await nodes.register(conn, me)
        assert await heard.get() == "router-0"
        await nodes.beat(conn, me.incarnation, False)
        await nodes.beat(conn, me.incarnation, True)
        assert await heard.get() == "router-0"
        await nodes.beat(conn, me.incarnation, True)
        expected = {Shard(shard): (None, Epoch(0)) for shard in (1, 2, 3)}
        fence = await shards.take(conn, me.incarnation, expected)
        assert await heard.get() == ""
        assert await shards.take(conn, me.incarnation, expected) == {}
        await shards.release(conn, me.incarnation, fence, "router-1#b")
        assert await heard.get() == ""
        await nodes.remove(conn, me.incarnation)
        assert await heard.get() == "router-0"
        await listen.notify(conn, CHANNEL, "last")
        assert await heard.get() == "last"  # idle heartbeats and failed takes told nothing
