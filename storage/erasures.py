"""The end of a name: what is removed with it, in which order, and how long nobody else may have it.

`begin` is part of the account's last turn; the rest is done by `router/erasing.py` behind it, in steps of which each
may be repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, LiteralString, NamedTuple

from psycopg.types.json import Jsonb

from storage.log import ARCHIVE, GROUP, QUEUE
from storage.rows import Connection, fetch_all, fetch_one, fetch_value, fetch_values

CHUNK: Final = 5_000  # rows of the log in one statement
LONG: Final = "600s"  # for statements that look through whole tables
CLASSES: Final = {QUEUE: "queue", ARCHIVE: "archive", GROUP: "away"}
_NAME: Final = "sha256(convert_to(%s, 'UTF8') || (select value from secrets where name = 'erased-names'))"


class Erasure(NamedTuple):
    """A name that is being erased, or was: then `jid` is None. `removed` counts rows by kind; times are Unix
    seconds."""

    id: int
    shard: int
    jid: str | None
    with_rooms: bool
    by: str
    removed: dict[str, int]
    requested_at: float
    finished_at: float | None
    reusable_at: float


class NamingRoom(NamedTuple):
    """A room, as far as its archive is to be searched."""

    key: int
    jid: str
    origin: int


_ERASURE: Final = """
    id, shard, jid, with_rooms, by, removed, extract(epoch from requested_at)::float8 as requested_at,
    extract(epoch from finished_at)::float8 as finished_at, extract(epoch from reusable_at)::float8 as reusable_at
"""


# --- the beginning


async def begin(
    conn: Connection, id_: int, jid: str, shard: int, with_rooms: bool, by: str, reuse_after_days: float
) -> None:
    """There is no such account from now on, nor what its owner had in memory; the rest is remembered to be done.
    A name that is being erased already is erased once."""
    await conn.execute(
        f"""
        with k as (select key from entities where jid = %(jid)s and kind = 'account'),
            c as (delete from credentials using k where credentials.key = k.key returning 1),
            r as (delete from rosters using k where owner = k.key returning 1),
            t as (delete from roster_removed using k where owner = k.key returning 1),
            b as (delete from blocks using k where owner = k.key returning 1),
            p as (delete from private_xml using k where owner = k.key returning 1),
            v as (delete from vcards using k where owner = k.key returning 1),
            u as (delete from push_services using k where owner = k.key returning 1),
            g as (delete from room_visits using k where owner = k.key returning 1),
            x as (delete from restrictions using k where owner = k.key returning 1),
            d as (delete from devices using k where devices.key = k.key returning 1),
            o as (delete from guests using k where guests.key = k.key returning 1),
            i as (
                delete from invitations where maker = %(jid)s or contact = %(jid)s or (jid = %(jid)s and kind = 'reset')
                returning 1
            ),
            s as (delete from sessions using k where sessions.shard = %(shard)s and owner = k.key returning 1),
            a as (delete from accounts using k where accounts.key = k.key returning 1)
        insert into erasures (id, shard, jid, name, with_rooms, by, removed, reusable_at)
        select %(id)s, %(shard)s, %(jid)s, {_NAME.replace("%s", "%(jid)s")}, %(rooms)s, %(by)s, jsonb_build_object(
                'account', (select count(*) from a), 'credentials', (select count(*) from c),
                'contacts', (select count(*) from r), 'former_contacts', (select count(*) from t),
                'blocks', (select count(*) from b), 'private_data', (select count(*) from p),
                'vcard', (select count(*) from v), 'push_services', (select count(*) from u),
                'room_visits', (select count(*) from g), 'restrictions', (select count(*) from x),
                'devices', (select count(*) from d), 'invitations', (select count(*) from i),
                'sessions', (select count(*) from s)
            ), now() + make_interval(secs => %(days)s * 86400)
        on conflict do nothing
        """,
        {"id": id_, "jid": jid, "shard": shard, "rooms": with_rooms, "by": by, "days": reuse_after_days},
    )


async def find(conn: Connection, id_: int) -> Erasure | None:
    """One of them."""
    return await fetch_one(conn, Erasure, f"select {_ERASURE} from erasures where id = %s", id_)


async def find_pending(conn: Connection, jid: str) -> int | None:
    """The one that is under way for a name."""
    found: int | None = await fetch_value(conn, "select id from erasures where jid = %s", jid)
    return found


async def newest(conn: Connection, jid: str) -> int | None:
    """The last one of a name, under way or done."""
    found: int | None = await fetch_value(
        conn, f"select id from erasures where name = {_NAME} order by requested_at desc limit 1", jid
    )
    return found


async def pending(conn: Connection) -> list[Erasure]:
    """What is to be done, the oldest first."""
    return await fetch_all(
        conn, Erasure, f"select {_ERASURE} from erasures where jid is not null order by requested_at limit 100"
    )


async def is_reserved(conn: Connection, jid: str, also_finished: bool) -> bool:
    """Whether a name may not be taken: it is being erased, or (where that counts) was not long enough ago."""
    found: bool = await fetch_value(
        conn,
        f"""
        select exists (select from erasures where jid = %s) or (%s and exists (
            select from erasures where name = {_NAME} and reusable_at > now()
        ))
        """,
        jid, also_finished, jid,
    )  # fmt: skip
    return found


# --- what belongs to the name


async def key_of(conn: Connection, jid: str) -> int | None:
    """The key of a name that is (or was) an account."""
    found: int | None = await fetch_value(conn, "select key from entities where jid = %s and kind = 'account'", jid)
    return found


async def delete_rows(conn: Connection, owner: int) -> Mapping[int, int]:
    """Delete some rows of the log of an account or a node; returns how many of each class, {}: none is left."""
    cursor = await conn.execute(
        """
        with gone as (
            delete from log where (owner, id, class) in (
                select owner, id, class from log where owner = %s order by id limit %s
            ) returning class
        ) select class, count(*) from gone group by class
        """,
        (owner, CHUNK),
    )
    return dict(await cursor.fetchall())


async def nodes_of(conn: Connection, owner: int) -> list[int]:
    """The keys of an account's nodes."""
    return await fetch_values(conn, "select key from pubsub_nodes where owner = %s", owner)


