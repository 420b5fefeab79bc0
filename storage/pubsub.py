"""Nodes, their items, and who is something to them (XEP-0060). Every write may be repeated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, LiteralString, NamedTuple

from storage import entities
from storage.log import FIELDS, Row
from storage.rows import Connection, fetch_all, fetch_value

KIND: Final = "pubsub"
SMALL: Final = 4_096  # bytes of a last item that is read with its node
MOST_BYTES: Final = 1_048_576  # of the items that one read returns


class Item(NamedTuple):
    """What was published under a name. `seq` is an id of the log's kind: time and place. `payload` is one element with
    its namespace, or nothing."""

    id: str
    seq: int
    publisher: str
    payload: bytes


class NodeRow(NamedTuple):
    """A node. `config` is what `router/pubsub/config.py` reads. `affiliations` are [JID, affiliation], `subscriptions`
    [JID, subid, is_pending]. `last` is the newest item as (id, seq, publisher, payload), where it is small; None: there
    is none or it is not, as `has_items` tells."""

    key: int
    node: str
    config: dict[str, Any]
    creator: str
    affiliations: list[list[Any]]
    subscriptions: list[list[Any]]
    last: tuple[str, int, str, bytes] | None
    has_items: bool


class Service(NamedTuple):
    """What the database knows of a service: its key and its nodes."""

    key: int
    nodes: list[NodeRow]


# --- reading


async def load(conn: Connection, owners: Sequence[int]) -> dict[int, list[NodeRow]]:
    """Every node of each of these entities, ordered by name."""
    cursor = await conn.execute(
        """
        select n.owner, n.key, n.node, n.config, n.creator,
            (select json_agg(json_build_array(jid, affiliation)) from pubsub_affiliations a where a.node = n.key),
            (select json_agg(json_build_array(jid, subid, is_pending)) from pubsub_subscriptions s
                where s.node = n.key),
            i.id, i.seq, i.publisher, case when octet_length(i.payload) <= %s then i.payload end
        from pubsub_nodes n left join lateral (
            select * from pubsub_items i where i.node = n.key order by seq desc limit 1
        ) i on true
        where n.owner = any (%s) order by n.node
        """,
        (SMALL, list(owners)),
    )
    found: dict[int, list[NodeRow]] = {owner: [] for owner in owners}
    for owner, *columns in await cursor.fetchall():
        key, node, config, creator, affiliations, subscriptions, id_, seq, publisher, payload = columns
        last = None if payload is None else (id_, seq, publisher, bytes(payload))
        found[owner].append(
            NodeRow(key, node, config, creator, affiliations or [], subscriptions or [], last, id_ is not None)
        )
    return found


async def load_service(conn: Connection, domain: str, shard: int) -> Service:
    """A service, which gets a key if it has none yet."""
    key = await entities.key_of(conn, domain, shard, KIND)
    return Service(key, (await load(conn, [key]))[key])


async def last_items(conn: Connection, nodes: Sequence[int]) -> dict[int, Item]:
    """The newest item of each of these nodes that has one, by the node's key."""
    cursor = await conn.execute(
        """
        select n.key, i.id, i.seq, i.publisher, i.payload from unnest(%s::int8[]) n (key) cross join lateral (
            select * from pubsub_items i where i.node = n.key order by seq desc limit 1
        ) i
        """,
        (list(nodes),),
    )
    return {key: Item(*fields) for key, *fields in await cursor.fetchall()}


async def items_by_id(conn: Connection, node: int, ids: Sequence[str], since: int = 0) -> list[Item]:
    """These items, in the order in which they were published; none from before the id `since`."""
    return await fetch_all(
        conn, Item,
        """
        select id, seq, publisher, payload from pubsub_items where node = %s and id = any (%s) and seq >= %s
        order by seq
        """,
        node, list(ids), since,
    )  # fmt: skip


class Wanted(NamedTuple):
    """A part of a node's items, in the order in which they were published: at most `limit`, those behind or before the
    item of this id, or from the place `start` on; `is_backwards`: the last ones of those. None from before `since`."""

    node: int
    limit: int
    after: str | None = None
    before: str | None = None
    start: int | None = None
    is_backwards: bool = False
    since: int = 0


class Page(NamedTuple):
    """`items` in order; how many there are before them and in all. `is_known`: whether the item that the request
    named is there."""

    items: list[Item]
    place: int
    total: int
    is_known: bool


async def page(conn: Connection, wanted: Wanted) -> Page:
    """A page of a node. It ends early where it would be too long for one answer."""
    name = wanted.after or wanted.before
    at: int | None = None
    if name is not None:
        at = await fetch_value(conn, "select seq from pubsub_items where node = %s and id = %s", wanted.node, name)
        if at is None:
            return Page([], 0, 0, False)
    least, most = wanted.since - 1, 2**63 - 1
    if at is not None:
        least, most = (max(at, least), most) if wanted.after is not None else (least, at)
    order: LiteralString = "desc" if wanted.is_backwards else "asc"
    items = await fetch_all(
        conn, Item,
        f"""
        select id, seq, publisher, payload from (
            select *, sum(octet_length(payload)) over (order by seq {order}) - octet_length(payload) as bytes_before
            from (
                select * from pubsub_items where node = %s and seq > %s and seq < %s
                order by seq {order} limit %s offset %s
            ) page
        ) weighed where bytes_before < {MOST_BYTES} order by seq
        """,
        wanted.node, least, most, wanted.limit, wanted.start or 0,
    )  # fmt: skip
    first = items[0].seq if items else most
    counts = await conn.execute(
        "select count(*) filter (where seq < %s), count(*) from pubsub_items where node = %s and seq >= %s",
        (first, wanted.node, wanted.since),
    )
    place, total = await counts.fetchone() or (0, 0)
    return Page(items, place, total, True)


