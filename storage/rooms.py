"""Rooms (XEP-0045): what they are, who is something to them, who is in them. Their messages are rows of the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, LiteralString, NamedTuple

import msgpack

from storage import entities
from storage.log import ARCHIVE, Row, above
from storage.rows import Connection, fetch_all, fetch_one, fetch_value, fetch_values
from xmpp.stanza import Stanza, from_wire

KIND: Final = "room"
OFFERED: Final = 10_000  # messages that may be on their way to others


class RoomRow(NamedTuple):
    """A room. `config` is what `router/rooms/config.py` reads, `hats` what `router/rooms/hats.py` does, `subject` the
    message that set it (`packed`). `photos` are hashes (XEP-0153). Of what happened up to the event `handed_over`,
    everything is where it was for that is no local occupant: peers of other servers, members who are away."""

    origin: int
    config: dict[str, Any]
    subject: bytes | None
    photos: list[str]
    hats: dict[str, Any]
    handed_over: int


class AffiliationRow(NamedTuple):
    """What a user (bare JID) is to a room, the nickname that they have registered, and the id of the event that made
    it so. The row of who was something once stays."""

    jid: str
    affiliation: int
    nick: str | None
    changed: int


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
    of any event, `not_handed_over` are messages that others than local occupants may not have. `room` is None where
    there is none (any more)."""

    key: int
    room: RoomRow | None
    affiliations: list[AffiliationRow]
    occupants: list[OccupantRow]
    history: list[Row]
    last_id: int
    not_handed_over: list[Row]


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


_ROOM: Final = "origin, config, subject, photos, hats, handed_over"


# --- reading


async def load(
    conn: Connection, bare: str, history: int, is_kept: Callable[[dict[str, Any]], bool] = lambda _: False
) -> Loaded | None:
    """A room with everything about it, and the newest `history` messages; None where the name was never one. `is_kept`
    tells by its configuration whether members who are away get what is said."""
    key = await fetch_value(conn, "select key from entities where jid = %s", bare)
    if key is None:
        return None
    room = await fetch_one(conn, RoomRow, f"select {_ROOM} from rooms where key = %s", key)
    if room is None:
        return Loaded(key, None, [], [], [], 0, [])
    affiliations = await fetch_all(
        conn, AffiliationRow,
        "select jid, affiliation, nick, changed from room_affiliations where room = %s order by jid", key,
    )  # fmt: skip
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
    last_id = max((newest, *(occupant.changed for occupant in occupants)))
    is_for_others = is_kept(room.config) or any(occupant.sid == 0 and occupant.role for occupant in occupants)
    late = await above(conn, key, room.handed_over, (), OFFERED) if is_for_others else []
    return Loaded(key, room, affiliations, occupants, rows, last_id, late)


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


class Search(NamedTuple):
    """Public rooms of a domain with `text` in one of these places ("": all of them), by the number of those who are
    there or by address, behind the one at the position `after`."""

    domain: str
    text: str
    in_name: bool
    in_description: bool
    in_address: bool
    by_users: bool
    after: str = ""
    limit: int = 100


class FoundRoom(NamedTuple):
    """A public room, as a search finds it."""

    jid: str
    name: str
    description: str
    language: str
    occupants: int
    is_open: bool
    shows_addresses: bool


def position(room: FoundRoom) -> str:
    """Where a room is among those found, for the next page."""
    return f"{room.occupants} {room.jid}"


async def search(conn: Connection, wanted: Search) -> list[FoundRoom]:
    """A page of what is found."""
    users, _, jid = wanted.after.partition(" ")
    after = (int(users), jid) if users.isascii() and users.isdigit() and len(users) < 10 else None
    order: LiteralString = "occupants desc, jid" if wanted.by_users else "jid"
    behind: LiteralString = "(-occupants, jid) > (%s, %s)" if wanted.by_users else "(%s::int is not null and jid > %s)"
    start = (-after[0], after[1]) if after is not None else (-(10**9), "")
    pattern = "%" + wanted.text.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_") + "%"
    return await fetch_all(
        conn, FoundRoom,
        f"""
        select * from (
            select e.jid, r.config ->> 'roomname' as name, r.config ->> 'roomdesc' as description,
                r.config ->> 'lang' as language, (
                    select count(distinct o.nick) from room_occupants o where o.room = r.key and o.role > 0
                ) as occupants,
                not (r.config ->> 'membersonly')::boolean and not (r.config ->> 'passwordprotectedroom')::boolean
                    as is_open,
                r.config ->> 'whois' = 'anyone' as shows_addresses
            from entities e join rooms r using (key)
            where split_part(e.jid, '@', 2) = %s and (r.config ->> 'publicroom')::boolean and (
                %s = '' or (%s and r.config ->> 'roomname' ilike %s) or (%s and r.config ->> 'roomdesc' ilike %s)
                or (%s and e.jid ilike %s)
            )
        ) as found where {behind} order by {order} limit %s
        """,
        wanted.domain, wanted.text, wanted.in_name, pattern, wanted.in_description, pattern, wanted.in_address, pattern,
        *start, wanted.limit,
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
    await conn.execute("delete from vcards where owner = %s", (key,))
    await conn.execute("delete from log where owner = %s", (key,))


async def set_config(conn: Connection, key: int, config: str) -> None:
    """The room is so from now on; `config` is JSON."""
    await conn.execute("update rooms set config = %s where key = %s", (config, key))


async def set_subject(conn: Connection, key: int, subject: bytes | None) -> None:
    """The message that has set the subject."""
    await conn.execute("update rooms set subject = %s where key = %s", (subject, key))


async def set_photos(conn: Connection, key: int, photos: Sequence[str]) -> None:
    """The hashes of its pictures."""
    await conn.execute("update rooms set photos = %s where key = %s", (list(photos), key))


async def set_hats(conn: Connection, key: int, hats: str) -> None:
    """Its hats, and who wears them; `hats` is JSON."""
    await conn.execute("update rooms set hats = %s where key = %s", (hats, key))


async def set_handed_over(conn: Connection, key: int, id_: int) -> None:
    """Others than local occupants have everything up to this event."""
    await conn.execute("update rooms set handed_over = greatest(handed_over, %s) where key = %s", (id_, key))


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
