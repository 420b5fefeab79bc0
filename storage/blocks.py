"""Block lists (XEP-0191)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from storage.rows import Connection


async def load(conn: Connection, owners: Sequence[int]) -> dict[int, set[str]]:
    """The JIDs that each of these accounts blocks."""
    cursor = await conn.execute("select owner, jid from blocks where owner = any (%s)", (list(owners),))
    found: dict[int, set[str]] = {owner: set() for owner in owners}
    for owner, jid in await cursor.fetchall():
        found[owner].add(jid)
    return found


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
