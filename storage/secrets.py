"""Random bytes that all routers must have alike, made by whoever asks first."""

from __future__ import annotations

import secrets
from typing import Final

from storage.rows import Connection, fetch_value

SIZE_BYTES: Final = 32


async def secret(conn: Connection, name: str) -> bytes:
    """The cluster's secret of this name: 32 random bytes, the same for everybody and for ever."""
    value: bytes = await fetch_value(
        conn,
        """
        insert into secrets (name, value) values (%s, %s)
        on conflict (name) do update set value = secrets.value returning value
        """,
        name,
        secrets.token_bytes(SIZE_BYTES),
    )
    return value
