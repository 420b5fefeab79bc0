"""Block lists (XEP-0191)."""

from __future__ import annotations

from collections.abc import Iterable

from storage.rows import Connection, fetch_values


async def load(conn: Connection, owner: int) -> set[str]:
    """The JIDs that an account blocks."""
    return set(await fetch_values(conn, "select jid from blocks where owner = %s", owner))


async def add(conn: Connection, owner: int, jids: Iterable[str]) -> None:
    """Block these JIDs too."""
    await conn.execute(
        "insert into blocks (owner, jid) select %s, unnest(%s::text[]) on conflict do nothing", (owner, list(jids))
    )


async def remove(conn: Connection, owner: int, jids: Iterable[str]) -> None:
    """Block these JIDs no longer."""
    await conn.execute("delete from blocks where owner = %s and jid = any (%s::text[])", (owner, list(jids)))


async def clear(conn: Connection, owner: int) -> None:
    """Block nobody."""
    await conn.execute("delete from blocks where owner = %s", (owner,))
