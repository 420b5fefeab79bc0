"""What is read of an account that moves away."""

from __future__ import annotations

from typing import NamedTuple

from storage.log import FIELDS, Row
from storage.rows import Connection, fetch_all

MOST_BYTES = 524_288


class PrivateXml(NamedTuple):
    """An element of private storage."""

    name: str
    xml: bytes


async def private_xml(conn: Connection, owner: int) -> list[PrivateXml]:
    """Everything in an account's private storage, ordered by name."""
    return await fetch_all(conn, PrivateXml, "select name, xml from private_xml where owner = %s order by name", owner)


async def rows_by_id(conn: Connection, owner: int, ids: list[int]) -> list[Row]:
    """The first of these rows, in order, as many as have MOST_BYTES (one at least)."""
    cursor = await conn.execute(
        f"""
        select {FIELDS} from (
            select *, sum(octet_length(inner_xml)) over (order by id) - octet_length(inner_xml) as bytes_before
            from log where owner = %s and id = any (%s::int8[])
        ) weighed where bytes_before < {MOST_BYTES} order by id
        """,
        (owner, ids),
        binary=True,
    )
    return [Row._make(row) for row in await cursor.fetchall()]
