"""What members of rooms have missed while they were away: rows of the log of class GROUP, and when each member was in a
room last."""

from __future__ import annotations

from storage.log import GROUP
from storage.rows import Connection, fetch_values


async def visit(conn: Connection, owner: int, room: str, id_: int) -> None:
    """The member comes into the room: everything up to this id is not new to them any more."""
    await conn.execute(
        """
        insert into room_visits (owner, room, id) values (%s, %s, %s)
        on conflict (owner, room) do update set id = greatest(room_visits.id, excluded.id)
        """,
        (owner, room, id_),
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
