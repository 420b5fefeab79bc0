"""What an owner reads of the log (storage/log.py)."""

from __future__ import annotations

import time

from storage import log
from storage.log import ARCHIVE, BY_OTHER, DONE, FORWARD, FROM_OWNER, TO_OWNER, Row
from storage.rows import Connection
from tests.support.database import asynchronous, connected
from xmpp import stanza as stanzas

OWNER = 1
HEAD = log.pack_head(stanzas.message(to="juliet@example.com", from_="romeo@example.com"))


async def keep(conn: Connection, *rows: tuple[int, int, int, int]) -> list[int]:
    """Rows of (dir, forward, sid, n); their ids."""
    ids = log.Ids()
    ids.set_clock(time.time())
    made = [
        Row(5, OWNER, ids.next(0), ARCHIVE, dir_, forward, "juliet@example.com", sid, n, HEAD, b"")
        for dir_, forward, sid, n in rows
    ]
    await conn.execute(log.append_sql("true"), log.columns(made))
    return [row.id for row in made]


@asynchronous
async def test_a_mark_is_of_what_has_arrived_and_of_what_others_have_said(database: str) -> None:
    """What the account's own sessions have sent has numbers of theirs, and is none."""
    async with connected(database) as conn:
        await log.maintain(conn, time.time(), {})
        ids = await keep(
            conn,
            (TO_OWNER, DONE, 70, 3),
            (FROM_OWNER, BY_OTHER, 80, 4),
            (FROM_OWNER, FORWARD, 90, 5),
            (FROM_OWNER, DONE, 90, 6),
            (FROM_OWNER, BY_OTHER, 70, 2),
        )
        assert [await log.mark(conn, OWNER, sid, 0) for sid in (70, 80, 90, 60)] == [3, 4, 0, 0]
        assert await log.mark(conn, OWNER, 70, ids[0]) == 2
        assert await log.mark(conn, OWNER, 80, ids[1]) == 0
