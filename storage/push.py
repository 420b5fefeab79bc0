"""Push services that accounts have enabled (XEP-0357)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from storage.rows import Connection


class Enabled(NamedTuple):
    """A service (JID and node; "": none). `options` is the form that goes with each notification, or nothing;
    `failures` were in a row."""

    jid: str
    node: str
    options: bytes
    failures: int


async def load(conn: Connection, owners: Sequence[int]) -> dict[int, list[Enabled]]:
    """Those of each of these accounts."""
    cursor = await conn.execute(
        "select owner, jid, node, options, failures from push_services where owner = any (%s) order by jid, node",
        (list(owners),),
    )
    found: dict[int, list[Enabled]] = {owner: [] for owner in owners}
    for owner, *columns in await cursor.fetchall():
        found[owner].append(Enabled(*columns))
    return found


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
