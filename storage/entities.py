"""The small integer keys of bare JIDs, whether there is an account or not."""

from __future__ import annotations

from storage.rows import Connection, fetch_value


async def key_of(conn: Connection, jid: str, shard: int, kind: str) -> int:
    """The key of a bare JID, which gets one if it has none yet; `kind` counts only then."""
    key: int = await fetch_value(
        conn,
        """
        with found as (select key from entities where jid = %s), made as (
            insert into entities (jid, shard, kind) select %s, %s, %s
            where not exists (select from found)
            on conflict (jid) do update set kind = entities.kind returning key
        )
        select key from found union all select key from made
        """,
        jid,
        jid,
        shard,
        kind,
    )
    return key
