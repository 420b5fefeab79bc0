"""Routers that live, by their heartbeats. Times are the database's, so that nobody's clock matters.

Listeners are notified when a node comes, begins to leave, or goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from storage.listen import CHANNEL
from storage.rows import Connection, fetch_all

_COLUMNS: Final = """
    name, incarnation, role, address, wire, is_leaving,
    extract(epoch from started_at)::float8 as started_at, extract(epoch from seen_at)::float8 as seen_at
"""


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One process. Times are Unix seconds of the database's clock."""

    name: str  # which a restarted process keeps
    incarnation: str  # one run of the process
    role: str
    address: str  # where its bus listens
    wire: int  # version of the wire format
    is_leaving: bool = False
    started_at: float = 0.0
    seen_at: float = 0.0

    @classmethod
    def of(cls, *, name: str, incarnation: str, role: str, address: str, wire: int) -> NodeRow:
        """A process that has not registered yet."""
        return cls(name, incarnation, role, address, wire)


async def register(conn: Connection, node: NodeRow) -> None:
    """This process lives; a former run of the same node is gone."""
    await conn.execute(
        """
        with node as (
            insert into nodes (name, incarnation, role, address, wire, is_leaving, started_at, seen_at)
            values (%s, %s, %s, %s, %s, %s, clock_timestamp(), clock_timestamp())
            on conflict (name) do update set incarnation = excluded.incarnation, role = excluded.role,
                address = excluded.address, wire = excluded.wire, is_leaving = excluded.is_leaving,
                started_at = excluded.started_at, seen_at = excluded.seen_at
            returning name
        )
        select pg_notify(%s, name) from node
        """,
        (node.name, node.incarnation, node.role, node.address, node.wire, node.is_leaving, CHANNEL),
    )


async def beat(conn: Connection, incarnation: str, is_leaving: bool) -> list[NodeRow]:
    """This process still lives, and leaves or not; returns every node there is, this one as it is now."""
    return await fetch_all(
        conn,
        NodeRow,
        f"""
        with changed as materialized (
            select pg_notify(%s, name) from nodes where incarnation = %s and is_leaving <> %s
        ), beaten as (
            update nodes set seen_at = clock_timestamp(), is_leaving = %s where incarnation = %s returning *
        ), everybody as (
            select * from beaten union all select * from nodes where incarnation <> %s
        )
        select {_COLUMNS} from everybody where (select count(*) from changed) >= 0 order by name
        """,
        CHANNEL,
        incarnation,
        is_leaving,
        is_leaving,
        incarnation,
        incarnation,
    )


async def list_(conn: Connection) -> list[NodeRow]:
    """Every node there is, by name; the dead too, until their name registers again."""
    return await fetch_all(conn, NodeRow, f"select {_COLUMNS} from nodes order by name")


async def remove(conn: Connection, incarnation: str) -> None:
    """This run of a process is over."""
    await conn.execute(
        """
        with gone as (delete from nodes where incarnation = %s returning name)
        select pg_notify(%s, name) from gone
        """,
        (incarnation, CHANNEL),
    )
