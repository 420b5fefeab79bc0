"""What members of rooms have missed while they were away: rows of the log of class GROUP, and when each member was in a
room last."""

from __future__ import annotations

from storage.log import GROUP
from storage.rows import Connection, fetch_values


async def visit(conn: Connection, owner: int, bare: str, room: str, id_: int) -> None:
    """Somebody comes into a room: where they are a member of it, everything up to this id is not new any more."""
    await conn.execute(
        """
        insert into room_visits (owner, room, id)
        select %s, e.jid, %s from entities e join room_affiliations a on a.room = e.key
        where e.jid = %s and a.jid = %s and a.affiliation > 1
        on conflict (owner, room) do update set id = greatest(room_visits.id, excluded.id)
        """,
        (owner, id_, room, bare),
    )


async def unseen(conn: Connection, owner: int, most: int) -> list[str]:
    """The rooms in which something was said since the member was there last, in the order of their JIDs."""
    return await fetch_values(
        conn,
        f"""
        select distinct l.peer from log l left join room_visits v on v.owner = l.owner and v.room = l.peer
        where l.owner = %s and l.class = {GROUP} and l.id > coalesce(v.id, 0) order by l.peer limit %s
        """,
        owner,
        most,
    )
