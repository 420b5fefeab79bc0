"""What the database keeps of rooms: each write may be repeated, each read finds what was written."""

from __future__ import annotations

import time

from cluster.shards import shard_of
from storage import archive, groups, log, rooms
from storage.archive import Query
from storage.log import ARCHIVE, GROUP, TO_OWNER, Row, Wanted, append_sql, columns, id_at
from storage.rooms import AffiliationRow, OccupantRow, PublicRoom
from storage.rows import Connection, fetch_value
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


def row(owner: int, id_: int, class_: int = ARCHIVE, peer: str = ROOM) -> Row:
    message = stanzas.message(to=None, from_=f"{ROOM}/romeo", type="groupchat")
    head = log.pack_head(message)
    return Row(shard_of(ROOM), owner, id_, class_, TO_OWNER, log.DONE, peer, 7, id_, head, b"<body>hear</body>")


@asynchronous
async def test_what_others_may_not_have_is_found_where_there_are_others(database: str) -> None:
    async with connected(database) as conn:
        await log.maintain(conn, time.time(), {})
        key = await made(conn)
        ids = [id_at(time.time()) + number for number in range(4)]
        await conn.execute(append_sql("true"), columns([row(key, id_) for id_ in ids]))
        for id_ in (ids[1], ids[0]):
            await rooms.set_handed_over(conn, key, id_)  # it never falls
        found = await rooms.load(conn, ROOM, 0)
        assert found is not None
        assert found.room is not None
        assert (found.room.handed_over, found.not_handed_over) == (ids[1], [])
        kept = await rooms.load(conn, ROOM, 0, lambda _: True)
        assert kept is not None
        assert [late.id for late in kept.not_handed_over] == ids[2:]
        await rooms.save_occupant(conn, key, "paris@far.example/home", "paris", 2, 0, None, ids[3])
        there = await rooms.load(conn, ROOM, 0)
        assert there is not None
        assert [late.id for late in there.not_handed_over] == ids[2:]


@asynchronous
async def test_pictures_and_hats_come_back(database: str) -> None:
    async with connected(database) as conn:
        await log.maintain(conn, time.time(), {})
        key = await made(conn)
        for _ in range(2):
            await rooms.set_photos(conn, key, ["a" * 40])
            await rooms.set_hats(conn, key, '{"known": [["u", "t", ""]], "worn": {}}')
        found = await rooms.load(conn, ROOM, 0)
        assert found is not None
        assert found.room is not None
        assert (found.room.photos, found.room.hats) == (["a" * 40], {"known": [["u", "t", ""]], "worn": {}})


@asynchronous
async def test_a_tombstone_stands_where_the_message_was(database: str) -> None:
    async with connected(database) as conn:
        await log.maintain(conn, time.time(), {})
        key = await made(conn)
        id_ = id_at(time.time())
        await conn.execute(append_sql("true"), columns([row(key, id_), row(key + 1, id_)]))
        grave = stanzas.message(to=None, from_=f"{ROOM}/romeo", type="groupchat", id="grave")
        for _ in range(2):
            await log.rewrite(conn, key, id_, log.pack_head(grave), b"<retracted/>")
        (found,) = await log.by_ids(conn, key, [id_])
        assert (found.stanza.id, found.inner, found.sid, found.n) == ("grave", b"<retracted/>", 7, id_)
        (other,) = await log.by_ids(conn, key + 1, [id_])
        assert other.inner == b"<body>hear</body>"


@asynchronous
async def test_what_a_member_has_not_seen_and_what_others_do_not_write(database: str) -> None:
    async with connected(database) as conn:
        await log.maintain(conn, time.time(), {})
        key = await made(conn)
        await rooms.set_affiliation(conn, key, "romeo@example.com", MEMBER, None, "", 1)
        await rooms.set_affiliation(conn, key, "tybalt@example.com", 0, None, "", 2)
        ids = [id_at(time.time()) + number for number in range(3)]
        romeo, tybalt = 901, 902
        await conn.execute(append_sql("true"), columns([row(romeo, id_, GROUP) for id_ in ids]))
        await conn.execute(append_sql("true"), columns([row(romeo, ids[0], ARCHIVE, "juliet@example.com")]))
        assert await groups.unseen(conn, romeo, 10) == [ROOM]
        for id_ in (ids[1], ids[0]):
            await groups.visit(conn, romeo, "romeo@example.com", ROOM, id_)
        assert await groups.unseen(conn, romeo, 10) == [ROOM]
        await groups.visit(conn, romeo, "romeo@example.com", ROOM, ids[2])
        assert await groups.unseen(conn, romeo, 10) == []
        await groups.visit(conn, tybalt, "tybalt@example.com", ROOM, ids[2])
        await groups.visit(conn, tybalt, "tybalt@example.com", "nowhere@conference.example.com", ids[2])
        assert await fetch_value(conn, "select count(*) from room_visits where owner = %s", tybalt) == 0


@asynchronous
async def test_an_archive_has_what_was_kept_of_rooms_for_those_who_ask_for_it(database: str) -> None:
    async with connected(database) as conn:
        await log.maintain(conn, time.time(), {})
        ids = [id_at(time.time()) + number for number in range(4)]
        classes = (ARCHIVE, GROUP, ARCHIVE, GROUP)
        rows = [row(901, id_, class_) for id_, class_ in zip(ids, classes, strict=True)]
        await conn.execute(append_sql("true"), columns(rows))
        for with_groups, expected in ((False, ids[::2]), (True, ids)):
            query = Query(901, with_groups=with_groups)
            assert [r.id for r in (await archive.find(conn, query, 10, False)).rows] == expected
            assert await archive.count(conn, query, 100) == len(expected)
        assert [r.id for r in await log.replay(conn, [Wanted(901, 0, 0, (), ())])] == ids[::2], "no session is shown it"
