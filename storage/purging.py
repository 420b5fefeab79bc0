"""Archives of accounts as operators see them: what is in them, and removing what is old."""

from __future__ import annotations

from typing import Final

from storage.log import ARCHIVE, FIELDS, Row
from storage.rows import Connection, fetch_value

#: What nobody waits for any more: of what came in, only what a client has got (`accounts.delivered`).
_GONE: Final = """
    l.owner = %s and l.class = %s and l.id < %s and (l.dir = 1 or (l.id <= a.delivered and l.id <> all (a.strays)))
"""


async def count(conn: Connection, owner: int, before: int) -> int:
    """How many rows of the archive of an account `delete` would remove."""
    found: int = await fetch_value(
        conn,
        f"select count(*) from log l join accounts a on a.key = l.owner where {_GONE}",
        owner, ARCHIVE, before,
    )  # fmt: skip
    return found


async def delete(conn: Connection, owner: int, before: int, limit: int) -> int:
    """Remove so many rows with ids below `before`, the oldest first; returns how many there were."""
    found: int = await fetch_value(
        conn,
        f"""
        with gone as (
            delete from log where (owner, id, class) in (
                select l.owner, l.id, l.class from log l join accounts a on a.key = l.owner
                where {_GONE} order by l.id limit %s
            ) returning 1
        ) select count(*) from gone
        """,
        owner, ARCHIVE, before, limit,
    )  # fmt: skip
    return found


async def page(conn: Connection, owner: int, above: int, limit: int) -> list[Row]:
    """What the archive of an account has above an id, in order."""
    cursor = await conn.execute(
        f"select {FIELDS} from log where owner = %s and class = %s and id > %s order by id limit %s",
        (owner, ARCHIVE, above, limit),
    )
    return [Row(*columns) for columns in await cursor.fetchall()]
