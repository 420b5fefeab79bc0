"""Accounts that last as long as their session (XEP-0175). They end as all others do (`storage/erasures.py`)."""

from __future__ import annotations

from typing import NamedTuple

from storage.rows import Connection, fetch_one, fetch_values


class Count(NamedTuple):
    """Guests of a domain, and those of one network."""

    all: int
    of_network: int


async def add(conn: Connection, jid: str, network: str) -> None:
    """The account, which was made in this transaction, is a guest's."""
    await conn.execute(
        """
        insert into guests (key, jid, shard, domain, network)
        select a.key, e.jid, a.shard, split_part(e.jid, '@', 2), %s from entities e join accounts a using (key)
        where e.jid = %s
        on conflict do nothing
        """,
        (network, jid),
    )


async def count(conn: Connection, domain: str, network: str, but: str) -> Count:
    """How many there are, one JID not counted."""
    found = await fetch_one(
        conn, Count,
        """
        select count(*) as all, count(*) filter (where network = %s) as of_network from guests
        where domain = %s and jid <> %s
        """,
        network, domain, but,
    )  # fmt: skip
    assert found is not None
    return found


async def forsaken(conn: Connection, seconds: float) -> list[str]:
    """Guests without a session that signed in longer ago: their client went before it had one."""
    return await fetch_values(
        conn,
        """
        select g.jid from guests g
        where g.at < now() - make_interval(secs => %s)
            and not exists (select from sessions s where s.shard = g.shard and s.owner = g.key)
        order by g.at limit 500
        """,
        seconds,
    )