async def ids(conn: Connection, node: int, limit: int) -> list[str]:
    """The names of the newest items."""
    rows = await fetch_all(
        conn, _Name, "select id from pubsub_items where node = %s order by seq desc limit %s", node, limit
    )
    return [row.id for row in reversed(rows)]


class _Name(NamedTuple):
    id: str


# --- writing


async def create(conn: Connection, key: int, owner: int, node: str, config: str, creator: str) -> None:
    """There is a node; `config` is JSON."""
    await conn.execute(
        """
        insert into pubsub_nodes (key, owner, node, config, creator) values (%s, %s, %s, %s, %s)
        on conflict (key) do nothing
        """,
        (key, owner, node, config, creator),
    )


async def configure(conn: Connection, key: int, config: str, keep: int | None) -> None:
    """It is so from now on; of its items the newest `keep` stay, None: all."""
    await conn.execute("update pubsub_nodes set config = %s where key = %s", (config, key))
    if keep is not None:
        await _trim(conn, key, keep)


async def delete(conn: Connection, key: int) -> None:
    """There is no such node any more, nor anything that was published there."""
    await conn.execute("delete from pubsub_nodes where key = %s", (key,))
    await conn.execute("delete from log where owner = %s", (key,))


async def publish(
    conn: Connection, node: int, item: Item, key: tuple[int, int], keep: int | None, since: int, archived: Row | None
) -> None:
    """An item, in the place of the one of the same name, and its row of the archive; of all items the newest `keep`
    stay (None: all), and none from before the id `since`. `key` names the publication: a second time, nothing of it
    happens."""
    row: tuple[object, ...] = archived if archived is not None else (None,) * len(Row._fields)
    await conn.execute(
        f"""
        with published as (
            insert into pubsub_items (node, id, seq, publisher, sid, n, payload) values (%s, %s, %s, %s, %s, %s, %s)
            on conflict (node, id) do update set seq = excluded.seq, publisher = excluded.publisher,
                sid = excluded.sid, n = excluded.n, payload = excluded.payload
            where pubsub_items.sid <> excluded.sid or pubsub_items.n < excluded.n
            returning node
        )
        insert into log ({FIELDS})
        select %s::int4, %s::int8, %s::int8, %s::int2, %s::int2, %s::int2, %s, %s::int8, %s::int8, %s, %s
        from published where {"true" if archived is not None else "false"}
        """,
        (node, item.id, item.seq, item.publisher, *key, item.payload, *row),
    )
    if keep is not None:
        await _trim(conn, node, keep)
    if since:
        await conn.execute("delete from pubsub_items where node = %s and seq < %s", (node, since))


async def _trim(conn: Connection, node: int, keep: int) -> None:
    await conn.execute(
        """
        delete from pubsub_items where node = %s and seq <= (
            select seq from pubsub_items where node = %s order by seq desc limit 1 offset %s
        )
        """,
        (node, node, keep),
    )


async def retract(conn: Connection, node: int, ids: Sequence[str]) -> None:
    """These items are gone."""
    await conn.execute("delete from pubsub_items where node = %s and id = any (%s)", (node, list(ids)))


async def purge(conn: Connection, node: int) -> None:
    """All of them are."""
    await conn.execute("delete from pubsub_items where node = %s", (node,))


async def set_affiliation(conn: Connection, node: int, jid: str, affiliation: int) -> None:
    """What somebody (bare JID) is to a node; 0: nothing."""
    if not affiliation:
        await conn.execute("delete from pubsub_affiliations where node = %s and jid = %s", (node, jid))
        return
    await conn.execute(
        """
        insert into pubsub_affiliations (node, jid, affiliation) values (%s, %s, %s)
        on conflict (node, jid) do update set affiliation = excluded.affiliation
        """,
        (node, jid, affiliation),
    )


async def subscribe(conn: Connection, node: int, jid: str, subid: str, is_pending: bool) -> None:
    """Somebody is subscribed, or waits for an owner to say so."""
    await conn.execute(
        """
        insert into pubsub_subscriptions (node, jid, subid, is_pending) values (%s, %s, %s, %s)
        on conflict (node, jid) do update set subid = excluded.subid, is_pending = excluded.is_pending
        """,
        (node, jid, subid, is_pending),
    )


async def unsubscribe(conn: Connection, node: int, jid: str) -> None:
    """They are not any more."""
    await conn.execute("delete from pubsub_subscriptions where node = %s and jid = %s", (node, jid))
