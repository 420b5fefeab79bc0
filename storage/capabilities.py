"""What clients with certain capabilities want (XEP-0115): answers that bear out the hash that names them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from storage.rows import Connection, fetch_all, fetch_value

READ_FIRST: Final = 5_000
KEPT: Final = 20_000


class Known(NamedTuple):
    """Capabilities (`xmpp/caps.py`, Caps.name), and the nodes of which their clients want notifications."""

    name: str
    wants: list[str]


async def find(conn: Connection, name: str) -> list[str] | None:
    """The nodes; None where nobody has asked such a client yet."""
    wants: list[str] | None = await fetch_value(conn, "select wants from capabilities where name = %s", name)
    return wants


async def put(conn: Connection, name: str, wants: Sequence[str]) -> None:
    """A client has said so."""
    await conn.execute(
        """
        insert into capabilities (name, wants) values (%s, %s)
        on conflict (name) do update set wants = excluded.wants, seen_at = now()
        """,
        (name, list(wants)),
    )


async def prune(conn: Connection) -> None:
    """What was learned long ago, and would be asked for again, is forgotten."""
    await conn.execute(
        """
        delete from capabilities where seen_at < (
            select seen_at from capabilities order by seen_at desc offset %s limit 1
        )
        """,
        (KEPT,),
    )


async def newest(conn: Connection) -> list[Known]:
    """What a router begins with."""
    return await fetch_all(
        conn, Known, "select name, wants from capabilities order by seen_at desc limit %s", READ_FIRST
    )
