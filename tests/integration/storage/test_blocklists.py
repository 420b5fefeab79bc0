"""Blocklists of others, as they were read last (storage/blocklists.py)."""

from __future__ import annotations

import asyncio

from storage import blocklists
from storage.listen import Listener
from tests.support.database import asynchronous, connected


@asynchronous
async def test_a_list_is_kept_as_it_was_read_last(database: str) -> None:
    async with connected(database) as conn:
        assert await blocklists.list_(conn) == []
        await blocklists.replace(conn, "a.example/bans", ["x", "y"], True)
        (first,) = await blocklists.list_(conn)
        assert (first.name, first.entries) == ("a.example/bans", 2)
        assert await blocklists.entries(conn, "a.example/bans") == ["x", "y"]
        await blocklists.replace(conn, "a.example/bans", ["y"], False)
        (changed,) = await blocklists.list_(conn)
        assert (changed.entries, changed.refreshed_at) == (1, first.refreshed_at)
        await blocklists.replace(conn, "a.example/bans", [], True)
        (again,) = await blocklists.list_(conn)
        assert again.entries == 0
        assert again.refreshed_at > first.refreshed_at
        assert await blocklists.entries(conn, "b.example/bans") == []
        await blocklists.forget(conn, ["b.example/bans"])
        assert await blocklists.list_(conn) == []


@asynchronous
async def test_everybody_is_told_which_list_has_changed(database: str) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    task = asyncio.create_task(Listener(database, blocklists.CHANNEL, heard.put_nowait, name="test").run())
    try:
        assert await heard.get() == ""
        async with connected(database) as conn:
            await blocklists.replace(conn, "a.example/bans", ["x"], True)
            await blocklists.want_refresh(conn)
        assert [await heard.get() for _ in range(2)] == ["a.example/bans", blocklists.REFRESH]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
