"""Blocklists of others as they were last seen (router/blocklists.py): so a router that starts knows them at once.

Whoever changes one tells all routers on the channel CHANNEL which it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from storage.rows import Connection, fetch_all, fetch_values

CHANNEL: Final = "stentor_blocklists"
REFRESH: Final = "*"  # told instead of a name: an operator wants all of them read anew


class Known(NamedTuple):
    """A list, how many are on it, and when it was read as a whole last, Unix seconds."""

    name: str
    entries: int
    refreshed_at: float


async def list_(conn: Connection) -> list[Known]:
    """All lists that were ever read."""
    return await fetch_all(
        conn,
        Known,
        """
        select name, cardinality(entries) as entries, extract(epoch from refreshed_at)::float8 as refreshed_at
        from blocklists order by name
        """,
    )


async def entries(conn: Connection, name: str) -> list[str]:
    """What is on a list."""
    return await fetch_values(conn, "select unnest(entries) from blocklists where name = %s", name)


async def replace(conn: Connection, name: str, found: Sequence[str], is_whole: bool) -> None:
    """This is on a list now; `is_whole`: all of it was read just now."""
    await conn.execute(
        """
        with kept as (
            insert into blocklists as b (name, entries, refreshed_at) values (%s, %s, now())
            on conflict (name) do update set entries = excluded.entries,
                refreshed_at = case when %s then now() else b.refreshed_at end
            returning name
        )
        select pg_notify(%s, name) from kept
        """,
        (name, list(found), is_whole, CHANNEL),
    )


async def want_refresh(conn: Connection) -> None:
    """An operator does not want to wait."""
    await conn.execute("select pg_notify(%s, %s)", (CHANNEL, REFRESH))


async def forget(conn: Connection, kept: Sequence[str]) -> None:
    """Lists that are followed no more go."""
    await conn.execute("delete from blocklists where name <> all (%s)", (list(kept),))