async def delete_node(conn: Connection, key: int) -> int:
    """Delete a node; returns how many items it had."""
    found: int = await fetch_value(
        conn,
        """
        with i as (select count(*) as items from pubsub_items where node = %s),
            n as (delete from pubsub_nodes where key = %s)
        select items from i
        """,
        key, key,
    )  # fmt: skip
    return found


# --- what names it elsewhere


async def rooms_naming(conn: Connection, jid: str) -> list[str]:
    """Rooms to which it is something, that it is or was in, where it wears a hat."""
    return await _long(
        conn,
        """
        select e.jid from entities e where e.key in (
            select room from room_affiliations where jid = %s
            union select room from room_occupants where jid = %s or starts_with(jid, %s || '/')
            union select key from rooms where hats -> 'worn' ? %s
        ) order by e.jid
        """,
        jid, jid, jid, jid,
    )  # fmt: skip


async def hosts_naming(conn: Connection, jid: str) -> list[str]:
    """Accounts and services with nodes that name it."""
    return await _long(
        conn,
        """
        select e.jid from entities e where e.key in (
            select owner from pubsub_nodes where creator = %s or config -> 'contact' ? %s
            union select owner from pubsub_nodes n join pubsub_affiliations a on a.node = n.key where a.jid = %s
            union select owner from pubsub_nodes n join pubsub_subscriptions s on s.node = n.key
                where s.jid = %s or starts_with(s.jid, %s || '/')
            union select owner from pubsub_nodes n join pubsub_items i on i.node = n.key
                where i.publisher = %s or starts_with(i.publisher, %s || '/')
        ) and e.jid <> %s order by e.jid
        """,
        jid, jid, jid, jid, jid, jid, jid, jid,
    )  # fmt: skip


async def published_by(conn: Connection, nodes: Sequence[int], jid: str) -> int:
    """How many items of these nodes it has published."""
    found: int = await fetch_value(
        conn,
        """
        select count(*) from pubsub_items
        where node = any (%s) and (publisher = %s or starts_with(publisher, %s || '/'))
        """,
        list(nodes), jid, jid,
    )  # fmt: skip
    return found


