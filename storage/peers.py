"""Other servers and components: how far what was sent to their domains has been handed over (router/peers.py)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from storage import entities
from storage.arrays import Int8
from storage.log import OUTBOUND, Row, above
from storage.rows import Connection, fetch_values

KIND = "peer"


class Peer(NamedTuple):
    """What the database knows of a domain: its key, the cursor, and the rows that are not handed over, in order."""

    key: int
    delivered: int
    rows: list[Row]


async def load(conn: Connection, domain: str, shard: int, limit: int) -> Peer:
    """A domain, which gets a key if it has none yet, with at most `limit` of the rows that wait."""
    key = await entities.key_of(conn, domain, shard, KIND)
    (delivered,) = await fetch_values(
        conn,
        """
        with made as (
            insert into peers (key, shard) values (%s, %s) on conflict (key) do nothing returning delivered
        )
        select delivered from made union all select delivered from peers where key = %s
        """,
        key,
        shard,
        key,
    )
    strays = await fetch_values(conn, "select unnest(strays) from peers where key = %s", key)
    return Peer(key, delivered, await above(conn, key, delivered, strays, limit))


async def set_delivered(conn: Connection, key: int, delivered: int, strays: Sequence[int]) -> None:
    """Everything up to `delivered` was handed over or given back, but for the ids in `strays`."""
    await conn.execute("update peers set delivered = %s, strays = %b where key = %s", (delivered, Int8(strays), key))


async def waiting(conn: Connection, shards: Iterable[int]) -> list[str]:
    """The domains of these shards for which something may wait."""
    return await fetch_values(
        conn,
        f"""
        select e.jid from peers p join entities e using (key) where p.shard = any (%s::int[]) and (p.strays <> '{{}}'
            or exists (select from log l where l.owner = p.key and l.class = {OUTBOUND} and l.id > p.delivered))
        order by e.jid
        """,
        list(shards),
    )
