"""What the database keeps of rooms: each write may be repeated, each read finds what was written."""

from __future__ import annotations

import time

from cluster.shards import shard_of
from storage import log, rooms
from storage.log import ARCHIVE, TO_OWNER, Row, append_sql, columns, id_at
from storage.rooms import AffiliationRow, OccupantRow, PublicRoom
from storage.rows import Connection
from tests.support.database import asynchronous, connected
from xmpp import stanza as stanzas

ROOM = "verona@conference.example.com"
ROMEO, JULIET = "romeo@example.com/orchard", "juliet@example.com/balcony"
MEMBER, OWNER = 2, 4


async def made(conn: Connection, bare: str = ROOM, config: str = '{"publicroom": true, "roomname": "Verona"}') -> int:
    """A room; returns its key."""
    key = await rooms.make(conn, bare, shard_of(bare))
    assert await rooms.make(conn, bare, shard_of(bare)) == key
    for _ in range(2):
        await rooms.create(conn, key, shard_of(bare), 7, config)
    return key


@asynchronous
async def test_everything_about_a_room_comes_back(database: str) -> None:
    async with connected(database) as conn:
        await log.maintain(conn, time.time(), {})
        assert await rooms.load(conn, ROOM, 10) is None
        key = await made(conn)
        subject = stanzas.message(to=None, from_=f"{ROOM}/romeo", type="groupchat", inner=b"<subject>Balcony</subject>")
        for _ in range(2):
            await rooms.set_subject(conn, key, rooms.packed(subject))
            await rooms.set_affiliation(conn, key, "romeo@example.com", OWNER, "romeo", "his own", 1)
            await rooms.save_occupant(conn, key, ROMEO, "romeo", 3, 11, b"presence", 5)
            await rooms.save_occupant(conn, key, JULIET, "juliet", 0, 12, None, 9)
        found = await rooms.load(conn, ROOM, 10)
        assert found is not None
        assert found.room is not None
        assert (found.key, found.room.origin, found.room.config["roomname"]) == (key, 7, "Verona")
        assert found.room.subject is not None
        assert rooms.unpacked(found.room.subject) == subject
        assert found.affiliations == [AffiliationRow("romeo@example.com", OWNER, "romeo", 1)]
        assert found.occupants == [
            OccupantRow(ROMEO, "romeo", 3, 11, b"presence", 5),
            OccupantRow(JULIET, "juliet", 0, 12, None, 9),
        ]
        assert (found.history, found.last_id) == ([], 9)


@asynchronous
async def test_the_newest_messages_come_with_it_the_oldest_first(database: str) -> None:
    async with connected(database) as conn:
        await log.maintain(conn, time.time(), {})
        key = await made(conn)
        message = stanzas.message(to=None, from_=f"{ROOM}/romeo", type="groupchat")
        ids = [id_at(time.time()) + number for number in range(5)]
        rows = [
            Row(
                shard_of(ROOM),
                key,
                id_,
                ARCHIVE,
                TO_OWNER,
                log.DONE,
                "romeo@example.com",
                7,
                n,
                log.pack_head(message),
                b"",
            )
            for n, id_ in enumerate(ids)
        ]
        await conn.execute(append_sql("true"), columns(rows))
        found = await rooms.load(conn, ROOM, 3)
        assert found is not None
        assert [row.id for row in found.history] == ids[2:]
        assert found.last_id == ids[-1]


@asynchronous
async def test_rooms_are_found_by_their_shards_while_somebody_is_in_them(database: str) -> None:
    async with connected(database) as conn:
        await log.maintain(conn, time.time(), {})
        key = await made(conn)
        shards = [shard_of(ROOM)]
        assert await rooms.with_occupants(conn, shards) == []
        await rooms.save_occupant(conn, key, ROMEO, "romeo", 3, 11, None, 5)
        assert await rooms.with_occupants(conn, shards) == [ROOM]
        assert await rooms.with_occupants(conn, [(shards[0] + 1) % 1024]) == []
        await rooms.save_occupant(conn, key, ROMEO, "romeo", 0, 11, None, 6)
        assert await rooms.with_occupants(conn, shards) == []
        await rooms.forget_left(conn, key, 7)
        found = await rooms.load(conn, ROOM, 0)
        assert found is not None
        assert found.occupants == []


@asynchronous
async def test_public_rooms_are_listed_by_pages(database: str) -> None:
    async with connected(database) as conn:
        await log.maintain(conn, time.time(), {})
        for name in ("a", "b", "c"):
            key = await made(conn, f"{name}@conference.example.com")
            await rooms.save_occupant(conn, key, ROMEO, "romeo", 3, 11, None, 5)
        await made(conn, "hidden@conference.example.com", '{"publicroom": false}')
        await made(conn, "d@conference.elsewhere.example")
        listed = await rooms.public(conn, "conference.example.com", "a@conference.example.com", 1)
        assert listed == [PublicRoom("b@conference.example.com", "Verona", 1)]
        everything = await rooms.public(conn, "conference.example.com", "", 10)
        assert [room.jid.partition("@")[0] for room in everything] == ["a", "b", "c"]


@asynchronous
async def test_nothing_is_left_of_a_room_that_was_destroyed(database: str) -> None:
    async with connected(database) as conn:
        await log.maintain(conn, time.time(), {})
        key = await made(conn)
        await rooms.set_config(conn, key, '{"publicroom": false}')
        await rooms.set_affiliation(conn, key, "romeo@example.com", MEMBER, None, "", 1)
        await rooms.save_occupant(conn, key, ROMEO, "romeo", 3, 11, None, 5)
        for _ in range(2):
            await rooms.destroy(conn, key)
        found = await rooms.load(conn, ROOM, 10)
        assert found is not None
        assert found == (key, None, [], [], [], 0, [])
