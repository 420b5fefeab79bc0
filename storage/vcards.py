"""vcard-temp (XEP-0054): one element for each account."""

from __future__ import annotations

from storage.rows import Connection, fetch_value


async def get(conn: Connection, owner: int) -> bytes | None:
    """The account's vCard element."""
    xml: bytes | None = await fetch_value(conn, "select xml from vcards where owner = %s", owner)
    return xml


async def put(conn: Connection, owner: int, xml: bytes) -> None:
    """Store the account's vCard element in the place of the former one."""
    await conn.execute(
        """
        insert into vcards (owner, xml) values (%s, %s)
        on conflict (owner) do update set xml = excluded.xml, updated_at = now()
        """,
        (owner, xml),
    )
