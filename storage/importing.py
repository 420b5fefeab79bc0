"""What is written of data that comes from another server: only where there is nothing yet. Every write may be
repeated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from storage.log import ARCHIVE, FIELDS, QUEUE, Row
from storage.pubsub import Item
from storage.rows import Connection, fetch_value, fetch_values

SID: Final = 0  # of a row that came from elsewhere: no session of ours has sent it
ARCHIVED: Final = 0  # its `n`
AT_ONCE: Final = 1_000
WAITED: Final = 1  # the same, of one that had not been read there


async def rows_between(conn: Connection, owner: int, ranges: Sequence[tuple[int, int]]) -> list[Row]:
    """The rows of one owner with ids in these ranges (both ends included), archived or queued; or also some between
    them, for mostly they are next to each other, and one range costs less than many."""
    least, most = min(least for least, _ in ranges), max(most for _, most in ranges)
    cursor = await conn.execute(
        f"""
        select {FIELDS} from log where owner = %s and class in ({QUEUE}, {ARCHIVE}) and id between %s and %s
        order by id limit {AT_ONCE + 1}
        """,
        (owner, least, most),
        binary=True,
    )
    rows = [Row._make(row) for row in await cursor.fetchall()]
    if len(rows) <= AT_ONCE:
        return rows
    cursor = await conn.execute(
        f"""
        select {", ".join(f"l.{name}" for name in FIELDS.split(", "))} from
            (select distinct * from unnest(%s::int8[], %s::int8[]) r (least, most)) r cross join lateral (
                select * from log where log.owner = %s and log.class in ({QUEUE}, {ARCHIVE})
                    and log.id between r.least and r.most
            ) l order by l.id
        """,
        ([least for least, _ in ranges], [most for _, most in ranges], owner),
        binary=True,
    )
    found = {row[2]: Row._make(row) for row in await cursor.fetchall()}
    return list(found.values())


async def note_waited(conn: Connection, owner: int, ids: Sequence[int]) -> None:
    """These rows came from elsewhere, where they had not been read: here they wait, once."""
    await conn.execute(
        f"update log set n = {WAITED} where owner = %s and id = any (%s::int8[]) and sid = {SID}", (owner, list(ids))
    )


async def add_vcard(conn: Connection, owner: int, xml: bytes) -> None:
    """A vCard, of somebody who has none."""
    await conn.execute("insert into vcards (owner, xml) values (%s, %s) on conflict do nothing", (owner, xml))


async def private_names(conn: Connection, owner: int) -> list[str]:
    """What an account keeps in private storage."""
    return await fetch_values(conn, "select name from private_xml where owner = %s", owner)


async def add_private(conn: Connection, owner: int, name: str, xml: bytes) -> None:
    """An element of private storage, of a name that is not there."""
    await conn.execute(
        "insert into private_xml (owner, name, xml) values (%s, %s, %s) on conflict do nothing", (owner, name, xml)
    )


async def item_ids(conn: Connection, node: int, ids: Sequence[str]) -> list[str]:
    """Those of these items that a node has."""
    return await fetch_values(
        conn, "select id from pubsub_items where node = %s and id = any (%s::text[])", node, list(ids)
    )


async def items_below(conn: Connection, node: int, seq: int) -> int:
    """How many items a node has that are newer than this place."""
    found: int = await fetch_value(conn, "select count(*) from pubsub_items where node = %s and seq > %s", node, seq)
    return found


async def add_item(conn: Connection, node: int, item: Item) -> None:
    """An item, of a name that is not there."""
    await conn.execute(
        """
        insert into pubsub_items (node, id, seq, publisher, sid, n, payload)
        select %s, %s, %s, %s, 0, 0, %s where exists (select from pubsub_nodes where key = %s)
        on conflict do nothing
        """,
        (node, item.id, item.seq, item.publisher, item.payload, node),
    )
