"""Private XML Storage (XEP-0049). Elements are named "namespace local"."""

from __future__ import annotations

from collections.abc import Sequence

from storage.rows import Connection, fetch_value


async def get(conn: Connection, owner: int, name: str) -> bytes | None:
    """The element of this name."""
    xml: bytes | None = await fetch_value(
        conn, "select xml from private_xml where owner = %s and name = %s", owner, name
    )
    return xml


async def put(conn: Connection, owner: int, name: str, xml: bytes) -> None:
    """Store an element in the place of the one of the same name."""
    await conn.execute(
        """
        insert into private_xml (owner, name, xml) values (%s, %s, %s)
        on conflict (owner, name) do update set xml = excluded.xml
        """,
        (owner, name, xml),
    )


async def total_size(conn: Connection, owner: int, without: Sequence[str] = ()) -> int:
    """Bytes that an account's elements take together, all or all but those of some names."""
    size: int = await fetch_value(
        conn,
        """
        select coalesce(sum(octet_length(xml)), 0)::int8 from private_xml
        where owner = %s and name <> all (%s::text[])
        """,
        owner,
        list(without),
    )
    return size
