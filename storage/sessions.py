"""Bound sessions, with the snapshot from which a lost one is rebuilt (docs/delivery.md, rules 16 to 20).

`storage/writer.py` knows the batch form of `save` and `delete` and commits any number of them in one statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, LiteralString, NamedTuple

import msgpack

from cluster.shards import shard_of
from storage.rows import Connection, fetch_all, fetch_value, fetch_values


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One session. `at` is when it was bound, in Unix seconds.

    The numbers are those of docs/delivery.md; `unacknowledged` holds the log ids of the last deliveries up to `q`,
    None where one was not logged. `state` is opaque here: anything that msgpack can carry.
    """

    sid: int
    shard: int
    owner: int  # key of the account
    bare: str
    resource: str
    node: str  # incarnation of the c2s that holds the stream
    gen: int
    request: str  # the attach request that was answered last
    at: float
    conf: int = 0
    q: int = 0
    known_q: int = 0
    last_id: int = 0
    unacknowledged: tuple[int | None, ...] = ()
    state: tuple[Any, ...] | None = None
    resumable: bool = False
    n0: int = 0  # where the client began to count (XEP-0198), as n and q
    q0: int = 0
    detached_at: float | None = None  # Unix seconds


class Count(NamedTuple):
    """Sessions of one shard on one c2s."""

    node: str  # incarnation
    shard: int
    sessions: int


_FULL_JID: Final = "(bare || '/' || resource)"
_FILTER: Final = """
    position('@' in bare) > 0 -- no streams of other domains
    and (%s = '' or bare = %s) and (%s = '' or split_part(bare, '@', 2) = %s)
    and (%s = '' or split_part(node, '#', 1) = %s)
"""


def _filter(user: str, domain: str, node: str) -> tuple[str, ...]:
    return (user, user, domain, domain, node, node)


def save_sql(condition: LiteralString) -> LiteralString:
    """The statement that writes many rows where a condition holds. Its values are those of `columns`."""
    return f"""
        insert into sessions (sid, shard, owner, bare, resource, node, gen, request, at,
            conf, q, known_q, last_id, unacknowledged, state, resumable, n0, q0, detached_at)
        select r.sid, r.shard, r.owner, r.bare, r.resource, r.node, r.gen, r.request, to_timestamp(r.at),
            r.conf, r.q, r.known_q, r.last_id, r.unacknowledged::int8[], r.state, r.resumable, r.n0, r.q0,
            to_timestamp(r.detached_at)
        from unnest(%s::int8[], %s::int[], %s::int8[], %s::text[], %s::text[], %s::text[], %s::int[], %s::text[],
            %s::float8[], %s::int8[], %s::int8[], %s::int8[], %s::int8[], %s::text[], %s::bytea[], %s::boolean[],
            %s::int8[], %s::int8[], %s::float8[])
            r (sid, shard, owner, bare, resource, node, gen, request, at, conf, q, known_q, last_id, unacknowledged,
            state, resumable, n0, q0, detached_at)
        where {condition}
        on conflict (sid) do update set shard = excluded.shard, owner = excluded.owner, bare = excluded.bare,
            resource = excluded.resource, node = excluded.node, gen = excluded.gen, request = excluded.request,
            at = excluded.at, conf = excluded.conf, q = excluded.q, known_q = excluded.known_q,
            last_id = excluded.last_id, unacknowledged = excluded.unacknowledged, state = excluded.state,
            resumable = excluded.resumable, n0 = excluded.n0, q0 = excluded.q0, detached_at = excluded.detached_at
        """


def delete_sql(condition: LiteralString) -> LiteralString:
    """The statement that deletes many rows where a condition holds. Its value is the list of their sids."""
    return f"delete from sessions where sid = any (%s::int8[]) and {condition}"


