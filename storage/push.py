"""Push services that accounts have enabled (XEP-0357)."""

from __future__ import annotations

from typing import NamedTuple

from storage.rows import Connection, fetch_all


class Enabled(NamedTuple):
    """A service (JID and node; "": none). `options` is the form that goes with each notification, or nothing;
    `failures` were in a row."""

    jid: str
    node: str
    options: bytes
    failures: int


async def load(conn: Connection, owner: int) -> list[Enabled]:
    """Those of an account."""
    return await fetch_all(
        conn,
        Enabled,
        "select jid, node, options, failures from push_services where owner = %s order by jid, node",
        owner,
    )


async def enable(conn: Connection, owner: int, jid: str, node: str, options: bytes, failures: int) -> None:
    """A service is to be told."""
    await conn.execute(
        """
        insert into push_services (owner, jid, node, options, failures) values (%s, %s, %s, %s, %s)
        on conflict (owner, jid, node) do update set options = excluded.options, failures = excluded.failures
        """,
        (owner, jid, node, options, failures),
    )


async def disable(conn: Connection, owner: int, jid: str, node: str) -> None:
    """It is no more."""
    await conn.execute("delete from push_services where owner = %s and jid = %s and node = %s", (owner, jid, node))
