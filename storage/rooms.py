"""Rooms (XEP-0045): what they are, who is something to them, who is in them. Their messages are rows of the log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgpack

from storage import entities
from storage.log import ARCHIVE, Row
from storage.rows import Connection, fetch_all, fetch_one, fetch_value, fetch_values
from xmpp.stanza import Stanza, from_wire

KIND: Final = "room"


class RoomRow(NamedTuple):
    """A room. `config` is what `router/rooms/config.py` reads, `subject` the message that set it (`packed`)."""

    origin: int
    config: dict[str, Any]
    subject: bytes | None


class AffiliationRow(NamedTuple):
    """What a user (bare JID) is to a room, and the nickname that they have registered."""

    jid: str
    affiliation: int
    nick: str | None


class OccupantRow(NamedTuple):
    """A session (full JID) in a room; role 0: it has gone."""

    jid: str
    nick: str
    role: int
    sid: int
    presence: bytes | None
    changed: int


class Loaded(NamedTuple):
    """What the database knows of a room: `history` are its newest messages, oldest first, `last_id` is the greatest id
    of any event. `room` is None where there is none (any more)."""

    key: int
    room: RoomRow | None
    affiliations: list[AffiliationRow]
    occupants: list[OccupantRow]
    history: list[Row]
    last_id: int


class PublicRoom(NamedTuple):
    """A room as others find it."""

    jid: str
    name: str
    occupants: int


def packed(message: Stanza) -> bytes:
    """A message as it is kept."""
    data: bytes = msgpack.packb(message)
    return data


def unpacked(data: bytes) -> Stanza:
    """The reverse of `packed`."""
    return from_wire(msgpack.unpackb(data, use_list=False))


# --- reading


async def load(conn: Connection, bare: str, history: int) -> Loaded | None:
    """A room with everything about it, and the newest `history` messages; None where the name was never one."""
    key = await fetch_value(conn, "select key from entities where jid = %s", bare)
    if key is None:
        return None
    room = await fetch_one(conn, RoomRow, "select origin, config, subject from rooms where key = %s", key)
    if room is None:
        return Loaded(key, None, [], [], [], 0)
    affiliations = await fetch_all(
        conn, AffiliationRow, "select jid, affiliation, nick from room_affiliations where room = %s order by jid", key
    )
    occupants = await fetch_all(
        conn, OccupantRow,
        "select jid, nick, role, sid, presence, changed from room_occupants where room = %s order by changed",
        key,
    )  # fmt: skip
    cursor = await conn.execute(
        f"""
        select shard, owner, id, class, dir, forward, peer, sid, n, head, inner_xml from log
        where owner = %s and class = {ARCHIVE} order by id desc limit %s
        """,
        (key, history),
        binary=True,
    )
    rows = [Row._make(row) for row in reversed(await cursor.fetchall())]
    newest = await fetch_value(conn, "select max(id) from log where owner = %s", key) or 0
    last_id = max(newest, *(occupant.changed for occupant in occupants)) if occupants else newest
    return Loaded(key, room, affiliations, occupants, rows, last_id)


async def with_occupants(conn: Connection, shards: Iterable[int]) -> list[str]:
    """The rooms of these shards that somebody is in."""
    return await fetch_values(
        conn,
        """
        select e.jid from rooms r join entities e using (key) where r.shard = any (%s::int[])
            and exists (select from room_occupants o where o.room = r.key and o.role > 0)
        order by e.jid
        """,
        list(shards),
    )


async def public(conn: Connection, domain: str, after: str, limit: int) -> list[PublicRoom]:
    """Rooms of a domain that want to be found, in the order of their JIDs."""
    return await fetch_all(
        conn, PublicRoom,
        """
        select e.jid, r.config ->> 'roomname' as name, (
            select count(distinct o.nick) from room_occupants o where o.room = r.key and o.role > 0
        ) as occupants
        from entities e join rooms r using (key)
        where split_part(e.jid, '@', 2) = %s and e.jid > %s and (r.config ->> 'publicroom')::boolean
        order by e.jid limit %s
        """,
        domain, after, limit,
    )  # fmt: skip


class ListedRoom(NamedTuple):
    """A room as operators see it."""

    jid: str
    name: str
    is_public: bool
    is_persistent: bool
    occupants: int


async def list_(conn: Connection, domain: str, after: str, limit: int) -> list[ListedRoom]:
    """All rooms (of a domain, "" for all), in the order of their JIDs."""
    return await fetch_all(
        conn, ListedRoom,
        """
        select e.jid, r.config ->> 'roomname' as name, (r.config ->> 'publicroom')::boolean as is_public,
            (r.config ->> 'persistentroom')::boolean as is_persistent, (
                select count(distinct o.nick) from room_occupants o where o.room = r.key and o.role > 0
            ) as occupants
        from entities e join rooms r using (key)
        where (%s = '' or split_part(e.jid, '@', 2) = %s) and e.jid > %s order by e.jid limit %s
        """,
        domain, domain, after, limit,
    )  # fmt: skip


# --- writing; each may be repeated


async def make(conn: Connection, bare: str, shard: int) -> int:
    """The key of a name that is about to be a room."""
    return await entities.key_of(conn, bare, shard, KIND)


async def create(conn: Connection, key: int, shard: int, origin: int, config: str) -> None:
    """There is a room; `config` is JSON."""
    await conn.execute(
        "insert into rooms (key, shard, origin, config) values (%s, %s, %s, %s) on conflict (key) do nothing",
        (key, shard, origin, config),
    )


async def destroy(conn: Connection, key: int) -> None:
    """There is none any more, and nothing of what was said in it."""
    await conn.execute("delete from rooms where key = %s", (key,))
    await conn.execute("delete from room_affiliations where room = %s", (key,))
    await conn.execute("delete from room_occupants where room = %s", (key,))
    await conn.execute("delete from log where owner = %s", (key,))


async def set_config(conn: Connection, key: int, config: str) -> None:
    """The room is so from now on; `config` is JSON."""
    await conn.execute("update rooms set config = %s where key = %s", (config, key))


async def set_subject(conn: Connection, key: int, subject: bytes | None) -> None:
    """The message that has set the subject."""
    await conn.execute("update rooms set subject = %s where key = %s", (subject, key))


async def set_affiliation(
    conn: Connection, key: int, jid: str, affiliation: int, nick: str | None, reason: str, changed: int
) -> None:
    """What a user is to the room from now on."""
    await conn.execute(
        """
        insert into room_affiliations (room, jid, affiliation, nick, reason, changed) values (%s, %s, %s, %s, %s, %s)
        on conflict (room, jid) do update set affiliation = excluded.affiliation, nick = excluded.nick,
            reason = excluded.reason, changed = excluded.changed
        """,
        (key, jid, affiliation, nick, reason, changed),
    )


async def save_occupant(
    conn: Connection, key: int, jid: str, nick: str, role: int, sid: int, presence: bytes | None, changed: int
) -> None:
    """A session in the room as it is now."""
    await conn.execute(
        """
        insert into room_occupants (room, jid, nick, role, sid, presence, changed) values (%s, %s, %s, %s, %s, %s, %s)
        on conflict (room, jid) do update set nick = excluded.nick, role = excluded.role, sid = excluded.sid,
            presence = excluded.presence, changed = excluded.changed
        """,
        (key, jid, nick, role, sid, presence, changed),
    )


async def forget_left(conn: Connection, key: int, below: int) -> None:
    """Who went before this id need not be known any more."""
    await conn.execute("delete from room_occupants where room = %s and role = 0 and changed < %s", (key, below))