def columns(rows: Sequence[SessionRow]) -> list[list[Any]]:
    """The values of `save_sql`: one list for each column. No two rows may have the same sid."""
    return [
        [row.sid for row in rows],
        [row.shard for row in rows],
        [row.owner for row in rows],
        [row.bare for row in rows],
        [row.resource for row in rows],
        [row.node for row in rows],
        [row.gen for row in rows],
        [row.request for row in rows],
        [row.at for row in rows],
        [row.conf for row in rows],
        [row.q for row in rows],
        [row.known_q for row in rows],
        [row.last_id for row in rows],
        [_array(row.unacknowledged) for row in rows],  # SQL arrays of arrays must be rectangular
        [None if row.state is None else msgpack.packb(row.state) for row in rows],
        [row.resumable for row in rows],
        [row.n0 for row in rows],
        [row.q0 for row in rows],
        [row.detached_at for row in rows],
    ]


async def save(conn: Connection, row: SessionRow) -> None:
    """Write a session's row, new or not."""
    await conn.execute(save_sql("true"), columns([row]))


async def delete(conn: Connection, sid: int) -> None:
    """The session is over."""
    await conn.execute(delete_sql("true"), ([sid],))


async def load_shards(conn: Connection, shards: Iterable[int]) -> list[SessionRow]:
    """Every session of these shards, ordered by shard, account and time of bind."""
    return await _read(conn, "where shard = any (%s::int[]) order by shard, owner, at, sid", list(shards))


async def find(conn: Connection, bare: str) -> list[SessionRow]:
    """The sessions of one account, the oldest first."""
    return await _read(conn, "where shard = %s and bare = %s order by at, sid", shard_of(bare), bare)


async def list_(conn: Connection, user: str, domain: str, node: str, after: str, limit: int) -> list[SessionRow]:
    """A page of sessions, ordered by full JID (bytewise), from the first one above `after`; "" leaves a filter out.
    `user` is a bare JID, `node` the name of a c2s."""
    return await _read(
        conn,
        f"where {_FILTER} and {_FULL_JID} > %s order by {_FULL_JID} limit %s",
        *_filter(user, domain, node),
        after,
        limit,
    )


async def online(conn: Connection, domains: Sequence[str], after: str, limit: int) -> list[str]:
    """A page of the accounts of these domains that have sessions, ordered bytewise, from the first above `after`."""
    return await fetch_values(
        conn,
        """
        select distinct bare from sessions
        where position('@' in bare) > 0 and split_part(bare, '@', 2) = any (%s) and bare > %s order by bare limit %s
        """,
        list(domains), after, limit,
    )  # fmt: skip


async def count(conn: Connection, user: str, domain: str, node: str) -> int:
    """How many sessions `list_` has in all its pages."""
    found: int = await fetch_value(conn, f"select count(*) from sessions where {_FILTER}", *_filter(user, domain, node))
    return found


async def count_by_node(conn: Connection) -> list[Count]:
    """How many sessions each c2s holds in each shard."""
    return await fetch_all(
        conn, Count, "select node, shard, count(*)::int8 as sessions from sessions group by node, shard"
    )


async def _read(conn: Connection, where: LiteralString, *values: object) -> list[SessionRow]:
    rows = await fetch_all(
        conn,
        SessionRow,
        f"""
        select sid, shard, owner, bare, resource, node, gen, request, extract(epoch from at)::float8 as at,
            conf, q, known_q, last_id, unacknowledged, state, resumable, n0, q0,
            extract(epoch from detached_at)::float8 as detached_at
        from sessions {where}
        """,
        *values,
    )
    return [_typed(row) for row in rows]


def _typed(row: SessionRow) -> SessionRow:
    """As it was saved: the driver gives lists for arrays and packed bytes for the state."""
    packed: Any = row.state
    state = None if packed is None else msgpack.unpackb(packed, use_list=False, strict_map_key=False)
    return replace(row, unacknowledged=tuple(row.unacknowledged), state=state)


def _array(ids: Sequence[int | None]) -> str:
    return "{" + ",".join("null" if id_ is None else str(id_) for id_ in ids) + "}"
