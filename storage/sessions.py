"""Bound sessions (docs/delivery.md, rules 16 to 20).

`storage/writer.py` knows the batch form of `save` and `delete` and commits any number of them in one statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, LiteralString

import msgpack

from storage.rows import Connection, fetch_all


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One session. `at` is when it was bound, in Unix seconds. `state` is opaque here: anything that msgpack can
    carry."""

    sid: int
    shard: int
    owner: int  # key of the account
    bare: str
    resource: str
    node: str  # incarnation of the c2s that holds the stream
    gen: int
    request: str  # the attach request that was answered last
    state: tuple[Any, ...] | None
    at: float


def save_sql(condition: LiteralString) -> LiteralString:
    """The statement that writes many rows where a condition holds. Its values are those of `columns`."""
    return f"""
        insert into sessions (sid, shard, owner, bare, resource, node, gen, request, state, at)
        select r.* from unnest(%s::int8[], %s::int[], %s::int8[], %s::text[], %s::text[], %s::text[], %s::int[],
            %s::text[], %s::bytea[], %s::float8[]) r where {condition}
        on conflict (sid) do update set shard = excluded.shard, owner = excluded.owner, bare = excluded.bare,
            resource = excluded.resource, node = excluded.node, gen = excluded.gen, request = excluded.request,
            state = excluded.state, at = excluded.at
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
        [None if row.state is None else msgpack.packb(row.state) for row in rows],
        [row.at for row in rows],
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


async def list_(conn: Connection, after: int = -1, limit: int = 100) -> list[SessionRow]:
    """A page of all sessions, ordered by sid, from the first one above `after`."""
    return await _read(conn, "where sid > %s order by sid limit %s", after, limit)


async def _read(conn: Connection, where: LiteralString, *values: object) -> list[SessionRow]:
    columns = "sid, shard, owner, bare, resource, node, gen, request, state, at"
    return [
        replace(row, state=_unpacked(row.state))
        for row in await fetch_all(conn, SessionRow, f"select {columns} from sessions {where}", *values)
    ]


def _unpacked(packed: Any) -> tuple[Any, ...] | None:
    state: tuple[Any, ...] | None = None
    if packed is not None:
        state = msgpack.unpackb(packed, use_list=False, strict_map_key=False)
    return state
