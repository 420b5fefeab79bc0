"""What the database keeps for other domains: rows of the log until they were handed over, and a cursor."""

from __future__ import annotations

import time

from cluster.shards import shard_of
from storage import log, peers
from storage.log import ARCHIVE, OUTBOUND, TO_OWNER, Row, append_sql, columns, id_at
from storage.rows import Connection
from tests.support.database import asynchronous, connected
from xmpp.stanza import Stanza

VERONA, MANTUA = "verona.example", "mantua.example"


async def keep(conn: Connection, domain: str, *numbers: int, class_: int = OUTBOUND) -> list[int]:
    """Rows of these numbers in a domain's log; returns their ids."""
    peer = await peers.load(conn, domain, shard_of(domain), 0)
    head = log.pack_head(
        Stanza(1, "chat", f"friar@{domain}", "romeo@example.com/orchard", "1", None, 1, None, None, b"")
    )
    ids = [id_at(time.time()) + number for number in numbers]
    rows = [
        Row(
            shard_of(domain),
            peer.key,
            id_,
            class_,
            TO_OWNER,
            log.DONE,
            "romeo@example.com",
            7,
            number,
            head,
            b"<body/>",
        )
        for id_, number in zip(ids, numbers, strict=True)
    ]
    await conn.execute(append_sql("true"), columns(rows))
    return ids


@asynchronous
async def test_a_domain_gets_a_key_once_and_begins_with_nothing(database: str) -> None:
    async with connected(database) as conn:
        first = await peers.load(conn, VERONA, shard_of(VERONA), 10)
        again = await peers.load(conn, VERONA, shard_of(VERONA), 10)
        other = await peers.load(conn, MANTUA, shard_of(MANTUA), 10)
    assert first == again
    assert (first.delivered, first.rows) == (0, [])
    assert other.key != first.key


@asynchronous
async def test_what_is_beyond_the_cursor_and_what_strayed_waits(database: str) -> None:
    async with connected(database) as conn:
        await log.maintain(conn, time.time(), {})
        ids = await keep(conn, VERONA, 1, 2, 3, 4)
        key = (await peers.load(conn, VERONA, shard_of(VERONA), 0)).key
        await peers.set_delivered(conn, key, ids[2], [ids[0]])
        found = await peers.load(conn, VERONA, shard_of(VERONA), 10)
        assert found.delivered == ids[2]
        assert [row.id for row in found.rows] == [ids[0], ids[3]]
        assert found.rows[0].stanza.to == f"friar@{VERONA}"
        assert len((await peers.load(conn, VERONA, shard_of(VERONA), 1)).rows) == 1


@asynchronous
async def test_a_take_is_told_of_domains_for_which_something_waits(database: str) -> None:
    shards = [shard_of(VERONA), shard_of(MANTUA)]
    async with connected(database) as conn:
        await log.maintain(conn, time.time(), {})
        (first, last) = await keep(conn, VERONA, 1, 2)
        await keep(conn, MANTUA, 1, class_=ARCHIVE)
        assert await peers.waiting(conn, shards) == [VERONA]
        assert await peers.waiting(conn, shards[1:]) == []
        key = (await peers.load(conn, VERONA, shard_of(VERONA), 0)).key
        await peers.set_delivered(conn, key, last, [])
        assert await peers.waiting(conn, shards) == []
        await peers.set_delivered(conn, key, last, [first])
        assert await peers.waiting(conn, shards) == [VERONA]