async def forget_in_node(conn: Connection, node: int, jid: str, config: str) -> None:
    """Nothing of a node is by or of it any more; `config` is JSON."""
    await conn.execute(
        "delete from pubsub_items where node = %s and (publisher = %s or starts_with(publisher, %s || '/'))",
        (node, jid, jid),
    )
    await conn.execute(
        "delete from log where owner = %s and position(convert_to(%s, 'UTF8') in inner_xml) > 0",
        (node, f'publisher="{jid}'),
    )
    await conn.execute("delete from pubsub_affiliations where node = %s and jid = %s", (node, jid))
    await conn.execute(
        "delete from pubsub_subscriptions where node = %s and (jid = %s or starts_with(jid, %s || '/'))",
        (node, jid, jid),
    )
    await conn.execute(
        "update pubsub_nodes set config = %s, creator = case when creator = %s then '' else creator end where key = %s",
        (config, jid, node),
    )


async def forget_in_room(conn: Connection, room: int, jid: str) -> None:
    """A room does not know it any more."""
    await conn.execute("delete from room_affiliations where room = %s and jid = %s", (room, jid))
    await conn.execute(
        "delete from room_occupants where room = %s and (jid = %s or starts_with(jid, %s || '/'))", (room, jid, jid)
    )


async def rooms_after(conn: Connection, after: str, limit: int) -> list[NamingRoom]:
    """A page of all rooms, in the order of their JIDs."""
    return await fetch_all(
        conn, NamingRoom,
        "select key, e.jid, r.origin from rooms r join entities e using (key) where e.jid > %s order by e.jid limit %s",
        after, limit,
    )  # fmt: skip


async def said_in(conn: Connection, room: int, occupant_id: str, above: int, limit: int) -> list[int]:
    """The ids of what somebody has said in a room and not taken back; occupants are named by ids there (XEP-0421)."""
    return await _long(
        conn,
        """
        select id from log where owner = %s and class = %s and id > %s
            and position(convert_to(%s, 'UTF8') in inner_xml) > 0
            and position('<retracted xmlns="urn:xmpp:message-retract:1"'::bytea in inner_xml) = 0
        order by id limit %s
        """,
        room, ARCHIVE, above, f'id="{occupant_id}"', limit,
    )  # fmt: skip


async def forget_outbound(conn: Connection, jid: str) -> int:
    """What it has sent to other servers, of which they have most by now, is not kept any longer; returns how much."""
    (count,) = await _long(
        conn,
        "with gone as (delete from log_outbound where peer = %s returning 1) select count(*) from gone",
        jid,
    )
    found: int = count
    return found


async def forget_reports(conn: Connection, jid: str) -> int:
    """Reports by it and of it; returns how many."""
    found: int = await fetch_value(
        conn,
        """
        with gone as (delete from reports where reporter = %s or split_part(reported, '/', 1) = %s returning 1)
        select count(*) from gone
        """,
        jid, jid,
    )  # fmt: skip
    return found


# --- the end

_STRAGGLERS: Final[tuple[LiteralString, ...]] = (
    "delete from rosters where owner = %s",
    "delete from roster_removed where owner = %s",
    "delete from blocks where owner = %s",
    "delete from private_xml where owner = %s",
    "delete from vcards where owner = %s",
    "delete from push_services where owner = %s",
    "delete from room_visits where owner = %s",
    "delete from sessions where owner = %s",
    "delete from pubsub_nodes where owner = %s",
    "delete from log where owner = %s",
)


async def finish(conn: Connection, id_: int, jid: str, removed: Mapping[str, int], is_kept: bool = True) -> None:
    """It is done: what is left of the name is its hash, or nothing unless that `is_kept`. What was on its way to the
    database when the account ended goes, too."""
    key = await key_of(conn, jid)
    async with conn.transaction():
        for statement in _STRAGGLERS if key is not None else ():
            await conn.execute(statement, (key,))
        await conn.execute(
            "delete from entities where jid = %s and kind = 'account' and key not in (select key from accounts)", (jid,)
        )
        if not is_kept:
            await conn.execute("delete from erasures where id = %s and jid = %s", (id_, jid))
            return
        await conn.execute(
            "update erasures set jid = null, removed = %s, finished_at = now() where id = %s and jid = %s",
            (Jsonb(removed), id_, jid),
        )


async def prune(conn: Connection) -> None:
    """Reports are kept for a month, and as long as a name is not free again."""
    await conn.execute(
        "delete from erasures where jid is null and reusable_at < now() and finished_at < now() - interval '30 days'"
    )


async def _long(conn: Connection, sql: LiteralString, *values: Any) -> list[Any]:
    async with conn.transaction():
        await conn.execute(f"set local statement_timeout = '{LONG}'")
        return await fetch_values(conn, sql, *values)
